"""Endless invented speech: sound, mouth shapes, loudness and pitch, all from one seed.

A unit is 5.12 s (128 video frames): sentences of real and invented words in one language, voice, rate and pitch, with
pauses. The synthesiser's rate is bent by up to 14 %, which moves formants and pitch together as a longer or shorter
throat would: more speakers than there are voices.

Held out from training: French, Polish, Catalan and Scottish English, the variants m7, f5 and klatt3. Whispering
voices are left out altogether.
"""
import random

import numpy as np

import mouth
from config import FPS, PER_FRAME, RATE
from espeak import Synth

FRAMES = 128
TRAIN_LANGUAGES = ("en-us en en-gb-x-rp en-us-nyc en-029 en-gb-x-gbclan en-gb-x-gbcwmd es es-419 de it pt pt-br nl sv "
                   "nb da is cs sk sl hr sr bs bg mk ru uk lt lv et fi hu ro el tr az kk sq hy eu cy ga af id ms sw vi "
                   "hi bn ta te mr ne fa-latn ar cmn yue ko ja eo la ia qu gn ht ku mt tn om tt uz").split()
HELD_LANGUAGES = ["fr", "pl", "ca", "en-gb-scotland"]
TRAIN_VARIANTS = ("m1 m2 m3 m4 m5 m6 m8 f1 f2 f3 f4 klatt klatt2 klatt4 klatt5 klatt6 croak adam Alex Alicia Andrea Andy "
                  "Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Michael Mike anika antonio aunty "
                  "belinda benjamin boris caleb david ed edward edward2 grandma grandpa gustave iven iven2 iven3 iven4 "
                  "john kaukovalta linda marcelo max michel miguel norbert pablo paul pedro quincy rob robert sandro "
                  "shelby steph steph2 steph3 travis victor zac").split()
HELD_VARIANTS = ["m7", "f5", "klatt3"]
WORDS = ("the quick brown fox jumps over a lazy dog while many people open their mouths and say hello how are you today "
         "my name is anna we like to move it before winter papa bought apples from marks shop please bring warm water "
         "again good morning everybody this is small puppet that can talk about almost anything want hear five big boats "
         "float by river maybe tomorrow will find out why birds sing every thank very much for your help one two three "
         "four six seven eight nine ten because people never knew what happened between summer rain light house music "
         "where shall meet time after always under above problem number family important question simple answer").split()
ONSETS = list("bpmfvtdklmnrsgzhjw") + ["sh", "ch", "st", "br", "pl", "tr", "kw", ""]
VOWELS = ["a", "e", "i", "o", "u", "ai", "au", "oo", "ee", "a", "o"]
CODAS = ["", "", "m", "n", "s", "l", "p", "t", "r", "k"]
_synth = []


def synth():
    if not _synth:
        _synth.append(Synth())
    return _synth[0]


def sentence(rng, english):
    words = []
    for _ in range(rng.randint(2, 9)):
        if rng.random() < (0.65 if english else 0.15):
            words.append(rng.choice(WORDS))
        else:
            syllables = [rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(rng.randint(1, 3))]
            words.append("".join(syllables) + rng.choice(CODAS))
    return " ".join(words) + rng.choice([".", "?", "!", ","])


def resample(x, rate):
    """int16 at `rate` to float at 16 kHz, by the spectrum; both ends are silent, so that it may wrap."""
    n = max(1, int(round(len(x) * RATE / rate)))
    spectrum = np.fft.rfft(x.astype(np.float64) / 32768)
    keep = n // 2 + 1
    out = np.zeros(keep, complex)
    m = min(keep, len(spectrum))
    out[:m] = spectrum[:m]
    return (np.fft.irfft(out, n) * (n / len(x))).astype(np.float32)


def loudness(wave, frames):
    """Root mean square around each frame's centre."""
    power = mouth.smooth((wave.reshape(-1, 80).astype(np.float64) ** 2).mean(1), 6)
    return np.sqrt(power[np.arange(frames) * 8 + 4] + 1e-12).astype(np.float32)


def pitch(wave, frames):
    """Octaves around 150 Hz by autocorrelation, smoothed; 0 where nothing is voiced."""
    n = 1024
    padded = np.pad(wave, (n // 2, n))
    at = np.arange(frames)[:, None] * PER_FRAME + PER_FRAME // 2 + np.arange(n)
    block = padded[at] * np.hanning(n)
    spectrum = np.abs(np.fft.rfft(block, 2 * n)) ** 2
    corr = np.fft.irfft(spectrum)[:, :n]
    lags = np.arange(RATE // 400, RATE // 70)
    score = corr[:, lags] / (corr[:, :1] + 1e-9)
    best, voiced = lags[score.argmax(1)], (score.max(1) > 0.5) & (corr[:, 0] > 1e-4)
    value = np.where(voiced, np.log2(RATE / best / 150.0), 0.0)
    weight = mouth.smooth(voiced.astype(float), 3)
    return (mouth.smooth(value, 3) / (weight + 0.2)).astype(np.float32)


def unit(seed, held=False, frames=FRAMES):
    """wave f32 [640 frames], mouth [frames, 3], classes [frames], loudness [frames], pitch [frames], facts."""
    rng = random.Random(seed * 2 + held)
    language = rng.choice(HELD_LANGUAGES if held else TRAIN_LANGUAGES)
    if not held and rng.random() < 0.3:
        language = "en-us"
    variant = rng.choice(HELD_VARIANTS if held else TRAIN_VARIANTS)
    rate, tone, spread = rng.randint(110, 240), rng.randint(15, 85), rng.randint(20, 80)
    bend = 1.0 if held else rng.uniform(0.88, 1.14)
    pauses = rng.choice([0.15, 0.4, 0.8, 1.5])
    s, n = synth(), frames * PER_FRAME
    pieces, spans = [np.zeros(int(rng.choice([0, 0, 0.2, 0.6, 1.2]) * rng.random() * RATE), np.float32)], []
    have, failed = len(pieces[0]), 0
    while have < n:
        raw, events = s.say(sentence(rng, language.startswith("en")), language + "+" + variant, rate, tone, spread)
        if len(raw) < 2000:
            failed += 1
            language = "en-us" if not held else "fr"
            if failed > 5:
                raise RuntimeError("espeak-ng does not speak as %s+%s" % (language, variant))
            continue
        own = s.rate * bend
        wave, start = resample(raw, own), have / RATE
        for k, (at, ipa) in enumerate(events):
            end = events[k + 1][0] if k + 1 < len(events) else len(raw)
            spans.append((start + at / own, start + end / own, ipa))
        gap = np.zeros(int(rng.random() * pauses * RATE), np.float32)
        pieces += [wave, gap]
        have += len(wave) + len(gap)
    wave = np.concatenate(pieces)[:n]
    shapes, classes = mouth.mouth_of(spans, frames)
    facts = dict(language=language, variant=variant, rate=rate, tone=tone, bend=bend)
    return wave, shapes, classes, loudness(wave, frames), pitch(wave, frames), facts
