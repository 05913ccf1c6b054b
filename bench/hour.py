#!/usr/bin/env python3
"""An hour of voice: does it complete, and does nothing grow?

  bench/hour.py [--bin build/bin] [--minutes 60] [--worker real|fake] [--cuts N] [--out bench/results/hour.csv]

Renders one minute and then the whole length, with the tiny model or with the fake worker, which paints each frame's number.
Ends with 1 unless the film has exactly its frames, sound and picture end within half a frame of each other, the peak memory
of coordinator and worker is within 5 % of that for one minute, and (fake) every frame's number is where it belongs."""
import argparse
import csv
import os
import platform
import subprocess
import sys
import tempfile

import memory

HERE = memory.HERE
STRIPES, SIDE = 16, 64


def duration(path, stream):
    p = subprocess.run(["ffprobe", "-v", "error", "-select_streams", stream, "-show_entries", "stream=duration", "-of", "csv=p=0",
                        path], check=True, capture_output=True, text=True)
    return float(p.stdout.strip().strip(","))


def fake_model(folder):
    subprocess.run(["bash", "-c", f". {HERE}/tests/fake_model.sh; fake_model {folder}"], check=True)


def wrong_frames(path):
    """(frames, how many of them do not show their own number): stripes of 16 bits, the highest on the left."""
    p = subprocess.Popen(["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "gray", "-"], stdout=subprocess.PIPE)
    n = wrong = 0
    while len(frame := p.stdout.read(SIDE * SIDE)) == SIDE * SIDE:
        row = frame[SIDE // 2 * SIDE:SIDE // 2 * SIDE + SIDE]
        width = SIDE // STRIPES
        bits = [row[i * width + width // 2] > 125 for i in range(STRIPES)]
        wrong += sum(bit << (STRIPES - 1 - i) for i, bit in enumerate(bits)) != n % (1 << STRIPES)
        n += 1
    return n, wrong


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("--bin", default=f"{HERE}/build/bin")
    a.add_argument("--minutes", type=float, default=60)
    a.add_argument("--worker", choices=["real", "fake"], default="real")
    a.add_argument("--cuts", type=int, default=0, help="spans begin at so many places, spread evenly")
    a.add_argument("--out")
    o = a.parse_args()
    o.bin = os.path.abspath(o.bin)
    seconds = int(o.minutes * 60)
    with tempfile.TemporaryDirectory() as folder:
        model, more = f"{folder}/model", []
        if o.worker == "fake":
            fake_model(model)
            os.environ["FAKE_WORKER"] = "step:0"
            more = ["--worker", f"{o.bin}/fake_worker", "--crf", "10"]
        else:
            memory.run(f"{o.bin}/longtake", "weights", "synth", "--seed", "1", "-o", model)
        short = memory.render(o.bin, model, 60, folder, more)
        if o.cuts:
            more += ["--cuts", ",".join(f"{(i + 1) * seconds / (o.cuts + 1):.3f}" for i in range(o.cuts))]
        row = memory.render(o.bin, model, seconds, folder, more)
        film = f"{folder}/out{seconds}.mp4"
        skew = abs(duration(film, "v:0") - duration(film, "a:0"))
        shown, wrong = wrong_frames(film) if o.worker == "fake" else (row["frames"], 0)
    grown = max(row[k] / short[k] - 1 for k in ("coordinator_kib", "worker_kib")[:1 if o.worker == "fake" else 2])
    commit = subprocess.run(["git", "-C", HERE, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    row.update(worker=o.worker, cuts=o.cuts, minute_coordinator_kib=short["coordinator_kib"], minute_worker_kib=short["worker_kib"],
               grown=round(grown, 4), skew_ms=round(skew * 1000, 2), wrong_frames=wrong, cores=os.cpu_count(),
               machine=platform.machine(), commit=commit)
    for f in [sys.stdout] + ([open(o.out, "w", newline="", encoding="utf-8")] if o.out else []):
        w = csv.DictWriter(f, row)
        w.writeheader()
        w.writerow(row)
    good = row["frames"] == shown == seconds * 25 and skew < 0.02 and grown <= 0.05 and wrong == 0
    print("hour: as it should be" if good else "hour: NOT as it should be")
    sys.exit(0 if good else 1)


main()
