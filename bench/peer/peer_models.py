#!/usr/bin/env python3
"""Whole networks beside PyTorch's best: same sizes, same dtype, same threads, by turns in one run, ratios of medians.

  PYTHON bench/peer/peer_models.py --models build-bench/bin/bench_models [--rounds 3] [--only TEXT] [--out FILE.csv]

PYTHON is one that has torch. The networks are written here in PyTorch's own fast operations: scaled_dot_product_attention
with fused projections, channels-last convolutions where they win, no autograd; each is also offered to torch.compile, and the
fastest way counts (found in the first round); only the VAE, whose nine frames take minutes, runs once on each side and is
not compiled. A DiT of one block is the block of the 14B network with patches, words, picture,
voice and head, over two latent frames of 480x832; conditions' keys and values are made before, as the step loop has them."""
import argparse
import csv
import os
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

BF16, F32 = torch.bfloat16, torch.float32


def rand(t, *shape, scale=1.0):
    return ((torch.rand(shape) * 2 - 1) * scale).to(t)


def linear(t, n_out, n_in):
    return rand(t, n_out, n_in, scale=(3 / n_in) ** 0.5), rand(t, n_out, scale=0.05)


def attention(q, k, v, **more):
    """[b, n, heads, width] each."""
    return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), **more).transpose(1, 2)


# ---- the DiT: one block of the 14B network, from latents to velocity

