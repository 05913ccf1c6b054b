#!/usr/bin/env python3
"""Our ops beside PyTorch's and ggml's: same shapes, same threads, by turns in one run, ratios of medians.

  PYTHON bench/peer/peer.py --ops build-bench/bin/bench_ops [--ggml FOLDER/peer_ggml] [--rounds 3] [--seconds 1]
                            [--only TEXT] [--out bench/results/peer.csv]

PYTHON is one that has torch. Each round runs all rows of bench_ops, then PyTorch, then ggml; a cell of the table is the median
over the rounds. PyTorch gets its best memory format for convolutions; ggml has no BF16 attention or convolution, so F16
stands in there."""
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


def time_of(run, seconds):
    run()
    times, start = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - start < seconds:
        t = time.perf_counter()
        run()
        times.append(time.perf_counter() - t)
    return statistics.median(times) * 1e3


def ours(o):
    command = [o.ops, "--seconds", str(o.seconds), "--threads", str(o.threads)] + (["--only", o.only] if o.only else [])
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    head = [line for line in out if line.startswith("#")]
    body = list(csv.reader(line for line in out if line and not line.startswith("#")))[1:]
    return head, {tuple(r[:3]): float(r[4]) for r in body}


def theirs(rows, o):
    found = {}
    for name, dtype, shape in rows:
        with torch.inference_mode():
            forms = rows_of(name, TYPES[dtype], [int(x) for x in shape.split("x")])
            if forms:
                found[name, dtype, shape] = min(time_of(f, o.seconds) for f in forms)
    return found


def ggml(rows, o):
    if not o.ggml:
        return {}
    text = "".join(",".join(r) + "\n" for r in rows)
    out = subprocess.run([o.ggml, str(o.threads), str(o.seconds)], input=text, check=True, capture_output=True, text=True).stdout
    return {tuple(r[:3]): float(r[4]) for r in csv.reader(out.splitlines())}


# One block of the 14B network over 3,120 tokens: how often each row occurs in it.
BLOCK = {"dit q/k/v/o": 8, "dit ffn in + gelu": 1, "dit ffn out": 1, "dit self attention": 1, "dit words": 1, "dit picture": 1,
         "q k norm + rope": 1, "norm + modulate": 1, "gate + add + norm": 2}


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("--ops", required=True)
    a.add_argument("--ggml")
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--seconds", type=float, default=1)
    a.add_argument("--threads", type=int, default=os.cpu_count())
    a.add_argument("--only")
    a.add_argument("--out")
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    runs = []
    for i in range(o.rounds):
        head, us = ours(o)
        runs.append((us, theirs(us, o), ggml(us, o)))
        print(f"round {i + 1} of {o.rounds} done", file=sys.stderr)
    out = [*head, f"# peers: torch {torch.__version__}" + (", ggml of stable-diffusion-cpp-python 0.4.7" if o.ggml else "") +
           f"; {o.rounds} rounds, {o.threads} threads, load {os.getloadavg()[0]:.1f} at the end",
           "op,dtype,shape,ours_ms,torch_ms,ggml_ms,torch_over_ours,ggml_over_ours"]
    block = {"F32": [0, 0], "BF16": [0, 0]}
    for row in runs[0][0]:
        cells = [statistics.median(r[k][row] for r in runs) if row in runs[0][k] else None for k in range(3)]
        if row[0] in BLOCK and row[1] == "BF16" and cells[1]:
            block["BF16"] = [block["BF16"][k] + BLOCK[row[0]] * cells[k] for k in range(2)]
        out.append(",".join([*row, *(f"{c:.3f}" if c else "" for c in cells), *(f"{c / cells[0]:.2f}" if c else "" for c in cells[1:])]))
    if block["BF16"][0]:
        out.append(f"# the rows of a DiT block, each as often as it occurs ({sum(BLOCK.values())} calls): ours {block['BF16'][0]:.0f} ms, "
                   f"torch {block['BF16'][1]:.0f} ms, torch over ours {block['BF16'][1] / block['BF16'][0]:.2f}")
    text = "\n".join(out) + "\n"
    print(text, end="")
    if o.out:
        with open(o.out, "w") as f:
            f.write(text)


main()
