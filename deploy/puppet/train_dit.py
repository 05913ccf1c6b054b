"""Trains the transformer: `train_dit.py MINUTES`.

Velocity noise - data at t = 3u / (1 + 2u); context latents stay as given and carry no loss; cells of mouths weigh 6, of eyes
3; one voice in ten is silence without features, for guidance. Half of the contexts that go on are spoilt ones, and more
noise and shifted channels come on top here, always another one. Rate constant for 40 % of the time, then falling to 0.

What the guess of the clean latents shows of mouths is read (lips.py) and held against the truth, beside the velocity.

Where pairs were made, every third step from a quarter of the time on is one of two speakers with ears of its own, which
begin as those of one; there, attention to the right region is a part of the loss.
"""
import glob
import sys

import numpy as np
import torch
import torch.nn as nn

import run
from config import CONTEXT_LATENTS, FRAMES, LATENTS, state_path
from dit import dit_new
from lips import distance, lips_of
from make_clips import SILENCE, WAYS, Y_LATENTS, base_of
from motion import SHUT
from muon import Muon
from train_vae import bank

BATCH, PAIR_BATCH, SHIFT, CHECK, PAIR_CHECK = 8, 4, 3.0, 48, 16
MUON_RATE, ADAM_RATE, REGION_LOSS, LIPS_LOSS = 0.02, 1e-3, 0.05, 1.0


