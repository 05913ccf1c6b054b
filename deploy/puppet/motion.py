"""How a speaking head moves: poses [n, 10] from mouth shapes, loudness and pitch.

The mouth is given. The head nods down with loudness and up with pitch, brows rise with pitch, all smoothed; slow sways
on top; blinks at random, rather at pauses; the look wanders. A silent listener moves too, with a closed mouth.
"""
import numpy as np

from config import FPS
from mouth import smooth

SHUT = (0.0, 0.5, 0.0)

def sway(rng, t, size):
    return size * np.sin(2 * np.pi * (rng.uniform(0.08, 0.35) * t + rng.random())) * rng.uniform(0.5, 1)


def blinks(rng, n):
    b = np.zeros(n)
    i = int(rng.uniform(5, 60))
    while i < n:
        for j, v in enumerate((0.5, 1.0, 1.0, 0.6, 0.2)):
            if i + j < n:
                b[i + j] = v
        i += int(rng.uniform(40, 110))
    return b


def steps(rng, n, size):
    """Holds a value for half a second to three, then jumps."""
    out, i = np.zeros(n), 0
    while i < n:
        k = int(rng.uniform(12, 75))
        out[i:i + k] = rng.normal() * size
        i += k
    return out


def poses(seed, shapes, loud, tone):
    rng = np.random.default_rng(seed)
    n = len(shapes)
    t = np.arange(n) / FPS
    mean = loud.mean()
    l = np.clip(smooth(loud / mean if mean > 1e-3 else loud * 0, 4), 0, 2)
    p = smooth(tone, 5) - tone.mean()
    lively = rng.uniform(0.4, 1.2)
    dy = sway(rng, t, 0.8) + lively * (0.9 * l - 1.2 * np.clip(p, -1, 1))
    dx = sway(rng, t, 1.2)
    tilt = sway(rng, t, 0.035) + lively * 0.012 * l
    yaw = sway(rng, t, 1.0) + smooth(steps(rng, n, 0.4), 5)
    brow = np.clip(lively * 1.4 * p, -0.6, 1.4) + sway(rng, t, 0.2)
    gaze = np.clip(smooth(steps(rng, n, 0.5), 1), -1.1, 1.1)
    return np.stack([*shapes.T, blinks(rng, n), dx, np.clip(dy, -2.5, 2.5), tilt, np.clip(yaw, -2, 2), brow, gaze], 1)


def listening(seed, n):
    rest = np.tile(SHUT, (n, 1))
    return poses(seed, rest, np.zeros(n, np.float32), np.zeros(n, np.float32))