def dit():
    dim, heads, ffn, t, h, w, words, picture, voice = 5120, 40, 13824, 2, 60, 104, 512, 257, 32
    n = t * h * w // 4
    W = {name: linear(BF16, *shape) for name, shape in {
        "patch": (dim, 144), "q": (dim, dim), "k": (dim, dim), "v": (dim, dim), "o": (dim, dim), "cq": (dim, dim), "co": (dim, dim),
        "aq": (dim, dim), "ao": (dim, dim), "up": (ffn, dim), "down": (dim, ffn)}.items()}
    head_w, head_b = linear(F32, 64, dim)
    gain = {name: rand(BF16, dim) for name in ("q", "k", "cq", "n3w", "n3b", "nxw", "nxb")}
    mod, head_mod = rand(F32, 6, dim), rand(F32, 2, dim)
    angle = torch.rand(n, 1, dim // heads // 2) * 6.28
    cos, sin = angle.cos(), angle.sin()
    keys = {name: (rand(BF16, b, rows, heads, dim // heads), rand(BF16, b, rows, heads, dim // heads))
            for name, b, rows in (("words", 1, words), ("picture", 1, picture), ("voice", t, voice))}
    x, y = rand(F32, 16, t, h, w), rand(F32, 20, t, h, w)

    def norm(z, shift, scale):
        return (F.layer_norm(z.float(), (dim,), eps=1e-6) * (1 + scale) + shift).to(BF16)

    def rope(z):
        even, odd = z.view(n, heads, -1, 2).float().unbind(-1)
        return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2).to(BF16)

    def split(z, b=1):
        return z.view(b, n // b, heads, dim // heads)

    def run():
        p = torch.cat((x, y)).view(36, t, h // 2, 2, w // 2, 2).permute(1, 2, 4, 0, 3, 5).reshape(n, 144).to(BF16)
        z = F.linear(p, *W["patch"])
        u = norm(z, mod[0], mod[1])
        q, k, v = (F.linear(u, *W[name]) for name in "qkv")
        q, k = rope(F.rms_norm(q, (dim,), gain["q"], 1e-6)), rope(F.rms_norm(k, (dim,), gain["k"], 1e-6))
        u = attention(split(q), split(k), split(v)).reshape(n, dim)
        z = (z.float() + F.linear(u, *W["o"]).float() * mod[2]).to(BF16)
        q = split(F.rms_norm(F.linear(F.layer_norm(z, (dim,), gain["n3w"], gain["n3b"], 1e-6), *W["cq"]), (dim,), gain["cq"], 1e-6))
        u = (attention(q, *keys["words"]) + attention(q, *keys["picture"])).reshape(n, dim)
        z = z + F.linear(u, *W["co"])
        q = split(F.linear(F.layer_norm(z, (dim,), gain["nxw"], gain["nxb"], 1e-6), *W["aq"]), t)
        z = z + F.linear(attention(q, *keys["voice"]).reshape(n, dim), *W["ao"])
        u = F.linear(F.gelu(F.linear(norm(z, mod[3], mod[4]), *W["up"]), approximate="tanh"), *W["down"])
        z = (z.float() + u.float() * mod[5]).to(BF16)
        out = F.linear(F.layer_norm(z.float(), (dim,), eps=1e-6) * (1 + head_mod[1]) + head_mod[0], head_w, head_b)
        return out.view(t, h // 2, w // 2, 2, 2, 16).permute(5, 0, 1, 3, 2, 4).reshape(16, t, h, w)

    return {"eager": run, "compiled": torch.compile(run)}


# ---- the VAE's decoder, slice by slice with the history of every causal convolution, as the published program runs it

class Decoder:
    def __init__(self, form):
        self.form, width = form, [384, 384, 192, 96]
        conv = lambda co, ci, *k: (rand(F32, co, ci, *k, scale=1.5 * (3 / (ci * 27)) ** 0.5).to(
            memory_format=form if len(k) == 3 else self.flat()), rand(F32, co, scale=0.05))
        def res(ci, co):
            return ("res", torch.ones(ci, 1, 1, 1), conv(co, ci, 3, 3, 3), torch.ones(co, 1, 1, 1), conv(co, co, 3, 3, 3),
                    conv(co, ci, 1, 1, 1) if ci != co else None)
        self.layers, c = [("conv", conv(384, 16, 3, 3, 3)), res(384, 384),
                          ("attn", torch.ones(384, 1, 1), conv(1152, 384, 1, 1), conv(384, 384, 1, 1)), res(384, 384)], 384
        for stage, co in enumerate(width):
            for _ in range(3):
                self.layers.append(res(c, co))
                c = co
            if stage < 3:
                self.layers.append(("up", conv(2 * c, c, 3, 1, 1) if stage < 2 else None, conv(c // 2, c, 3, 3)))
                c //= 2
        self.layers += [("head", torch.ones(96, 1, 1, 1), conv(3, 96, 3, 3, 3))]

    def flat(self):
        return torch.contiguous_format if self.form == torch.contiguous_format else torch.channels_last

    def causal(self, i, x, w, b, pad=1):
        before = self.history.get(i)
        if before is None:
            before = x.new_zeros(x.shape[0], x.shape[1], 2, *x.shape[3:])
        x = torch.cat((before, x), 2).contiguous(memory_format=self.form)
        self.history[i] = x[:, :, -2:].clone(memory_format=torch.preserve_format)
        return F.conv3d(x, w, b, padding=(0, pad, pad))

    @staticmethod
    def norm(x, gain):
        return F.normalize(x, dim=1) * (x.shape[1] ** 0.5) * gain

    def layer(self, i, x):
        kind, *p = self.layers[i]
        if kind == "conv":
            return self.causal(i, x, *p[0])
        if kind == "head":
            return self.causal(i, F.silu(self.norm(x, p[0])), *p[1])
        if kind == "res":
            y = self.causal((i, 0), F.silu(self.norm(x, p[0])), *p[1])
            y = self.causal((i, 1), F.silu(self.norm(y, p[2])), *p[3])
            return y + (x if p[4] is None else F.conv3d(x, *p[4]))
        b, c, t, h, w = x.shape
        flat = x.transpose(1, 2).reshape(t, c, h, w)
        if kind == "attn":
            q, k, v = F.conv2d(self.norm(flat, p[0]), *p[1]).flatten(2).transpose(1, 2)[:, None].chunk(3, -1)
            y = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(t, c, h, w)
            return x + F.conv2d(y, *p[2]).view(b, t, c, h, w).transpose(1, 2)
        if p[0] is not None and self.chunk > 0:
            y = self.causal(i, x, *p[0], pad=0)
            flat = y.view(b, 2, c, t, h, w).permute(0, 3, 1, 2, 4, 5).reshape(2 * t, c, h, w)
        flat = F.interpolate(flat.contiguous(memory_format=self.flat()), scale_factor=2.0, mode="nearest-exact")
        y = F.conv2d(flat, *p[1], padding=1)
        return y.view(b, -1, *y.shape[1:]).transpose(1, 2)

    def decode(self, z):
        self.history, frames = {}, []
        for self.chunk in range(z.shape[2]):
            x = z[:, :, self.chunk:self.chunk + 1]
            for i in range(len(self.layers)):
                x = self.layer(i, x)
            frames.append(x)
        return torch.cat(frames, 2)


def vae():
    """The memory format is chosen on one frame of a quarter of the size."""
    z, best = rand(F32, 1, 16, 3, 60, 104), None
    for name, form in (("channels last", torch.channels_last_3d), ("contiguous", torch.contiguous_format)):
        d = Decoder(form)
        d.decode(z[:, :, :1, :15, :26])
        start = time.perf_counter()
        d.decode(z[:, :, :1, :30, :52])
        took = time.perf_counter() - start
        print(f"vae decode: {name} {took * 1e3:.0f} ms for that frame", file=sys.stderr)
        if best is None or took < best[0]:
            best = took, name, d
    return {best[1]: lambda: best[2].decode(z)}


# ---- wav2vec2-base

def voice():
    dim, ffn, heads, frames = 768, 3072, 12, 250
    kernels, strides = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
    convs = [rand(F32, 512, 512 if i else 1, k, scale=1.5 * (3 / (512 * k)) ** 0.5) for i, k in enumerate(kernels)]
    project, pos_w, pos_b = linear(F32, dim, 512), rand(F32, dim, dim // 16, 128, scale=0.03), rand(F32, dim)
    one, zero, one0, zero0 = torch.ones(dim), torch.zeros(dim), torch.ones(512), torch.zeros(512)
    layers = [{"qkv": linear(F32, 3 * dim, dim), "o": linear(F32, dim, dim), "up": linear(F32, ffn, dim), "down": linear(F32, dim, ffn)}
              for _ in range(12)]
    sound = torch.sin(torch.arange(frames * 640) * 0.05) * 0.3

    def run():
        x = F.layer_norm(sound, sound.shape)[None, None]
        for i, (w, s) in enumerate(zip(convs, strides)):
            x = F.conv1d(x, w, stride=s)
            x = F.gelu(F.group_norm(x, 512, one0, zero0) if i == 0 else x)
        x = F.interpolate(x, size=frames, mode="linear", align_corners=True).transpose(1, 2)
        x = F.linear(F.layer_norm(x, (512,), one0, zero0), *project)
        x = x + F.gelu(F.conv1d(x.transpose(1, 2), pos_w, pos_b, padding=64, groups=16)[:, :, :-1]).transpose(1, 2)
        x, out = F.layer_norm(x, (dim,), one, zero), []
        for y in layers:
            q, k, v = (z.view(1, frames, heads, dim // heads) for z in F.linear(x, *y["qkv"]).chunk(3, -1))
            x = F.layer_norm(x + F.linear(attention(q, k, v).reshape(1, frames, dim), *y["o"]), (dim,), one, zero)
            x = F.layer_norm(x + F.linear(F.gelu(F.linear(x, *y["up"])), *y["down"]), (dim,), one, zero)
            out.append(x)
        return torch.stack(out, 2)

    return {"eager": run, "compiled": torch.compile(run)}


# ---- one layer of umT5-xxl

def text():
    n, dim, heads, ffn = 512, 4096, 64, 10240
    table, near, ids = rand(BF16, 1024, dim), rand(BF16, 32, heads), torch.arange(n) * 7 % 1000
    qkv, o = linear(BF16, 3 * dim, dim)[0], linear(BF16, dim, dim)[0]
    gate, up, down = linear(BF16, ffn, dim)[0], linear(BF16, ffn, dim)[0], linear(BF16, dim, ffn)[0]
    g1, g2, g3 = (rand(BF16, dim) for _ in range(3))
    buckets = (torch.arange(n)[None] - torch.arange(n)[:, None]).clamp(-15, 15) + 16

    def run():
        x = F.embedding(ids, table)
        bias = F.embedding(buckets, near).permute(2, 0, 1)[None].contiguous()
        q, k, v = (z.view(1, n, heads, dim // heads) for z in F.linear(F.rms_norm(x, (dim,), g1, 1e-6), qkv).chunk(3, -1))
        x = x + F.linear(attention(q, k, v, attn_mask=bias, scale=1.0).reshape(n, dim), o)
        u = F.rms_norm(x, (dim,), g2, 1e-6)
        x = x + F.linear(F.gelu(F.linear(u, gate), approximate="tanh") * F.linear(u, up), down)
        return F.rms_norm(x, (dim,), g3, 1e-6).float()

    return {"eager": run, "compiled": torch.compile(run)}


PEERS = {"dit of one block": dit, "vae decode": vae, "wav2vec2-base": voice, "umt5 of one layer": text}


def time_of(run, seconds):
    """Median milliseconds, after one call that the caller has made."""
    times, start = [], time.perf_counter()
    while not times or time.perf_counter() - start < seconds:
        t = time.perf_counter()
        run()
        times.append(time.perf_counter() - t)
    return statistics.median(times) * 1e3


def fastest(name, ways, seconds):
    """(way, function); one way that fails is said and left out."""
    if len(ways) == 1:
        return next(iter(ways.items()))
    took = {}
    for way, run in ways.items():
        try:
            run()
            run()
            took[way] = time_of(run, min(seconds, 1))
        except Exception as e:  # what a compiler on a stranger's machine may raise is open
            print(f"{name}: {way} does not run here: {str(e).splitlines()[0]}", file=sys.stderr)
    way = min(took, key=took.get)
    print(f"{name}: " + ", ".join(f"{w} {ms:.0f} ms" for w, ms in took.items()), file=sys.stderr)
    return way, ways[way]


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("--models", required=True)
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--seconds", type=float, default=2)
    a.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    a.add_argument("--only", default="")
    a.add_argument("--out")
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # of the child: its idle threads must not spin beside ours
    out = [f"# models: torch {torch.__version__}, {o.rounds} rounds, {o.threads} threads, load {os.getloadavg()[0]:.1f} before",
           "model,dtype,shape,ours_ms,torch_ms,torch_way,torch_over_ours"]
    for name in (n for n in PEERS if o.only in n):
        us, them, way, run = [], [], None, None
        for _ in range(1 if name == "vae decode" else o.rounds):  # nine frames take minutes, on both sides
            text_out = subprocess.run([o.models, "--only", name, "--seconds", str(o.seconds), "--threads", str(o.threads)], check=True,
                                      capture_output=True, text=True).stdout
            row = list(csv.reader(text_out.splitlines()))[1]
            us.append(float(row[4]))
            with torch.inference_mode():
                if run is None:
                    way, run = fastest(name, PEERS[name](), o.seconds)
                elif name != "vae decode":
                    run()
                them.append(time_of(run, o.seconds))
        run = None
        ours, torchs = statistics.median(us), statistics.median(them)
        out.append(f"{row[0]},{row[1]},{row[2]},{ours:.1f},{torchs:.1f},{way},{torchs / ours:.2f}")
        print(out[-1], file=sys.stderr)
    text_all = "\n".join(out) + "\n"
    print(text_all, end="")
    if o.out:
        with open(o.out, "w") as f:
            f.write(text_all)


main()