class Data:
    """All clips of a kind that were made with the present weights; n may be 0."""

    def __init__(self, kind):
        self.base, parts = base_of(), []
        for path in sorted(glob.glob(state_path("cache", kind + "*.pt"))):
            p = torch.load(path, weights_only=False)
            if p["version"] == self.base["version"]:
                parts.append(p)
        self.n = sum(len(p["z"]) for p in parts)
        if not self.n:
            return
        for name in ("z", "y", "c", "unit", "start", "going", "boxes", "regions"):
            setattr(self, name, torch.cat([p[name] for p in parts]))
        self.h, self.w = self.z.shape[2:4]
        self.grey = self.base["grey"][8 * self.w]
        self.weight = torch.ones(self.n, 1, 1, self.h, self.w)
        for i, people in enumerate(self.boxes.tolist()):
            for kind, v in ((1, 3.0), (0, 6.0)):
                for person in people:
                    x0, x1, y0, y1 = person[kind]
                    self.weight[i, :, :, max(0, y0) // 8:(y1 - 1) // 8 + 1, max(0, x0) // 8:(x1 - 1) // 8 + 1] = v
        units = torch.from_numpy(bank("train")["M"][:SILENCE]).float()
        self.mouths = torch.cat([units, torch.tensor(SHUT).expand(1, units.shape[1], 3)])
        self.eight = 4 * torch.arange(1, LATENTS)[:, None] - 3 + torch.arange(8)  # into start-2 .. start+34

    def voices(self, ids, silence, way):
        """first [B, P, 5 width], later [B, P, T-1, 8 width]; silence [B] mutes; way [B]: clean (0), or how recorded."""
        at = (self.start[ids][..., None] + torch.arange(-2, 35)).clamp(0, 127)
        rows = self.base["features"][way.view(-1, 1, 1), self.unit[ids][..., None], at].float() * (~silence).float().view(-1, 1, 1, 1)
        return rows[:, :, :5].flatten(2), rows[:, :, self.eight].flatten(3)

    def shapes(self, ids):
        """True shapes of mouths [B, P, 33, 3]."""
        return self.mouths[self.unit[ids][..., None], self.start[ids][..., None] + torch.arange(FRAMES)]

    def tokens(self, ids):
        """Regions on the token grid [B, 3, S]: the speakers', and the rest."""
        ys, xs = 16 * torch.arange(self.h // 2)[:, None], 16 * torch.arange(self.w // 2)[None]
        r = self.regions[ids][..., None, None]  # B 2 4 1 1
        inside = (xs >= r[:, :, 0]) & (xs < r[:, :, 1]) & (ys >= r[:, :, 2]) & (ys < r[:, :, 3])
        return torch.cat([inside, ~inside.any(1, keepdim=True)], 1).float().flatten(2)

    def batch(self, ids, gen, silent, spoil):
        """x, y, t, first, later, velocity, weight with 0 for the context, t as a factor."""
        b = len(ids)
        z = self.z[ids].float().permute(0, 4, 1, 2, 3)
        silence = torch.rand(b, generator=gen) < silent
        way = torch.randint(WAYS, (b,), generator=gen) if spoil else torch.zeros(b, dtype=torch.long)
        first, later = self.voices(ids, silence, way)
        y = torch.cat([self.y[ids], self.grey[Y_LATENTS:][None].expand(b, -1, -1, -1, -1)], 1).float().permute(0, 4, 1, 2, 3)
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
            some = lambda p: (torch.rand(b, 1, 1, 1, 1, generator=gen) < p) & going
            dirty = self.c[ids].float().permute(0, 4, 1, 2, 3)
            kept[:, :, :CONTEXT_LATENTS] = torch.where(some(0.55), dirty, kept[:, :, :CONTEXT_LATENTS])
            size = torch.rand(b, 1, 1, 1, 1, generator=gen)
            kept = kept + torch.where(some(0.5), 0.25 * size, 0.0) * torch.randn(kept.shape, generator=gen)
            kept = kept + torch.where(some(0.3), 0.2, 0.0) * torch.randn(b, 16, 1, 1, 1, generator=gen)
        x = torch.where(free, (1 - tt) * z + tt * noise, kept)
        return x, torch.cat([mask, y], 1), t * 1000, first, later, noise - z, free * self.weight[ids], tt


def optimisers(net):
    both = [net, net.second]
    muon = [q for m in both for n, q in m.blocks.named_parameters() if q.dim() == 2]
    muon += [getattr(m.audio_proj, n).weight for m in both for n in ("proj1", "proj1_vf", "proj2", "proj3")]
    ids = set(map(id, muon))
    rest = [q for q in net.parameters() if id(q) not in ids]
    return torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0), Muon(muon, lr=0.0, decay=0.01)


def error(net, data, ids, gen, silent=0.1, spoil=True, lips=None):
    """Loss, squared errors, weights, t; the loss of regions where there are two; that of lips where there is a reader."""
    x, y, t, first, later, v, w, tt = data.batch(ids, gen, silent, spoil)
    told, regions = [], None
    if first.shape[1] == 2:
        regions = data.tokens(ids)
    else:
        first, later = first[:, 0], later[:, 0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        o = net(x, y, t, first, later, regions, told)
    e = (o - v) ** 2
    loss = (e * w).sum() / (w.sum() * 16)
    aside = torch.zeros(())
    if told:
        own = regions.argmax(1).repeat(1, x.shape[2])  # B L
        for share in told:
            share = share / share.sum(1, keepdim=True)
            aside = aside - share.gather(1, own[:, None]).clamp(min=1e-6).log().mean() / len(told)
    said = torch.zeros(())
    if lips:
        said = distance(lips, x - tt * o.float(), data.boxes[ids], data.shapes(ids), (w.amax((1, 3, 4)) > 0).float())
    return loss, e, w, tt, aside, said


@torch.no_grad()
def measure(net, data, pairs, lips):
    """Loss on unseen clips; error of the clean latents in mouths, with the voice and without it; with spoilt contexts; pairs;
    of lips with the voice."""
    losses, spoilt, read, mouths, two = [], [], [], {0.0: [], 1.1: []}, []
    for silent in mouths:
        gen = torch.Generator().manual_seed(5)
        for k in range(0, CHECK, BATCH):
            loss, e, w, tt, _, said = error(net, data, torch.arange(k, k + BATCH), gen, silent, False, lips)
            m = (w > 3.5).float()
            mouths[silent].append(float((e * m * tt ** 2).sum() / (m.sum() * 16)))
            if silent == 0.0:
                losses.append(float(loss))
                read.append(float(said))
    gen = torch.Generator().manual_seed(6)
    for k in range(0, CHECK, BATCH):
        spoilt.append(float(error(net, data, torch.arange(k, k + BATCH), gen, 0.0, True)[0]))
    if pairs.n:
        two = [[float(error(net, pairs, torch.arange(PAIR_CHECK), gen, 0.0, False)[i]) for i in (0, 4)]]
    return (np.mean(losses), np.mean(mouths[0.0]), np.mean(mouths[1.1]), np.mean(spoilt), *(two[0] if two else (None, None)),
            np.mean(read))


def main(minutes):
    torch.manual_seed(4)
    data, pairs, net = Data("clips"), Data("pairs"), dit_new()
    if not data.n:
        raise SystemExit("no clips of these weights; run make_clips.py first")
    opts, slow, lips = optimisers(net), run.Slow(net, 0.998), lips_of(data.base["version"])
    state = run.load("dit.pt") or dict(step=0, used=0.0, paired=False, opts=None)
    if "now" in state:
        net.load_state_dict(state["now"])
        slow.resume(state["slow"])
        for o, s in zip(opts, state["opts"] or []):
            o.load_state_dict(s)
    step, paired = state["step"], state["paired"]
    curve = run.Curve("dit", ["loss", "check", "mouth", "mouth_without_voice", "check_spoilt", "check_pairs", "regions", "lips"], step)
    clock, gen, losses = run.Clock(state["used"]), torch.Generator().manual_seed(1000 + step), []
    print("dit", sum(p.numel() for p in net.parameters()), "parameters", data.n, "clips", pairs.n, "pairs", flush=True)

    def report():
        with run.swapped(net, slow):
            m = measure(net, data, pairs, lips)
        curve.add(step, clock.used, np.mean(losses) if losses else None, *m)
        print("dit %d %.0fs loss %.4f check, mouth, without voice, spoilt, pairs, regions, lips:" % (step, clock.used, np.mean(losses or [0])),
              *("-" if v is None else "%.4f" % v for v in m), flush=True)
        losses.clear()

    def keep():
        run.save("dit.pt", now=net.state_dict(), slow=slow.state(), opts=[o.state_dict() for o in opts], step=step,
                 used=clock.used, paired=paired, hears=data.base["voice"])

    pace = run.Pace(clock, report, keep)
    while clock.tick() < minutes * 60:
        part = clock.used / (minutes * 60)
        scale = min(1.0, (step + 1) / 50) * (1 if part < 0.4 else max(0.01, 1 - (part - 0.4) / 0.6))
        for o, rate in zip(opts, (ADAM_RATE, MUON_RATE)):
            for g in o.param_groups:
                g["lr"] = rate * scale
        if pairs.n and not paired and part > 0.25:
            net.second_from_first()
            for name, p in net.second.named_parameters():
                slow.value["second." + name].copy_(p.detach())
            paired = True
        two = paired and step % 3 == 2
        d, n, skip = (pairs, PAIR_BATCH, PAIR_CHECK) if two else (data, BATCH, CHECK)
        loss, _, _, _, aside, said = error(net, d, torch.randint(skip, d.n, (n,), generator=gen), gen, lips=lips)
        net.zero_grad()
        (loss + REGION_LOSS * aside + LIPS_LOSS * said).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for o in opts:
            o.step()
        slow.update(net)
        if not two:
            losses.append(float(loss.detach()))
        step += 1
        pace.step()
    pace.end()


if __name__ == "__main__":
    main(float(sys.argv[1]))
