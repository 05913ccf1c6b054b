"""What is measured of a talking film whose truth is known: no networks here, only frames against drawn mouths.

    opening, width   correlation of what is read off the frames (reader.py) with the truth
    lag              of the opening, in ms: the shift between -5 and 5 frames with the best correlation
    silence          mean opening read where the truth is closed
    identity         colours of the head above the mouth against the portrait's, of 255, at the best shift of up to 5 pixels
    drift            of the mean colour of the top rows against the portrait's, of 255
    seam             change of picture where one segment follows another, over the change between other frames: 1 is invisible
"""
import numpy as np

import face
import motion
import speech
from config import CONTEXT, FRAMES, SEED_FACE_GATE, SEED_SPEECH_GATE

LAGS = range(-5, 6)
SECOND = 25


def correlation(a, b):
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 1e-6 and b.std() > 1e-6 else 0.0


def voice(i, frames):
    """The i-th held-out voice: wave, mouths, loudness, pitch of `frames` frames and a few more."""
    parts = [speech.unit(SEED_SPEECH_GATE + 1000 * i + k, True) for k in range((frames + 4) // speech.FRAMES + 1)]
    return [np.concatenate([p[j] for p in parts]) for j in (0, 1, 3, 4)]


def portrait(i):
    """The i-th held-out face at rest, u8 [96, 96, 3]."""
    return face.portrait(face.face_new(SEED_FACE_GATE + i), np.array([face.REST_POSE]))[0]


def drawn(i, said, frames):
    """The same face drawn as it says it: the best that there is to reach."""
    return face.portrait(face.face_new(SEED_FACE_GATE + i), motion.poses(SEED_FACE_GATE + i, *(a[:frames] for a in said[1:])))


def at_lag(read, truth, d):
    """d > 0: the film is late."""
    n = len(read)
    return correlation(read[max(0, d):n + min(0, d)], truth[max(0, -d):n + min(0, -d)])


def best_lag(read, truth):
    """Frames."""
    return max(LAGS, key=lambda d: at_lag(read, truth, d))


def identity(frames, picture, i):
    """Of frames u8 [n, 96, 96, 3]."""
    f = face.face_new(SEED_FACE_GATE + i)
    x0, x1 = (int(48 + f["x"] + s * f["rx"] * f["zoom"]) for s in (-1, 1))
    y0, y1 = 8, face.boxes(f)[0][2]
    x0, x1 = max(5, x0), min(frames.shape[2] - 5, x1)
    want, best = picture[y0:y1, x0:x1].astype(float), np.inf
    for dx in range(-5, 6):
        for dy in range(-5, 6):
            cut = frames[:, y0 + dy:y1 + dy, x0 + dx:x1 + dx]
            best = np.minimum(best, np.abs(cut - want).mean((1, 2, 3)))
    return float(best.mean())


def drift(frames, picture):
    return float(np.abs(frames[:, :16].astype(float).mean((0, 1, 2)) - picture[:16].astype(float).mean((0, 1))).mean())


def seam(frames, first=0):
    """first: where in its film the first frame stands."""
    change = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean((1, 2, 3))
    later = np.arange(len(change)) + first - (FRAMES - 1)
    at = (later >= 0) & (later % (FRAMES - CONTEXT) == 0)
    return float(change[at].mean() / change[~at].mean()) if at.any() and change[~at].mean() > 0 else float("nan")


def film(i, frames, read, truth, first=0):
    """All measures of one film of face i, or of a part of it from frame `first` on; read, truth [n, 3]."""
    picture, n = portrait(i), min(len(frames), len(truth))
    frames, a, m = frames[:n], read[:n], truth[:n]
    quiet = a[m[:, 0] < 0.03, 0]
    return dict(opening=at_lag(a[:, 0], m[:, 0], 0), earlier=at_lag(a[:, 0], m[:, 0], -1), later=at_lag(a[:, 0], m[:, 0], 1),
                lag=1000 * best_lag(a[:, 0], m[:, 0]) / SECOND, width=correlation(a[:, 1], m[:, 1]),
                silence=float(quiet.mean()) if len(quiet) else float("nan"), error=float(np.abs(a[:, 0] - m[:, 0]).mean()),
                gain=float(a[:, 0].std() / m[:, 0].std()), identity_first=identity(frames[:SECOND], picture, i),
                identity_last=identity(frames[-SECOND:], picture, i), drift=drift(frames[-SECOND:], picture), seam=seam(frames, first))


def together(films):
    """Means over films, and the worst opening."""
    out = {k: float(np.nanmean([f[k] for f in films])) for k in films[0]}
    return dict(opening=out.pop("opening"), worst=min(f["opening"] for f in films), **out)
