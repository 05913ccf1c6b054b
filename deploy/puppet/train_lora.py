"""Trains the few-step LoRA: `train_lora.py MINUTES`.

The student takes one step without voice guidance where the trained transformer takes SUBSTEPS with guidance 2: three steps
of one evaluation each in place of four of two. Both begin at the same noisy latents at a time of the three-step grid; the
student's velocity is held to the teacher's mean velocity over the way to the next time. The last step of the grid is
nearly empty, so two ways are learnt.

Low-rank parts sit on the body's own matrices (attention and feed-forward), which one and two speakers share. The last
matrix of each pair begins at zero: the untrained LoRA changes nothing.
"""
import sys

import numpy as np
import torch
import torch.nn as nn
from torch.nn.utils import parametrize

import run
from check import times
from dit import dit_new
from make_clips import net_of
from train_dit import CHECK, PAIR_BATCH, PAIR_CHECK, Data

STEPS, GUIDE, SUBSTEPS, RANK, BATCH, RATE = 3, 2.0, 3, 16, 8, 2e-3
PARTS = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "ffn.0", "ffn.2")


class Low(nn.Module):
    """weight + up down, rank RANK."""

    def __init__(self, rows, columns):
        super().__init__()
        self.down = nn.Parameter(torch.randn(RANK, columns) * columns ** -0.5)
        self.up = nn.Parameter(torch.zeros(rows, RANK))

    def forward(self, weight):
        return weight + self.up @ self.down


def low_ranks(net):
    """Puts the parts into the network; name of the matrix -> Low."""
    found = {}
    for name, m in net.named_modules():
        if isinstance(m, nn.Linear) and name.startswith("blocks.") and name.endswith(PARTS):
            found[name] = Low(*m.weight.shape)
    for name, low in found.items():
        parametrize.register_parametrization(net.get_submodule(name), "weight", low)
    return found


def mark(net):
    """Changes with the transformer that a LoRA was made for."""
    return "%.8g" % sum(p.double().abs().sum() for p in net.parameters())


class Way:
    """Data, and the velocity of a network over them."""

    def __init__(self, data, ids, gen):
        x, self.y, _, self.first, self.later, _, self.weight, _ = data.batch(ids, gen, 0.0, True)
        self.two = self.first.shape[1] == 2
        self.regions = data.tokens(ids) if self.two else None
        self.clean, self.kept = data.z[ids].float().permute(0, 4, 1, 2, 3), x
        self.free = self.weight > 0
        self.gen = gen

    def noisy(self, t):
        noise = torch.randn(self.clean.shape, generator=self.gen)
        return torch.where(self.free, (1 - t) * self.clean + t * noise, self.kept)

    def velocity(self, net, x, t, heard):
        first, later = (v if self.two else v[:, 0] for v in (self.first * heard, self.later * heard))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return net(x, self.y, torch.full((len(x),), 1000 * t), first, later, self.regions)

    @torch.no_grad()
    def taught(self, net, x, t, end):
        """Mean velocity of the teacher from t to end."""
        z = x
        for a, b in zip(np.linspace(t, end, SUBSTEPS + 1)[:-1], np.linspace(t, end, SUBSTEPS + 1)[1:]):
            silent = self.velocity(net, z, float(a), 0)
            v = silent + GUIDE * (self.velocity(net, z, float(a), 1) - silent)
            z = torch.where(self.free, z - v * float(a - b), z)
        return (x - z) / (t - end)


def error(teacher, student, way, k):
    grid = times(STEPS)
    t, end = float(grid[k]), float(grid[k + 1])
    x = way.noisy(t)
    e = (way.velocity(student, x, t, 1) - way.taught(teacher, x, t, end)) ** 2
    return (e * way.weight).sum() / (way.weight.sum() * 16)


@torch.no_grad()
def measure(teacher, student, data):
    """On unseen clips: error of both ways."""
    gen = torch.Generator().manual_seed(5)
    return [float(np.mean([error(teacher, student, Way(data, torch.arange(i, i + BATCH), gen), k)
                           for i in range(0, CHECK // 2, BATCH)])) for k in (0, 1)]


def main(minutes):
    torch.manual_seed(6)
    data, pairs, dit = Data("clips"), Data("pairs"), run.load("dit.pt")
    if not data.n or not dit:
        raise SystemExit("no transformer of these clips; run train_dit.py first")
    teacher, student = net_of(dit, dit_new()), net_of(dit, dit_new())
    whose = mark(teacher)
    low = nn.ModuleDict({n.replace(".", "-"): m for n, m in low_ranks(student).items()})
    low.requires_grad_(True)
    opt = torch.optim.AdamW(low.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)
    state = run.load("lora.pt") or dict(step=0, used=0.0, whose=whose)
    if "now" in state:
        low.load_state_dict(state["now"])
    slow = run.Slow(low, 0.98)
    if state["whose"] != whose:  # an adapter of an earlier teacher is a start
        state = dict(step=0, used=0.0)
    elif "now" in state:
        slow.resume(state["slow"])
        opt.load_state_dict(state["opt"])
    step = state["step"]
    curve = run.Curve("lora", ["loss", "check_first", "check_second"], step)
    clock, gen, losses = run.Clock(state["used"]), torch.Generator().manual_seed(2000 + step), []

    def report():
        with run.swapped(low, slow):
            m = measure(teacher, student, data)
        curve.add(step, clock.used, np.mean(losses) if losses else None, *m)
        print("lora %d %.0fs loss %.4f check %.4f %.4f" % (step, clock.used, np.mean(losses or [0]), *m), flush=True)
        losses.clear()

    def keep():
        run.save("lora.pt", now=low.state_dict(), slow=slow.state(), opt=opt.state_dict(), step=step, used=clock.used, whose=whose)

    pace = run.Pace(clock, report, keep)
    if step == 0:
        report()
    while clock.tick() < minutes * 60:
        part = clock.used / (minutes * 60)
        for g in opt.param_groups:
            g["lr"] = RATE * min(1.0, (step + 1) / 20) * (1 if part < 0.5 else max(0.02, 2 - 2 * part))
        two = pairs.n and dit["paired"] and step % 3 == 2
        d, n, skip = (pairs, PAIR_BATCH, PAIR_CHECK) if two else (data, BATCH, CHECK)
        way = Way(d, torch.randint(skip, d.n, (n,), generator=gen), gen)
        loss = error(teacher, student, way, 0 if torch.rand((), generator=gen) < 0.6 else 1)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(low.parameters(), 1.0)
        opt.step()
        slow.update(low)
        losses.append(float(loss.detach()))
        step += 1
        pace.step()
    pace.end()


if __name__ == "__main__":
    main(float(sys.argv[1]))
