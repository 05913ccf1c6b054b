"""What the voice network makes of a recording: `listen.py FILE.wav ...` (16-bit).

A recording has no truth to compare with, but a mouth opens with loud vowels and closes in pauses: correlation of the
opening with the loudness, and the opening where it is quiet (below a tenth of the loud frames' loudness).
"""
import sys
import wave

import numpy as np
import torch

import run
import speech
from config import PER_FRAME
from measure import correlation
from mouth import CLASSES
from voice import voice_new


def samples(path):
    """f32 at 16 kHz, whole video frames."""
    with wave.open(path) as w:
        if w.getsampwidth() != 2:
            raise SystemExit(path + " is not 16-bit")
        a = np.frombuffer(w.readframes(w.getnframes()), np.int16).reshape(-1, w.getnchannels()).mean(1)
        x = speech.resample(a, w.getframerate())
    return x[:len(x) // PER_FRAME * PER_FRAME]


def main(paths):
    value = run.load("voice.pt")["slow"]["value"]
    net = voice_new()
    net.load_state_dict({k[len("net."):]: v for k, v in value.items() if k.startswith("net.")})
    for path in paths:
        x = samples(path)
        with torch.no_grad():
            rows = net(torch.from_numpy(x)[None])[0, :, -1]
        opening = (rows @ value["head.weight"].T + value["head.bias"])[:, len(CLASSES)].numpy()
        loud = speech.loudness(x, len(opening))
        quiet = loud < 0.1 * np.percentile(loud, 95)
        print("%s: opening with loudness %.3f, opening in %d quiet frames %.3f, mean %.3f" % (
            path, correlation(opening, loud), quiet.sum(), opening[quiet].mean() if quiet.any() else 0, opening.mean()))


if __name__ == "__main__":
    main(sys.argv[1:])
