#!/usr/bin/env python3
"""An hour of voice: does it complete, and does nothing grow?

  bench/hour.py [--minutes 60] [--worker both|real|fake] [--cuts 24] [--bin build/bin] [--out bench/results/hour.csv]

Builds what it runs, unless --bin names it. Renders one minute and then the whole length: with the tiny model, with the fake worker,
which paints each frame's number, and with that one once more in several spans. A line of verdict for each thing that is wanted: the
film has exactly its frames; sound and picture end within half a frame of each other; the peak memory of the coordinator, and of the
worker that is real, is within 5 % of that for one minute (the largest of three runs: a peak moves by some MB from run to run); every
frame shows the number of its place, so each came exactly once. The last line is the verdict in all, and 1 the status where something
was missed. Rows go to bench/results/hour-<CPU>-<commit>.csv, and from there into the README by `bench/table.py --coordinator --readme`."""
import argparse
import os
import subprocess
import sys
import tempfile

import memory
import share

HERE = share.HERE
STRIPES, SIDE, FPS = 16, 64, 25
MOST_GROWN, MOST_SKEW_S = 0.05, 0.5 / FPS


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


def told(row, what, said, good):
    print(f"{row['worker']}{' with cuts' if row['cuts'] else ''}: {what}: {said}: {'as wanted' if good else 'MISSED'}", flush=True)
    return good


def judged(row, seconds):
    """Prints what is wanted of a row; whether all of it is so."""
    frames = seconds * FPS
    good = told(row, "frames", f"{row['frames']} of {frames}", row["frames"] == frames)
    good &= told(row, "sound and picture end apart", f"{row['skew_ms']} ms of {1000 * MOST_SKEW_S:g}", row["skew_ms"] < 1000 * MOST_SKEW_S)
    for who in ("coordinator", "worker"):
        if row[f"{who}_grown"] != "":
            good &= told(row, f"peak memory of the {who}, beside one minute",
                         f"{row[f'minute_{who}_kib']} KiB, then {row[f'{who}_kib']} ({row[f'{who}_grown']:+.1%} of {MOST_GROWN:.0%})",
                         row[f"{who}_grown"] <= MOST_GROWN)
    if row["worker"] == "fake":
        good &= told(row, "numbers in the frames", f"{row['shown']} frames shown, {row['wrong_frames']} with another number than their own",
                     row["shown"] == frames and row["wrong_frames"] == 0)
    return good


def cuts(seconds, n):
    return ["--cuts", ",".join(f"{(i + 1) * seconds / (n + 1):.3f}" for i in range(n))] if n else []


def rendered(o, worker, folder, all_cuts):
    """A row for each number of cuts, after one minute, in spans too, to compare with."""
    model, more = f"{folder}/model-{worker}", []
    if worker == "fake":
        fake_model(model)
        os.environ["FAKE_WORKER"] = "step:0"
        more = ["--worker", f"{o.bin}/fake_worker", "--crf", "10"]
    else:
        share.run(f"{o.bin}/longtake", "weights", "synth", "--seed", "1", "-o", model)
    seconds = int(o.minutes * 60)
    for n in all_cuts:
        minute = [memory.render(o.bin, model, 60, folder, more + cuts(60, min(n, max(1, n * 60 // seconds)))) for _ in range(3)]
        short = {key: max(r[key] for r in minute) for key in ("coordinator_kib", "worker_kib")}
        row = memory.render(o.bin, model, seconds, folder, more + cuts(seconds, n))
        film = f"{folder}/out{seconds}.mp4"
        shown, wrong = wrong_frames(film) if worker == "fake" else ("", "")
        row.update(worker=worker, cuts=n, skew_ms=round(1000 * abs(duration(film, "v:0") - duration(film, "a:0")), 2), shown=shown,
                   wrong_frames=wrong)
        for who in ("coordinator", "worker"):
            row[f"minute_{who}_kib"] = short[f"{who}_kib"]
            said = who == "coordinator" or worker == "real"  # what the fake one takes says nothing
            row[f"{who}_grown"] = round(row[f"{who}_kib"] / short[f"{who}_kib"] - 1, 4) if said else ""
        yield row


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("--bin")
    a.add_argument("--minutes", type=float, default=60)
    a.add_argument("--worker", choices=["both", "real", "fake"], default="both")
    a.add_argument("--cuts", type=int, default=24, help="of the run with several spans: they begin at so many places, spread evenly")
    a.add_argument("--out")
    o = a.parse_args()
    load = os.getloadavg()[0]
    o.bin = os.path.abspath(o.bin or share.built("longtake", "longtake-worker", "fake_worker"))
    if o.minutes < 2:
        sys.exit("--minutes: two at least, since they are held against one")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        if o.worker != "fake":
            rows += rendered(o, "real", folder, [0])
        if o.worker != "real":
            rows += rendered(o, "fake", folder, [0, o.cuts] if o.cuts else [0])
    share.put("hour", rows, load, o.out)
    good = all([judged(row, int(o.minutes * 60)) for row in rows])
    print("hour: as it should be" if good else "hour: NOT as it should be")
    sys.exit(0 if good else 1)


main()
