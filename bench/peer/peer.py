#!/usr/bin/env python3
"""Our ops beside PyTorch's and ggml's: same shapes, same threads, by turns in one run, ratios of medians.

  PYTHON bench/peer/peer.py --ops build-bench/bin/bench_ops [--ggml FOLDER/peer_ggml] [--rounds 2] [--seconds 0.5]
                            [--only TEXT] [--table cpu:SET] [--out FILE.csv] [--ops-out FILE.csv]

PYTHON is one that has torch. Each round runs all rows of bench_ops, then PyTorch, then ggml; a cell of the table is the median
over the rounds, and the file is written after each. PyTorch gets its best memory format for convolutions, ggml the faster of its ways; it has no BF16 attention or
convolution, so F16 stands in there."""
import argparse
import csv
import os
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

TYPES = {"F32": torch.float32, "BF16": torch.bfloat16}


def rand(t, *shape):
    return (torch.rand(shape, dtype=torch.float32) * 2 - 1).to(t)


def rope(x, table):
    pair = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2)) * table
    return torch.view_as_real(pair).flatten(-2).to(x.dtype)


def linear(name, t, s):
    x, w, b = rand(t, s[0], s[2]), rand(t, s[1], s[2]), rand(t, s[1])
    if "gelu" in name or name == "t5 ffn":
        return [lambda: F.gelu(F.linear(x, w, b), approximate="tanh")]
    return [lambda: F.linear(x, w, b)]


def attention(name, t, s):
    q, k, v = (rand(t, s[0], n, s[2], s[4]).transpose(1, 2) for n in (s[1], s[3], s[3]))
    return [lambda: F.scaled_dot_product_attention(q, k, v).transpose(1, 2).contiguous()]


