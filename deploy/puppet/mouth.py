"""From phonemes to mouths: opening, width and roundness at every video frame.

Each class of phonemes wants a shape and insists on it with a weight. The shape at a time is the weighted mean under a
Gaussian of 32 ms, so that neighbours melt into each other; closures (p, b, m) and f, v insist twice as hard, else a
short closure between two vowels would be averaged away. A pause is a closed mouth. Frames are read at their centre.

A diphthong is one event: its first vowel holds for a little more than half of it.
"""
import numpy as np

GRID_HZ, SIGMA_MS = 200, 32
CLASSES = ["rest", "a", "o", "u", "e", "i", "m", "f", "w", "t", "l", "S", "k"]
REST = (0.0, 0.5, 0.0, 1.2)
# IPA letters, (opening, width, roundness, weight), class
TABLE = [
    ("aAɑɐæʌäɶ", (1.0, 0.62, 0.0, 1.0), "a"),
    ("ɔɒ", (0.85, 0.40, 0.6, 1.0), "o"),
    ("oɤ", (0.62, 0.25, 0.9, 1.0), "o"),
    ("uʊɯʉyʏ", (0.35, 0.10, 1.0, 1.0), "u"),
    ("eɛεəɜɵøœɚɝɘ", (0.60, 0.72, 0.0, 1.0), "e"),
    ("iɪɨ", (0.35, 1.0, 0.0, 1.0), "i"),
    ("mbpɓɱ", (0.0, 0.55, 0.0, 2.2), "m"),
    ("fv", (0.10, 0.65, 0.0, 1.8), "f"),
    ("ʋβɸ", (0.10, 0.50, 0.3, 1.6), "f"),
    ("wʍɥ", (0.15, 0.12, 1.0, 1.5), "w"),
    ("tdnszθðɾɖʈɗɳ", (0.24, 0.68, 0.0, 0.8), "t"),
    ("lrɹɫɻɭɬɽʀ", (0.32, 0.60, 0.1, 0.8), "l"),
    ("ʃʒɕʑʂʐ", (0.28, 0.30, 0.6, 1.1), "S"),
    ("kgŋxɣqchɡhɦχħʔjçʎɲɟʝɠʁɢɴʕ", (0.34, 0.62, 0.0, 0.6), "k"),
]
SHAPE = {c: shape for letters, shape, _ in TABLE for c in letters}
CLASS = {c: CLASSES.index(name) for letters, _, name in TABLE for c in letters}
VOWELS = set("".join(letters for letters, _, name in TABLE if name in "aouei"))


def gaussian(sigma):
    n = int(4 * sigma + 0.5)
    k = np.exp(-0.5 * (np.arange(-n, n + 1) / sigma) ** 2)
    return k / k.sum()


def smooth(x, sigma):
    """Along the first axis, edges repeated."""
    k = gaussian(sigma)
    n = len(k) // 2
    cols = x.reshape(len(x), -1)
    out = np.stack([np.convolve(np.pad(c, n, mode="edge"), k, "valid") for c in cols.T], 1)
    return out.reshape(x.shape)


def letters_of(ipa):
    """The letters of an event that say something about the mouth: one, or two for a diphthong."""
    known = [c for c in ipa if c in SHAPE]
    if len(known) > 1 and known[0] in VOWELS and known[1] in VOWELS:
        return known[:2]
    return known[:1]


def split(spans):
    """(from s, to s, IPA) to (from, to, letter)."""
    for a, b, ipa in spans:
        letters = letters_of(ipa)
        if len(letters) == 1:
            yield a, b, letters[0]
        elif len(letters) == 2:
            mid = a + 0.55 * (b - a)
            yield a, mid, letters[0]
            yield mid, b, letters[1]


def mouth_of(spans, frames):
    """[(from s, to s, IPA)] to shapes f32 [frames, 3] and classes i64 [frames]."""
    lead = 20  # grid cells before time 0, for the smoothing
    per = GRID_HZ // 25
    n = frames * per + 2 * lead
    num, den = np.tile(np.array(REST[:3]) * REST[3], (n, 1)), np.full(n, REST[3])
    cls = np.zeros(n, np.int64)
    for a, b, letter in split(spans):
        i, j = int(a * GRID_HZ) + lead, int(b * GRID_HZ) + lead
        j = min(j, n, i + 60)
        if i >= n:
            break
        *shape, weight = SHAPE[letter]
        num[i:j], den[i:j], cls[i:j] = np.array(shape) * weight, weight, CLASS[letter]
    sigma = SIGMA_MS * GRID_HZ / 1000
    shapes = smooth(num, sigma) / smooth(den, sigma)[:, None]
    at = np.arange(frames) * per + lead + per // 2
    return shapes[at].astype(np.float32), cls[at]
