"""Trains the transformer: `train_dit.py MINUTES`.

Velocity noise - data at t = 3u / (1 + 2u); context latents stay as given and carry no loss; cells of mouths weigh 4, of eyes
3; one voice in ten is silence without features, for guidance. Half of the contexts that go on are spoilt ones, and more
noise and shifted channels come on top here, always another one. Rate constant for 40 % of the time, then falling to 0.
"""
import glob
import math
import os
import sys
import time

import numpy as np
import torch
import torch.nn as nn

import run
from config import CONTEXT_LATENTS, LATENTS, state_path
from dit import dit_new
from make_clips import Y_LATENTS, version
from muon import Muon

BATCH, SHIFT, CHECK = 16, 3.0, 64
MUON_RATE, ADAM_RATE = 0.02, 1e-3


class Data:
    def __init__(self):
        want, parts = version(), []
        self.base = run.load("cache/base.pt")
        for path in sorted(glob.glob(state_path("cache", "clips*.pt"))):
            p = torch.load(path, weights_only=False)
            if p["version"] == want:
                parts.append(p)
        if not parts or self.base["version"] != want:
            raise SystemExit("no clips of these weights; run make_clips.py first")
        for name in ("z", "y", "c", "unit", "start", "going", "boxes"):
            setattr(self, name, torch.cat([p[name] for p in parts]))
        n = len(self.z)
        self.weight = torch.ones(n, 1, 1, 12, 12)
        for i, (mouth, eyes) in enumerate(self.boxes.tolist()):
            for (x0, x1, y0, y1), v in ((eyes, 3.0), (mouth, 4.0)):
                self.weight[i, :, :, y0 // 8:(y1 - 1) // 8 + 1, x0 // 8:(x1 - 1) // 8 + 1] = v
        self.eight = 4 * torch.arange(1, LATENTS)[:, None] - 3 + torch.arange(8)  # into start-2 .. start+34

    def batch(self, ids, gen, silent, spoil):
        """x, y, t, first, later, velocity, weight, whether to count [B, 1, T, 1, 1]."""
        b = len(ids)
        z = self.z[ids].float().permute(0, 4, 1, 2, 3)
        rows = self.base["features"][self.unit[ids][:, None], (self.start[ids][:, None] + torch.arange(-2, 35)).clamp(0, 127)].float()
        rows = rows * (torch.rand(b, 1, 1, generator=gen) >= silent).float()
        first, later = rows[:, :5].flatten(1), rows[:, self.eight].flatten(2)
        y = torch.cat([self.y[ids], self.base["grey"][Y_LATENTS:][None].expand(b, -1, -1, -1, -1)], 1).float().permute(0, 4, 1, 2, 3)
        mask = torch.zeros(b, 4, *y.shape[2:])
        mask[:, :, 0] = 1
        noise = torch.randn(z.shape, generator=gen)
        u = torch.rand(b, generator=gen)
        t = SHIFT * u / (1 + (SHIFT - 1) * u)
        tt = t.view(-1, 1, 1, 1, 1)
        going = self.going[ids].view(-1, 1, 1, 1, 1)
        free = torch.ones(b, 1, LATENTS, 1, 1, dtype=torch.bool)
        free[:, :, 0] = False
        free[:, :, 1:CONTEXT_LATENTS] = ~going
        kept = z.clone()
        if spoil:
            dirty = (torch.rand(b, 1, 1, 1, 1, generator=gen) < 0.55) & going
            kept[:, :, :CONTEXT_LATENTS] = torch.where(dirty, self.c[ids].float().permute(0, 4, 1, 2, 3), kept[:, :, :CONTEXT_LATENTS])
            some = lambda p: (torch.rand(b, 1, 1, 1, 1, generator=gen) < p) & going
            size = torch.rand(b, 1, 1, 1, 1, generator=gen)
            kept = kept + torch.where(some(0.5), 0.25 * size, 0.0) * torch.randn(kept.shape, generator=gen)
            kept = kept + torch.where(some(0.3), 0.2, 0.0) * torch.randn(b, 16, 1, 1, 1, generator=gen)
        x = torch.where(free, (1 - tt) * z + tt * noise, kept)
        return x, torch.cat([mask, y], 1), t * 1000, first, later, noise - z, free * self.weight[ids], tt


def optimisers(net):
    p = net.audio_proj
    muon = [q for n, q in net.blocks.named_parameters() if q.dim() == 2] + [m.weight for m in (p.proj1, p.proj1_vf, p.proj2, p.proj3)]
    ids = set(map(id, muon))
    rest = [q for q in net.parameters() if id(q) not in ids]
    return torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0), Muon(muon, lr=0.0, decay=0.01)