def conv(name, t, s):
    x, w, b = rand(t, 1, s[3], s[0] + s[5] - 1, s[1], s[2]), rand(t, s[4], s[3], s[5], s[6], s[7]), rand(t, s[4])
    pad = (0, s[6] // 2, s[7] // 2) if s[8] == 1 else (0, 0, 0)
    forms = []
    for form in (torch.contiguous_format, torch.channels_last_3d):
        xf, wf = x.to(memory_format=form), w.to(memory_format=form)
        if s[8] == 1:
            forms.append(lambda xf=xf, wf=wf: F.conv3d(xf, wf, b, padding=pad))
        else:
            forms.append(lambda xf=xf, wf=wf: F.conv3d(F.pad(xf, (0, 1, 0, 1)), wf, b, stride=(1, s[8], s[8])))
    return forms


def rows_of(name, t, s):
    """What PyTorch runs for a row: alternatives, of which the fastest counts; [] when it has nothing of the kind."""
    if name.startswith(("gemm", "dit q/k/v/o", "dit ffn", "dit time", "t5 ffn")):
        return linear(name, t, s)
    if name.startswith("attention") or name in ("dit self attention", "dit words", "dit picture", "dit voice", "vae middle"):
        return attention(name, t, s)
    if name.startswith("vae conv"):
        return conv(name, t, s)
    if name == "vae upsample":
        x = rand(t, s[0], s[3], s[1], s[2]).to(memory_format=torch.channels_last)
        return [lambda: F.interpolate(x, scale_factor=2.0, mode="nearest-exact")]
    if len(s) > 3 or name in ("colour match", "4:2:0", "copy channels first", "dit speaker map"):
        return []
    x, y = rand(t, s[0], s[1]), rand(t, s[0], s[1])
    scale, shift, gate = (rand(torch.float32, s[1]) for _ in range(3))
    if name == "norm + modulate":
        return [lambda: (F.layer_norm(x.float(), (s[1],), eps=1e-6) * (1 + scale) + shift).to(t)]
    if name == "gate + add + norm":
        def add_norm():
            z = (x.float() + y.float() * gate).to(t)
            return z, (F.layer_norm(z.float(), (s[1],), eps=1e-6) * (1 + scale) + shift).to(t)
        return [add_norm]
    if name == "gate + add":
        return [lambda: (x.float() + y.float() * gate).to(t)]
    if name == "gelu":
        return [lambda: F.gelu(x, approximate="tanh")]
    if name == "vae norm + silu":
        return [lambda: F.silu(F.normalize(x, dim=1) * (s[1] ** 0.5) * scale)]
    if name == "q k norm + rope":
        q, k = rand(t, s[0], s[1] * s[2]), rand(t, s[0], s[1] * s[2])
        gain = rand(t, s[1] * s[2])
        angle = torch.rand(s[0], 1, s[2] // 2) * 6.28
        table = torch.polar(torch.ones_like(angle), angle)
        def norm_rope():
            return [rope(F.rms_norm(z, (s[1] * s[2],), gain, 1e-6).view(s[0], s[1], s[2]), table) for z in (q, k)]
        return [norm_rope]
    return []


LONG = 1.0  # seconds: a call that takes longer is made once


def once(run):
    t = time.perf_counter()
    run()
    return time.perf_counter() - t


def time_of(run, seconds):
    """Median milliseconds, after one call to warm up."""
    first = once(run)
    if first > LONG:
        return first * 1e3
    times, start = [], time.perf_counter()
    while len(times) < 2 or time.perf_counter() - start < seconds:
        times.append(once(run))
    return statistics.median(times) * 1e3


def ours(o):
    command = [o.ops, "--seconds", str(o.seconds), "--threads", str(o.threads), "--table", o.table]
    command += ["--only", o.only] if o.only else []
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    body = list(csv.reader(line for line in text.splitlines() if line and not line.startswith("#")))[1:]
    return text, {tuple(r[:3]): float(r[4]) for r in body}


def theirs(rows, o, best):
    """`best` keeps which form of a row was the fastest when all were tried, in the first round."""
    found = {}
    for row in rows:
        with torch.inference_mode():
            forms = rows_of(row[0], TYPES[row[1]], [int(x) for x in row[2].split("x")])
            took = {i: time_of(f, o.seconds) for i, f in enumerate(forms) if i == best.get(row, i)}
            if took:
                best[row] = min(took, key=took.get)
                found[row] = took[best[row]]
                print(f"torch: {','.join(row)}: {', '.join(f'{ms:.1f} ms' for ms in took.values())}", file=sys.stderr)
    return found


def ggml(rows, o, best):
    """Likewise; `best` keeps ggml's way."""
    if not o.ggml:
        return {}
    text = "".join(",".join([*r, *best.get(r, [])]) + "\n" for r in rows if not o.ggml_rows or r in best)
    out = subprocess.run([o.ggml, str(o.threads), str(o.seconds)], input=text, check=True, capture_output=True, text=True).stdout
    found = list(csv.reader(out.splitlines()))
    best.update({tuple(r[:3]): [r[3]] for r in found})
    o.ggml_rows = True  # from now on only what it has
    return {tuple(r[:3]): float(r[4]) for r in found}


def report(o, head, runs):
    out = [*head, f"# peers: torch {torch.__version__}" + (", ggml of stable-diffusion-cpp-python 0.4.7" if o.ggml else "") +
           f"; {len(runs)} rounds, {o.threads} threads, load {os.getloadavg()[0]:.1f} at the end",
           "op,dtype,shape,ours_ms,torch_ms,ggml_ms,torch_over_ours,ggml_over_ours"]
    for row in runs[0][0]:
        cells = [statistics.median(r[k][row] for r in runs) if row in runs[0][k] else None for k in range(3)]
        out.append(",".join([*row, *(f"{c:.3f}" if c else "" for c in cells), *(f"{c / cells[0]:.2f}" if c else "" for c in cells[1:])]))
    text = "\n".join(out) + "\n"
    if o.out:
        with open(o.out, "w") as f:
            f.write(text)
    return text


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("--ops", required=True)
    a.add_argument("--ggml")
    a.add_argument("--rounds", type=int, default=2)
    a.add_argument("--seconds", type=float, default=0.5)
    a.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    a.add_argument("--table", default="cpu", help="of bench_ops")
    a.add_argument("--only")
    a.add_argument("--out")
    a.add_argument("--ops-out", help="what bench_ops printed in the first round")
    o = a.parse_args()
    o.ggml_rows = False
    torch.set_num_threads(o.threads)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # of the children: idle threads must not spin beside others
    runs, torch_best, ggml_best = [], {}, {}
    for i in range(o.rounds):
        start = time.perf_counter()
        text, us = ours(o)
        if i == 0 and o.ops_out:
            with open(o.ops_out, "w") as f:
                f.write(text)
        laps = [time.perf_counter()]
        them = theirs(us, o, torch_best)
        laps.append(time.perf_counter())
        runs.append((us, them, ggml(us, o, ggml_best)))
        text_all = report(o, [line for line in text.splitlines() if line.startswith("#")], runs)
        print(f"round {i + 1} of {o.rounds}: ours {laps[0] - start:.0f} s, torch {laps[1] - laps[0]:.0f} s, "
              f"ggml {time.perf_counter() - laps[1]:.0f} s", file=sys.stderr)
    print(text_all, end="")


main()
