#!/usr/bin/env python3
"""Peak memory of a long render beside a short one, and their speed; or of one forward of a deep network,
by one rank or by several that share its weights.

  bench/memory.py [--bin build/bin] [--short 30] [--long 600] [--out bench/results/memory.csv]
  bench/memory.py --forward [--layers 8] [--size 256x256] [--bin build-bench/bin] [--out bench/results/memory-forward.csv]
  bench/memory.py --ranks 1,2,4 [--layers 8] [--size 64x64] [--bin build-bench/bin] [--out bench/results/memory-ranks.csv]

Renders the bundled voice, repeated, with the tiny model, and reads the peak resident size (VmHWM) of the coordinator, of
its worker and of the media children. Prints one CSV row a length: what matters is that the rows do not differ.

With --forward: writes the published model with fewer layers in BF16 to a temporary folder (24 GB for 8 layers, most of it removed
again before the run), and holds what one forward takes against what the dry run foretold. They may differ by 5 %.

With --ranks: the same network with its blocks spread over so many ranks (mpirun). Each may hold what stands outside the blocks, its
share of the blocks and two whole blocks: within 1 % by its arenas; within 5 %, with what the forward takes, by the pages that no file
holds, as it grew by and at the most that was seen of it from outside."""
import argparse
import csv
import io
import os
import platform
import subprocess
import sys
import tempfile
import time

from share import HERE, commit, run


def peak(pid):
    """(program, VmHWM in KiB) of a living process, else None."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            words = f.read().split(b"\0")
        with open(f"/proc/{pid}/status") as f:
            rows = dict(line.split(":", 1) for line in f if ":" in line)
        name = "media" if b"__media" in words else "worker" if b"worker" in words[0] else "coordinator"
        return name, int(rows["VmHWM"].split()[0])
    except (OSError, KeyError, IndexError, ValueError):
        return None


def family(pid):
    found = [pid]
    for p in found:
        try:
            for t in os.listdir(f"/proc/{p}/task"):
                with open(f"/proc/{p}/task/{t}/children") as f:
                    found += [int(x) for x in f.read().split()]
        except OSError:
            pass
    return found


def render(bin_dir, model, seconds, folder, more=()):
    voice = os.path.join(folder, f"voice{seconds}.wav")
    run("ffmpeg", "-v", "error", "-y", "-stream_loop", "-1", "-i", f"{HERE}/deploy/media/voice.wav", "-t", str(seconds), voice)
    begun = time.monotonic()
    p = subprocess.Popen([f"{bin_dir}/longtake", "render", "--model", model, "--image", f"{HERE}/deploy/media/portrait.png",
                          "--audio", voice, "--overwrite", "-o", f"{folder}/out{seconds}.mp4", *more], stderr=subprocess.PIPE)
    peaks = {}
    os.set_blocking(p.stderr.fileno(), False)
    while p.poll() is None:
        p.stderr.read()
        for pid in family(p.pid):
            seen = peak(pid)
            if seen:
                peaks[seen[0]] = max(peaks.get(seen[0], 0), seen[1])
        time.sleep(0.05)
    if p.returncode != 0:
        sys.exit(f"render of {seconds} s ended with {p.returncode}")
    frames = subprocess.run(["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=nb_frames", "-of",
                             "csv=p=0", f"{folder}/out{seconds}.mp4"], check=True, capture_output=True, text=True)
    return {"seconds": seconds, "frames": int(frames.stdout.strip().strip(",")), "wall_s": round(time.monotonic() - begun, 2),
            "coordinator_kib": peaks.get("coordinator", 0), "worker_kib": peaks.get("worker", 0),
            "media_kib": peaks.get("media", 0)}


def deep(o, folder):
    model = os.path.join(folder, "model")
    run(f"{o.bin}/longtake", "weights", "synth", "--like", "14b", "--layers", str(o.layers), "--dtype", "bf16", "-o", model)
    for name in os.listdir(model):  # the encoders take no part, and their pages may be wanted
        if name.endswith(".pth"):
            os.remove(os.path.join(model, name))
    return model


def told(o, text):
    if o.out:
        with open(o.out, "w") as f:
            f.write(text)
    print(text, end="")


def title(o):
    return f"# commit {commit()}, {platform.machine()}, {os.cpu_count()} cores: {o.layers} layers of 14B width, BF16, 81 frames of {o.size}\n"


def forward(o):
    with tempfile.TemporaryDirectory() as folder:
        out = subprocess.run([f"{o.bin}/bench_forward", "--model", deep(o, folder), "--size", o.size, "--dtype", "bf16"], check=True,
                             capture_output=True, text=True).stdout
    told(o, title(o) + out)
    taken = float(out.rsplit(":", 1)[1])
    sys.exit(0 if abs(taken - 1) <= 0.05 else 1)


def unfiled(pid):
    """(rank, bytes that no file holds) of a living rank, else None."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as f:
            words = dict(word.split(b"=", 1) for word in f.read().split(b"\0") if b"=" in word)
        with open(f"/proc/{pid}/status") as f:
            rows = dict(line.split(":", 1) for line in f if ":" in line)
        return int(words.get(b"OMPI_COMM_WORLD_RANK", 0)), sum(int(rows[k].split()[0]) << 10 for k in ("RssAnon", "RssShmem"))
    except (OSError, KeyError, IndexError, ValueError):
        return None


