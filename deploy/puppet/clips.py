"""Drawn clips with truth: pixels, boxes, mouth tracks; fresh for every step, from one seed each.

The motion comes from a bank of speech tracks (train_voice.py draws them): a clip is a face that was never seen before
saying 33 frames of some unit. A part of the clips is a window of a scene with two people.
"""
import numpy as np
import torch

import face
import motion
from config import FRAMES, SIZE


def track(bank, rng, n=FRAMES):
    """A whole unit's poses and where a clip of n frames begins: (unit, start, poses [128, 10])."""
    u = int(rng.integers(len(bank["M"])))
    length = len(bank["M"][u])
    start = int(rng.integers(length - n + 1)) if rng.random() > 0.15 else 0
    return u, start, motion.poses(int(rng.integers(1 << 30)), bank["M"][u], bank["L"][u], bank["T"][u])


def pair(bank, seed, rng, n, wide=160):
    """Two people, one speaking or both: frames [n, 96, wide, 3] and their boxes."""
    a, b = (face.face_new(s, face.PAIR_SIZE) for s in (seed, seed + (1 << 27)))
    xs = (44 + rng.uniform(-3, 3), wide - 44 + rng.uniform(-3, 3))
    poses = []
    for k in range(2):
        _, start, p = track(bank, rng, n)
        if rng.random() < 0.4:
            p = motion.listening(int(rng.integers(1 << 30)), len(p))
        poses.append(p[start:start + n])
    frames = face.render([(a, xs[0]), (b, xs[1])], poses, wide)
    return frames, [face.boxes(a, xs[0]), face.boxes(b, xs[1])]


def weights(boxes, wide, mouth=4.0, eyes=3.0):
    w = np.ones((SIZE, wide), np.float32)
    for m, e in boxes:
        for (x0, x1, y0, y1), v in ((e, eyes), (m, mouth)):
            w[max(0, y0):max(0, y1), max(0, x0):max(0, x1)] = v
    return w


def clip(bank, seed, rng, n):
    """frames u8 [n, 96, 96, 3], weights [96, 96], the middle of a mouth (x, y)."""
    if rng.random() < 0.15:
        wide = 160
        frames, boxes = pair(bank, seed, rng, n, wide)
        x = int(rng.integers(0, wide - SIZE + 1))
        m = boxes[0 if x < (wide - SIZE) // 2 else 1][0]
        return frames[:, :, x:x + SIZE], weights(boxes, wide)[:, x:x + SIZE], ((m[0] + m[1]) // 2 - x, (m[2] + m[3]) // 2)
    f = face.face_new(seed)
    _, start, p = track(bank, rng, n)
    m, e = face.boxes(f)
    return face.portrait(f, p[start:start + n]), weights([(m, e)], SIZE), ((m[0] + m[1]) // 2, (m[2] + m[3]) // 2)


def crops(bank, seed, rng, count, n, size):
    """Pixels f32 [count, n, size, size, 3] in -1..1 and weights [count, 1, size, size, 1]; two crops in three near a mouth."""
    xs, ws = [], []
    for k in range(count):
        frames, w, (mx, my) = clip(bank, seed + k, rng, n)
        x, y = (int(v) for v in rng.integers(0, SIZE - size + 1, 2))
        if rng.random() < 0.65:
            x, y = (int(np.clip(c - size // 2 + rng.integers(-18, 19), 0, SIZE - size)) for c in (mx, my))
        xs.append(frames[:, y:y + size, x:x + size])
        ws.append(w[y:y + size, x:x + size])
    return pixels(np.stack(xs)), torch.from_numpy(np.stack(ws))[:, None, :, :, None]


def pixels(frames):
    return torch.from_numpy(np.ascontiguousarray(frames)).float() / 127.5 - 1


def held(bank, first, count, n=FRAMES):
    """Clips to measure by: [(frames, mouth box, eye box)] of held faces and the bank's (held) speech."""
    out = []
    for i in range(count):
        f = face.face_new(first + i)
        p = motion.poses(first + i, bank["M"][i], bank["L"][i], bank["T"][i])[20:20 + n]
        out.append((face.portrait(f, p), *face.boxes(f)))
    return out
