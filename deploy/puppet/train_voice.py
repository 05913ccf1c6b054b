"""Trains the voice network to read mouths: `train_voice.py MINUTES`.

Cross entropy over the mouth classes plus squared error of opening, width, roundness and loudness, from a linear head
on the last layer. Tracks of one to eight units, because group norm and attention look at the whole track. The sound is
made to seem recorded (sound.py). Units are drawn once into a pool, then one fresh unit replaces an old one every step.
"""
import math
import multiprocessing
import os
import sys
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import run
import sound
import speech
from config import SEED_SPEECH, SEED_SPEECH_CHECK, VOICE, state_path
from measure import correlation
from mouth import CLASSES
from muon import Muon
from voice import voice_new

POOL, CHECK, UNITS = 3000, 32, 10
N = speech.FRAMES


def make(args):
    seed, held = args
    wave, shapes, classes, loud, tone, _ = speech.unit(seed, held)
    return (np.clip(wave * 32767, -32768, 32767).astype(np.int16), shapes, classes.astype(np.uint8), loud, tone)


def units(name, seed, n, held, keys="WMCLT"):
    """Units drawn once and kept on disk: dict of arrays [n, ...]."""
    path = state_path("cache", name + ".npz")
    if not os.path.exists(path):
        with multiprocessing.Pool(2) as pool:
            parts = pool.map(make, [(seed + i, held) for i in range(n)], chunksize=20)
        np.savez(path + ".new.npz", **{k: np.stack(c) for k, c in zip("WMCLT", zip(*parts))})
        os.replace(path + ".new.npz", path)
    z = np.load(path)
    return {k: z[k] for k in keys}


def target(shapes, loud):
    return np.concatenate([shapes, np.log(loud + 1e-3)[..., None] * 0.2 + 1], -1).astype(np.float32)


@torch.no_grad()
def measure(net, head, z, gen=None):
    """Frame accuracy, correlations of opening, width and roundness, opening at lags -1 and +1, opening in silence."""
    wave = torch.from_numpy(z["W"].astype(np.float32) / 32767)
    if gen is not None:
        wave = sound.record(wave, gen)
    out = torch.cat([head(net(w)[:, :, -1]) for w in wave.split(8)]).numpy()
    k = len(CLASSES)
    shape = out[..., k:k + 3]
    r = [np.mean([correlation(s[:, j], m[:, j]) for s, m in zip(shape, z["M"])]) for j in range(3)]
    lag = [np.mean([correlation(s[6:-6, 0], np.roll(m[:, 0], d)[6:-6]) for s, m in zip(shape, z["M"])]) for d in (-1, 1)]
    quiet = shape[..., 0][z["M"][..., 0] < 0.02]
    return (float((out[..., :k].argmax(-1) == z["C"]).mean()), *r, *lag, float(quiet.mean()))


class Pool:
    def __init__(self, step):
        self.z = units("speech", SEED_SPEECH, POOL, False)
        self.next = SEED_SPEECH + POOL + step

    def renew(self, rng):
        i = rng.integers(POOL)
        for k, v in zip("WMCLT", make((self.next, False))):
            self.z[k][i] = v
        self.next += 1

    def batch(self, rng, gen):
        k = int(rng.choice([1, 1, 2, 3, 4, 8]))
        b = max(1, UNITS // k)
        at = rng.integers(0, POOL, (b, k))
        n = N * k - (int(rng.integers(0, 64)) if rng.random() < 0.5 else 0)
        join = lambda a: a[at].reshape(b, -1, *a.shape[2:])
        gain = 10 ** (rng.uniform(-6, 6, (b, k, 1)) / 20 * (rng.random() < 0.5))  # people do not keep one loudness
        wave = torch.from_numpy((self.z["W"][at] * gain).reshape(b, -1)[:, :n * 640].astype(np.float32) / 32767)
        cls = torch.from_numpy(join(self.z["C"])[:, :n].astype(np.int64))
        return sound.record(wave, gen), cls, torch.from_numpy(target(join(self.z["M"]), join(self.z["L"]))[:, :n])


def optimisers(net, head):
    muon = [p for n, p in net.named_parameters()
            if n.startswith("encoder.layers") and p.dim() == 2 or ".conv_layers." in n and p.dim() == 3 and p.shape[1] > 1]
    ids = set(map(id, muon))
    rest = [p for p in list(net.parameters()) + list(head.parameters()) if id(p) not in ids]
    return torch.optim.AdamW(rest, lr=1.2e-3, betas=(0.9, 0.98), weight_decay=0.01), Muon(muon, lr=0.01)


def main(minutes):
    torch.manual_seed(1)
    check = units("speech_check", SEED_SPEECH_CHECK, CHECK, True)
    net, head = voice_new(), nn.Linear(VOICE["hidden"], len(CLASSES) + 4)
    both = nn.ModuleDict(dict(net=net, head=head))
    opts, slow = optimisers(net, head), run.Slow(both, 0.995)
    state, step, used = run.load("voice.pt"), 0, 0.0
    if state:
        both.load_state_dict(state["now"])
        slow.resume(state["slow"])
        for o, s in zip(opts, state["opts"] or []):
            o.load_state_dict(s)
        step, used = state["step"], state["used"]
    pool, rng = Pool(step), np.random.default_rng(100 + step)
    gen = torch.Generator().manual_seed(100 + step)
    columns = ["loss", "accuracy", "opening", "width", "roundness", "lag-1", "lag+1", "silence", "opening_recorded"]
    curve, clock, kept = run.Curve("voice", columns, step), run.Clock(used), time.monotonic()
    losses, base = [], [[g["lr"] for g in o.param_groups] for o in opts]

    def keep(final):
        with run.swapped(both, slow):
            m = measure(net, head, check)
            rec = measure(net, head, check, torch.Generator().manual_seed(7))
        curve.add(step, clock.tick(), np.mean(losses) if losses else None, *m, rec[1])
        print("voice %d %.0fs loss %.3f acc %.3f open %.3f lags %.3f %.3f silence %.3f recorded %.3f" % (
            step, clock.used, np.mean(losses or [0]), m[0], m[1], m[4], m[5], m[6], rec[1]), flush=True)
        losses.clear()
        run.save("voice.pt", now=both.state_dict(), slow=slow.state(), opts=[o.state_dict() for o in opts], step=step,
                 used=clock.used, done=final)

    while clock.tick() < minutes * 60:
        part = clock.used / (minutes * 60)
        scale = min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * part)) + 0.01
        for o, rates in zip(opts, base):
            for g, r in zip(o.param_groups, rates):
                g["lr"] = r * scale
        wave, cls, want = pool.batch(rng, gen)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = head(net(wave)[:, :, -1]).float()
        k = len(CLASSES)
        loss = F.cross_entropy(out[..., :k].flatten(0, 1), cls.flatten()) + 20 * F.mse_loss(out[..., k:], want)
        both.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        for o in opts:
            o.step()
        slow.update(both)
        losses.append(float(loss.detach()))
        step += 1
        pool.renew(rng)
        if time.monotonic() - kept > 90:
            keep(False)
            kept = time.monotonic()
            clock.skip()
    keep(True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