def together(o, model, n):
    launch = ["mpirun", "--bind-to", "none", "--oversubscribe", "-n", str(n)] if n > 1 else []
    p = subprocess.Popen([*launch, f"{o.bin}/bench_forward", "--model", model, "--size", o.size, "--dtype", "bf16", "--threads",
                          str(max(1, os.cpu_count() // n)), "--shared", "mpi" if n > 1 else "self"], stdout=subprocess.PIPE, text=True)
    peaks = {}
    while p.poll() is None:
        for pid in family(p.pid):
            if n == 1 or pid != p.pid:
                rank, held = unfiled(pid) or (0, 0)
                peaks[rank] = max(peaks.get(rank, 0), held)
        time.sleep(0.05)
    if p.returncode != 0:
        sys.exit(f"{n} ranks ended with {p.returncode}")
    rows = list(csv.DictReader(p.stdout))
    for row in rows:
        row["peak_bytes"] = peaks[int(row["rank"])]
        row["weights_over_due"] = round(int(row["weights_bytes"]) / int(row["due_bytes"]), 4)
        for k in ("taken", "peak"):
            row[f"{k}_over_due"] = round(int(row[f"{k}_bytes"]) / (int(row["due_bytes"]) + int(row["forward_bytes"])), 4)
    return rows


def ranks(o):
    with tempfile.TemporaryDirectory() as folder:
        model = o.model or deep(o, folder)
        rows = [row for n in o.ranks.split(",") for row in together(o, model, int(n))]
    text = io.StringIO()
    w = csv.DictWriter(text, rows[0], lineterminator="\n")
    w.writeheader()
    w.writerows(rows)
    told(o, title(o) + text.getvalue())
    bad = [r for r in rows if abs(r["weights_over_due"] - 1) > 0.01 or max(abs(r[f"{k}_over_due"] - 1) for k in ("taken", "peak")) > 0.05]
    sys.exit(1 if bad else 0)


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("--forward", action="store_true")
    a.add_argument("--layers", type=int, default=8)
    a.add_argument("--ranks", help="how many, with commas: 1,2,4")
    a.add_argument("--model", help="of --ranks: one that was made before, with as many layers")
    a.add_argument("--size")
    a.add_argument("--bin")
    a.add_argument("--short", type=int, default=30)
    a.add_argument("--long", type=int, default=600)
    a.add_argument("--out")
    o = a.parse_args()
    o.bin = o.bin or f"{HERE}/{'build-bench' if o.forward or o.ranks else 'build'}/bin"
    o.size = o.size or ("64x64" if o.ranks else "256x256")
    if o.forward:
        forward(o)
    if o.ranks:
        ranks(o)
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model")
        run(f"{o.bin}/longtake", "weights", "synth", "--seed", "1", "-o", model)
        rows = [render(o.bin, model, s, folder) for s in (o.short, o.long)]
    for row in rows:
        row.update(cores=os.cpu_count(), machine=platform.machine(), commit=commit())
    files = [sys.stdout] + ([open(o.out, "w", newline="")] if o.out else [])
    for f in files:
        w = csv.DictWriter(f, rows[0])
        w.writeheader()
        w.writerows(rows)
    grown = {k: rows[1][k] / rows[0][k] - 1 for k in ("coordinator_kib", "worker_kib")}
    print(f"growth: coordinator {grown['coordinator_kib']:+.1%}, worker {grown['worker_kib']:+.1%}")
    sys.exit(0 if max(grown.values()) <= 0.05 else 1)


if __name__ == "__main__":
    main()
