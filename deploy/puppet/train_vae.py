"""Trains the VAE through growing clips: `train_vae.py SCALE [STAGE]`; SCALE multiplies the minutes of each stage, and with a
stage's name training goes to its beginning.

Single pictures first, small crops with many faces a step, the pipeline's own clip last; then the decoder alone on
slightly noisy latents. Absolute plus squared error, mouths weigh 4 and eyes 3, a little KL; absolute error alone is content
with a thin mouth left out. Trained on clips shorter
than the pipeline's, the model drifts in colour at the end of a longer one: the last stages use all 33 frames.
"""
import math
import sys
import time

import numpy as np
import torch

import clips
import run
from config import FRAMES, SEED_FACE, SEED_FACE_CHECK, SIZE, SEED_SPEECH, SEED_SPEECH_CHECK
from muon import Muon
from train_voice import CHECK, POOL, units
from vae import vae_new

# name, minutes, crops a step, frames, size, Muon's rate at the start and at the end, decoder only; part of the steps that
# take single pictures instead, which cost a third and show four times as many faces
STAGES = [
    ("image", 20, 16, 1, 64, 0.03, 0.012, False, 0.0),
    ("five", 3, 16, 5, 48, 0.012, 0.012, False, 0.0),
    ("thirteen", 10, 7, 13, 48, 0.012, 0.01, False, 0.0),
    ("long", 20, 4, FRAMES, 48, 0.01, 0.001, False, 0.6),
    ("full", 15, 2, FRAMES, SIZE, 0.006, 0.0005, False, 0.0),
    ("decoder", 10, 2, FRAMES, SIZE, 0.006, 0.0, True, 0.0),
]
KL, SQUARE, NOISE = 1e-4, 4.0, 0.07


def bank(name):
    if name == "train":
        return units("speech", SEED_SPEECH, POOL, False, "MLT")
    return units("speech_check", SEED_SPEECH_CHECK, CHECK, True, "MLT")


def optimisers(net, decoder_only):
    named = [(n, p) for n, p in net.named_parameters() if not decoder_only or n.startswith(("decoder.", "conv2."))]
    muon = [p for n, p in named if p.dim() >= 4 and p.shape[0] > 3 and p.shape[1] > 3]
    ids = set(map(id, muon))
    rest = [p for n, p in named if id(p) not in ids]
    return torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.98), weight_decay=1e-4), Muon(muon, lr=0.0)


def fast():
    return torch.autocast("cpu", dtype=torch.bfloat16)


def db(mse):
    return -10 * math.log10(mse)


@torch.no_grad()
def measure(net, held):
    """PSNR of round trips: all, mouth, eyes, the last nine frames; deviation of the latents."""
    e, mus = np.zeros(4), []
    for frames, (x0, x1, y0, y1), (a0, a1, b0, b1) in held:
        x = clips.pixels(frames[None])
        with fast():
            mu = net.encode(x)[0].float()
            y = net.decode(mu).float().clamp(-1, 1)
        d = ((y - x) / 2) ** 2
        e += [d.mean(), d[:, :, y0:y1, x0:x1].mean(), d[:, :, b0:b1, a0:a1].mean(), d[:, -9:].mean()]
        mus.append(mu.flatten(0, 3))
    return (*(db(v) for v in e / len(held)), float(torch.cat(mus).std(0).mean()))


def loss_of(net, x, w, decoder_only):
    with fast():
        if decoder_only:
            with torch.no_grad():
                z = net.encode(x)[0].float()
            z, kl = z + NOISE * torch.randn_like(z), torch.zeros(())
        else:
            mu, lv = net.encode(x)
            mu, lv = mu.float(), lv.float().clamp(-12, 4)
            z, kl = mu + torch.randn_like(mu) * (lv / 2).exp(), 0.5 * (mu ** 2 + lv.exp() - 1 - lv).mean()
        y = net.decode(z)
    d = y.float() - x
    l1 = (d.abs() * w).mean() / w.mean()
    return l1 + SQUARE * (d ** 2 * w).mean() / w.mean() + KL * kl, float(l1.detach())


def main(scale, again=None):
    torch.manual_seed(2)
    net = vae_new()
    slow = run.Slow(net, 0.98)
    train, held = bank("train"), clips.held(bank("check"), SEED_FACE_CHECK, 4)
    state = run.load("vae.pt") or dict(stage=0, used=0.0, total=0.0, step=0, opts=None)
    if "now" in state:
        net.load_state_dict(state["now"])
        slow.resume(state["slow"])
    if again:
        state.update(stage=[s[0] for s in STAGES].index(again), total=state["total"] + state["used"], used=0.0, opts=None)
    step, total = state["step"], state["total"]
    curve = run.Curve("vae", ["stage", "l1", "psnr", "psnr_mouth", "psnr_eyes", "psnr_last9", "latent_sd"], step)
    for i in range(state["stage"], len(STAGES)):
        name, minutes, count, frames, size, high, low, decoder_only, single = STAGES[i]
        opts = optimisers(net, decoder_only)
        if i == state["stage"] and state["opts"]:
            for o, s in zip(opts, state["opts"]):
                o.load_state_dict(s)
        elif decoder_only:
            net.load_state_dict(slow.value, strict=False)
        clock, budget = run.Clock(state["used"] if i == state["stage"] else 0.0), minutes * 60 * scale
        rng = np.random.default_rng([3, step])
        torch.manual_seed(3 + step)
        kept, measured, l1s, first = time.monotonic(), time.monotonic(), [], step

        def keep(stage, used, opts):
            run.save("vae.pt", now=net.state_dict(), slow=slow.state(), opts=[o.state_dict() for o in opts] if opts else None,
                     stage=stage, used=used, total=total, step=step)

        def report():
            with run.swapped(net, slow):
                m = measure(net, held)
            curve.add(step, total + clock.used, i, np.mean(l1s) if l1s else None, *m)
            print("vae %s %d %.0fs l1 %.4f psnr %.2f mouth %.2f eyes %.2f last9 %.2f sd %.2f" % (
                name, step, clock.used, np.mean(l1s or [0]), *m), flush=True)
            l1s.clear()

        while clock.tick() < budget:
            part = clock.used / budget
            rate = (high + (low - high) * part) * min(1.0, (step - first + 1) / 30)
            for o, k in zip(opts, (1 / 15, 1.0)):
                for g in o.param_groups:
                    g["lr"] = rate * k
            shape = STAGES[0][2:5] if rng.random() < single else (count, frames, size)
            x, w = clips.crops(train, SEED_FACE + step * 16, rng, *shape)
            loss, l1 = loss_of(net, x, w, decoder_only)
            for o in opts:
                o.zero_grad()
            loss.backward()
            for o in opts:
                o.step()
            slow.update(net)
            l1s.append(l1)
            step += 1
            now = time.monotonic()
            if now - measured > 150:
                report()
                measured = time.monotonic()
            if now - kept > 90:
                keep(i, clock.used, opts)
                kept = time.monotonic()
        report()
        total += clock.used
        keep(i + 1, 0.0, None)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0, *sys.argv[2:3])