def error(net, data, ids, gen, silent=0.1, spoil=True):
    x, y, t, first, later, v, w, tt = data.batch(ids, gen, silent, spoil)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        o = net(x, y, t, first, later)
    e = (o - v) ** 2
    return (e * w).sum() / (w.sum() * 16), e, w, tt


@torch.no_grad()
def measure(net, data):
    """Loss on unseen clips; error of the clean latents in mouths, with the voice and without it; with spoilt contexts."""
    losses, spoilt, mouths = [], [], {0.0: [], 1.1: []}
    for silent in mouths:
        gen = torch.Generator().manual_seed(5)
        for k in range(0, CHECK, BATCH):
            loss, e, w, tt = error(net, data, torch.arange(k, k + BATCH), gen, silent, False)
            m = (w > 3.5).float()
            mouths[silent].append(float((e * m * tt ** 2).sum() / (m.sum() * 16)))
            if silent == 0.0:
                losses.append(float(loss))
    gen = torch.Generator().manual_seed(6)
    for k in range(0, CHECK, BATCH):
        spoilt.append(float(error(net, data, torch.arange(k, k + BATCH), gen, 0.0, True)[0]))
    return np.mean(losses), np.mean(mouths[0.0]), np.mean(mouths[1.1]), np.mean(spoilt)


def main(minutes):
    torch.manual_seed(4)
    data, net = Data(), dit_new()
    opts, slow = optimisers(net), run.Slow(net, 0.998)
    state, step, used = run.load("dit.pt"), 0, 0.0
    if state:
        net.load_state_dict(state["now"])
        slow.resume(state["slow"])
        for o, s in zip(opts, state["opts"] or []):
            o.load_state_dict(s)
        step, used = state["step"], state["used"]
    curve = run.Curve("dit", ["loss", "check", "mouth", "mouth_without_voice", "check_spoilt"], step)
    clock, gen, losses = run.Clock(used), torch.Generator().manual_seed(1000 + step), []
    kept = measured = time.monotonic()
    print("dit", sum(p.numel() for p in net.parameters()), "parameters", len(data.z), "clips", flush=True)

    def report():
        with run.swapped(net, slow):
            m = measure(net, data)
        curve.add(step, clock.used, np.mean(losses) if losses else None, *m)
        print("dit %d %.0fs loss %.4f check %.4f mouth %.4f without voice %.4f spoilt %.4f" % (
            step, clock.used, np.mean(losses or [0]), *m), flush=True)
        losses.clear()

    def keep():
        run.save("dit.pt", now=net.state_dict(), slow=slow.state(), opts=[o.state_dict() for o in opts], step=step, used=clock.used)

    while clock.tick() < minutes * 60:
        part = clock.used / (minutes * 60)
        scale = min(1.0, (step + 1) / 50) * (1 if part < 0.4 else max(0.01, 1 - (part - 0.4) / 0.6))
        for o, rate in zip(opts, (ADAM_RATE, MUON_RATE)):
            for g in o.param_groups:
                g["lr"] = rate * scale
        ids = torch.randint(CHECK, len(data.z), (BATCH,), generator=gen)
        loss = error(net, data, ids, gen)[0]
        net.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for o in opts:
            o.step()
        slow.update(net)
        losses.append(float(loss.detach()))
        step += 1
        if time.monotonic() - measured > 150:
            report()
            measured = time.monotonic()
        if time.monotonic() - kept > 90:
            keep()
            kept = time.monotonic()
    report()
    keep()


if __name__ == "__main__":
    main(float(sys.argv[1]))
