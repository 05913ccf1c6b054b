"""Makes the short exam that speaks.sh holds a model to: `exam.py FOLDER`.

A face and a voice that no training saw: face.png, voice.wav, and truth.json, which holds the mouth's opening at every frame
and how to read it off a frame with nothing else: opening = bias + sum of weights x pixels (0..255, RGB) of a box. The
weights are a ridge regression over the drawn mouths of this very face, which suffices for a correlation.
"""
import json
import os
import sys

import numpy as np

from quality import measure, put_wave
import png
from config import SEED_FACE_GATE
from reader import Reader

FACE, FRAMES_LONG, RIDGE = 3, 81, 30.0


def readout(reader):
    """Weights [pixels], bias; mouths that are blurred and noisy too, as films are."""
    rng = np.random.default_rng(5)
    x0, x1, y0, y1 = reader.box
    x = reader.seen.reshape(len(reader.seen), y1 - y0, x1 - x0, 3)
    soft = x.copy()
    soft[:, 1:-1, 1:-1] = 0.5 * x[:, 1:-1, 1:-1] + 0.125 * (x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:])
    x = np.concatenate([x, soft]).reshape(2 * len(x), -1) / 255
    x = x + rng.normal(0, 0.02, x.shape)
    opening = np.tile(reader.truth[:, 0], 2)
    mean = x.mean(0)
    w = np.linalg.solve((x - mean).T @ (x - mean) + RIDGE * np.eye(x.shape[1]), (x - mean).T @ (opening - opening.mean()))
    return w / 255, opening.mean() - mean @ w


def main(folder):
    os.makedirs(folder, exist_ok=True)
    said, reader = measure.voice(FACE, FRAMES_LONG), Reader(SEED_FACE_GATE + FACE)
    w, b = readout(reader)
    film = measure.drawn(FACE, said, FRAMES_LONG)
    read = reader.cut(film) @ w + b
    truth = said[1][:FRAMES_LONG, 0]
    print("read off drawn frames: correlation %.3f" % measure.correlation(read, truth))
    png.write(os.path.join(folder, "face.png"), measure.portrait(FACE))
    put_wave(os.path.join(folder, "voice.wav"), said[0][:FRAMES_LONG * 640])
    with open(os.path.join(folder, "truth.json"), "w") as f:
        json.dump(dict(box=reader.box, bias=round(float(b), 5), weights=[round(float(v), 7) for v in w],
                       opening=[round(float(v), 3) for v in truth]), f, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
