#!/usr/bin/env python3
"""How well the shipped small model speaks in each of the program's ways: one table.

    quality.py [--bin build/bin] [--model deploy/model] [--faces 8] [--seconds 4] [--only WORD] [--minutes M [--sheet FILE]]

Voices (French, Polish, Catalan, Scottish English; variants m7, f5, klatt3) and faces that no training saw are rendered by
`longtake render`; what the films show is compared with the mouths that belong to the voices (deploy/puppet/measure.py says how).
The first row is the truth itself, drawn: what reading mouths off frames costs. A way that the program refuses, or takes
with a note that it has no effect, keeps its row, with the program's own words. --minutes M renders one more film of M minutes: a row
for each of its minutes, and its frames at the start, after one minute and five and at the end side by side in the PNG --sheet.

Needs numpy, pycairo and espeak-ng's library (deploy/puppet/README.md), and ffmpeg; no network of the training code.
The table goes to the standard output, and as CSV with the commit to bench/results/quality-COMMIT.csv.
"""
import argparse
import csv
import os
import subprocess
import sys
import tempfile
import wave

import numpy as np

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "deploy", "puppet"))
import measure
import png
from config import RATE, SEED_FACE_GATE, SIZE
from reader import Reader

LORA = "lora/few-steps.safetensors"
COLUMNS = ["opening", "worst", "lag", "width", "silence", "gain", "identity_first", "identity_last", "drift", "seam"]


def ways(model):
    """Name, flags."""
    out = [("f32", []), ("bf16", ["--dtype", "bf16"])]
    out += [(q, ["--quant", q]) for q in ("q8_0", "q4_0", "fp8")]
    out += [("TeaCache", ["--use-teacache"]), ("voice guidance 1", ["--sample-audio-guide-scale", "1"]),
            ("2 steps", ["--sample-steps", "2"]), ("8 steps", ["--sample-steps", "8"])]
    lora = os.path.join(model, LORA)
    few = ["--sample-steps", "3", "--sample-audio-guide-scale", "1"]
    out += [("3 steps, voice guidance 1", few), ("the same, few-step LoRA", few + ["--lora", lora])]
    return out + [("4 ranks", ["-n", "4"])]


def put_wave(path, samples):
    with wave.open(path, "wb") as w:
        w.setnchannels(1)
        w.setsampwidth(2)
        w.setframerate(RATE)
        w.writeframes(np.clip(np.round(samples * 32767), -32768, 32767).astype("<i2").tobytes())


def render(opt, folder, i, said, frames, flags):
    """u8 [n, 96, 96, 3], or why not."""
    picture, voice, film = (os.path.join(folder, "%d.%s" % (i, e)) for e in ("png", "wav", "mp4"))
    png.write(picture, measure.portrait(i))
    put_wave(voice, said[0][:frames * RATE // measure.SECOND])
    done = subprocess.run([os.path.join(opt.bin, "longtake"), "render", "--model", opt.model, "--image", picture, "--audio", voice,
                           "--crf", "10", "--overwrite", "-o", film, *flags], capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip() or "ended with %d" % done.returncode).split("\n")[-1]
    for line in done.stderr.split("\n"):
        if any(f.startswith("--") and line.startswith("note: %s:" % f) for f in flags):
            return line
    raw = subprocess.run(["ffmpeg", "-v", "error", "-i", film, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
    return np.frombuffer(raw.stdout, np.uint8).reshape(-1, SIZE, SIZE, 3)


class Gate:
    """The held-out films: voices, readers of mouths."""

    def __init__(self, opt, faces, frames):
        self.opt, self.frames = opt, frames
        self.said = [measure.voice(i, frames) for i in range(faces)]
        self.readers = [Reader(SEED_FACE_GATE + i) for i in range(faces)]

    def film(self, i, video):
        return measure.film(i, video, self.readers[i].read(video), self.said[i][1])

    def truth(self):
        return measure.together([self.film(i, measure.drawn(i, s, self.frames)) for i, s in enumerate(self.said)])

    def row(self, flags):
        films = []
        with tempfile.TemporaryDirectory() as folder:
            for i, said in enumerate(self.said):
                video = render(self.opt, folder, i, said, self.frames, flags)
                if isinstance(video, str):
                    return video
                films.append(self.film(i, video))
        return measure.together(films)

    def minutes(self):
        """Of one long film, a row for each minute."""
        with tempfile.TemporaryDirectory() as folder:
            video = render(self.opt, folder, 0, self.said[0], self.frames, [])
        if isinstance(video, str):
            return [("long film", video)]
        read, truth, per = self.readers[0].read(video), self.said[0][1], 60 * measure.SECOND
        if self.opt.sheet:
            at = [0] + [k * per for k in (1, 5) if k * per < len(video)] + [len(video) - 1]
            png.write(self.opt.sheet, np.concatenate(list(video[at].repeat(2, 1).repeat(2, 2)), 1))
        cut = lambda a, k: a[k * per:(k + 1) * per]
        one = lambda k: measure.film(0, cut(video, k), cut(read, k), cut(truth, k), k * per)
        return [("minute %d of one film" % (k + 1), measure.together([one(k)]))
                for k in range((len(video) + per - 1) // per)]


def show(rows, out):
    out.write("| way | " + " | ".join(COLUMNS) + " |\n" + "|---" * (len(COLUMNS) + 1) + "|\n")
    for name, value in rows:
        cells = [value] + [""] * (len(COLUMNS) - 1) if isinstance(value, str) else ["%.3g" % value[c] for c in COLUMNS]
        out.write("| " + " | ".join([name] + cells) + " |\n")


def keep(rows, opt):
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    path = os.path.join(ROOT, "bench", "results", "quality-%s.csv" % (commit or "unknown"))
    with open(path, "w", newline="") as f:
        w = csv.writer(f, lineterminator="\n")
        w.writerow(["# commit", commit, "faces", opt.faces, "seconds", opt.seconds])
        w.writerow(["way"] + COLUMNS + ["refused"])
        for name, v in rows:
            w.writerow([name] + ([""] * len(COLUMNS) + [v] if isinstance(v, str) else ["%.5g" % v[c] for c in COLUMNS] + [""]))
    return path


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--bin", default=os.path.join(ROOT, "build", "bin"))
    p.add_argument("--model", default=os.path.join(ROOT, "deploy", "model"))
    p.add_argument("--faces", type=int, default=8)
    p.add_argument("--seconds", type=float, default=4)
    p.add_argument("--minutes", type=int, default=0)
    p.add_argument("--sheet", default="")
    p.add_argument("--only", default="")
    opt = p.parse_args()
    if not os.path.exists(os.path.join(opt.model, "model.yaml")):
        raise SystemExit("quality.py: there is no model in %s; deploy/puppet/README.md says how to train and export one" % opt.model)
    gate = Gate(opt, opt.faces, int(opt.seconds * measure.SECOND))
    rows = [("drawn", gate.truth())]
    for name, flags in ways(opt.model):
        if opt.only in name:
            rows.append((name, gate.row(flags)))
            print(name, rows[-1][1], file=sys.stderr, flush=True)
    if opt.minutes:
        rows += Gate(opt, 1, opt.minutes * 60 * measure.SECOND).minutes()
    show(rows, sys.stdout)
    print("\n" + os.path.relpath(keep(rows, opt), ROOT))


if __name__ == "__main__":
    main()
