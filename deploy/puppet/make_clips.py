"""Draws and encodes the clips that the transformer learns from: `make_clips.py COUNT [PAIRS [PART PARTS]]`.

Each clip keeps, as normalised latents in f16: the clip itself; what y holds of its reference (the first five latents; the
grey rest is the same for all); and what its context looks like after some generations: decoded and encoded again,
coloured, blurred, noisy, or drawn with other colours. The clean clip stays the target, so that the way out of a spoilt
context is to look at the reference.

Two clips in three go on from nine frames; the reference is the neutral portrait or any other frame, mostly with a closed
mouth. The others begin at their reference: the portrait, out of which the motion grows. Pairs are two people in a wide
picture, one speaking or both; who is silent has the features of silence and a closed mouth.

Shards of 250 clips, each from its own seed, so that several processes may make every PARTS-th each (from PART on, 0 or
more; the first run makes what they share). A shard made with another encoder of the VAE is made again. Features are kept apart,
for each unit of speech clean and as if recorded in two ways, and are made again when the voice network has gone on.
"""
import sys

import numpy as np
import torch

import clips
import face
import motion
import run
import sound
from config import CONTEXT, CONTEXT_LATENTS, FRAMES, SEED_FACE, SEED_SPEECH, SIZE, WIDE
from train_vae import bank, fast
from train_voice import N, POOL, units
from vae import vae_new
from voice import voice_new

SHARD, UNITS, WAYS, FACES = 250, 1500, 3, SEED_FACE + (1 << 24)
SILENCE = UNITS  # the row of features behind the units'
Y_LATENTS = 5


def net_of(state, net, prefix=""):
    """The slow weights of a stage."""
    net.load_state_dict({k[len(prefix):]: v for k, v in state["slow"]["value"].items() if k.startswith(prefix)})
    return net.eval().requires_grad_(False)


def voice_of():
    return net_of(run.load("voice.pt"), voice_new(), "net.")


def vae_of():
    return net_of(run.load("vae.pt"), vae_new())


def versions():
    """What clips are made with, and what features are: change with the weights (the VAE's decoder alone may go on)."""
    voice, vae = run.load("voice.pt"), run.load("vae.pt")
    total = sum(v.half().double().abs().sum() for k, v in vae["slow"]["value"].items() if k.startswith(("encoder.", "conv1.")))
    return "%.6g" % float(total), voice["step"]


def base_of():
    """Statistics and features, those of the present weights."""
    base = run.load("cache/base.pt")
    if not base or (base["version"], base["voice"]) != versions():
        raise SystemExit("features or latents are of other weights; run make_clips.py, then train_dit.py")
    return base


def encode(vae, frames):
    """u8 [n, t, h, w, 3] or f32 in -1..1 to raw means [n, T, h/8, w/8, 16]."""
    x = clips.pixels(frames) if frames.dtype == np.uint8 else frames
    with fast(), torch.no_grad():
        return vae.encode(x)[0].float()


def statistics(vae, train):
    """Mean and deviation of each latent channel over 48 clips."""
    rng = np.random.default_rng(11)
    z = torch.cat([encode(vae, np.stack([clips.clip(train, FACES - 1000 + i * 4 + k, rng, FRAMES)[0] for k in range(4)])).flatten(0, 3)
                   for i in range(12)])
    return z.mean(0), z.std(0)


def spoil(frames, rng):
    """f32 [t, h, w, 3] in -1..1: colours, sharpness and noise as a long chain would leave them."""
    x = frames
    if rng.random() < 0.7:
        gain, shift = rng.normal(1, 0.06, 3), rng.normal(0, 0.06, 3)
        x = x * torch.tensor(gain, dtype=torch.float32) + torch.tensor(shift, dtype=torch.float32)
    if rng.random() < 0.5:
        k = rng.uniform(0.1, 0.3)
        for d in (1, 2):
            x = (1 - 2 * k) * x + k * (x.roll(1, d) + x.roll(-1, d))
    if rng.random() < 0.5:
        x = x + torch.randn_like(x) * rng.uniform(0.005, 0.05)
    return x.clamp(-1, 1)


def other_colours(f, seed):
    """The same head with some colours and details of another."""
    g, rng, out = face.face_new(seed), np.random.default_rng(seed), dict(f)
    for key in ("hair", "shirt", "iris", "lip", "skin", "back", "back2"):
        if rng.random() < 0.35:
            out[key] = tuple(np.clip(np.array(f[key]) + 0.35 * (np.array(g[key]) - np.array(f[key])), 0, 1))
    for key in ("eye_r", "brow_w", "eye_x", "rx"):
        if rng.random() < 0.3:
            out[key] = 0.5 * (f[key] + g[key])
    return out


def line(train, rng, going, silent):
    """What one person does: poses of the clip, the reference's pose, unit of speech and where it begins."""
    rest, start = np.array(face.REST_POSE), int(rng.integers(N - FRAMES + 1)) if rng.random() > 0.15 else 0
    u, seed = int(rng.integers(UNITS)), int(rng.integers(1 << 30))
    p = motion.listening(seed, N) if silent else motion.poses(seed, train["M"][u], train["L"][u], train["T"][u])
    closed = rng.random() < 0.7
    q = p[start:start + FRAMES].copy()
    if going:
        r = rest.copy()
        if rng.random() < 0.5:
            r = p[int(rng.integers(len(p)))].copy()
            r[3] = 0
            if closed:
                r[:3] = rest[:3]
    else:
        if rng.random() < 0.75:
            grow = np.clip(np.arange(FRAMES) / 12, 0, 1)[:, None]
            q[:, 4:] = rest[4:] + grow * (q[:, 4:] - rest[4:])
        q[0, 3] = 0
        if closed:
            q[0, :3] = rest[:3]
        r = q[0].copy()
    return q, r, SILENCE if silent else u, start


def regions(people, wide, rng):
    """Boxes (x0, x1, y0, y1) of the two speakers: halves with a margin, as the pipeline has them, or around the heads."""
    half = wide // 2
    if rng.random() < 0.6:
        return [[int(half * 0.05) + k * half, int(half * 0.95) + k * half, int(SIZE * 0.05), int(SIZE * 0.95)] for k in range(2)]
    return [[int(x + f["x"] - 27 * f["zoom"]), int(x + f["x"] + 27 * f["zoom"]), int(45 + f["y"] - 34 * f["zoom"]),
             int(45 + f["y"] + 36 * f["zoom"])] for f, x in people]


def draw(train, seed, rng, count):
    """One clip of one or two people: frames, reference, context, and what training needs to know."""
    wide, going = (SIZE, WIDE)[count - 1], rng.random() < 0.65
    xs = [SIZE / 2] if count == 1 else [44 + rng.uniform(-3, 3), wide - 44 + rng.uniform(-3, 3)]
    people = [(face.face_new(seed + (k << 22), (1.0, face.PAIR_SIZE)[count - 1]), x) for k, x in enumerate(xs)]
    quiet = [False] if count == 1 else [(False, True), (True, False), (False, False)][int(rng.integers(3))]
    lines = [line(train, rng, going, s) for s in quiet]
    frames = face.render(people, [q for q, _, _, _ in lines], wide)
    context = frames[:CONTEXT]
    if rng.random() < 0.4:
        others = [(other_colours(f, seed + 5 + k), x) for k, (f, x) in enumerate(people)]
        context = face.render(others, [q[:CONTEXT] for q, _, _, _ in lines], wide)
    return dict(frames=frames, reference=face.render(people, [r[None] for _, r, _, _ in lines], wide), context=context,
                unit=[u for _, _, u, _ in lines], start=[s for _, _, _, s in lines], going=going,
                boxes=[face.boxes(f, x) for f, x in people], regions=regions(people, wide, rng) if count == 2 else [])


def make_shard(vae, train, mean, std, k, count):
    rng = np.random.default_rng([13, count, k])
    torch.manual_seed(13 + 1000 * count + k)
    normal = lambda z: ((z - mean) / std).half()
    facts = ("unit", "start", "going", "boxes", "regions")
    out = {n: [] for n in ("z", "y", "c") + facts}
    for first in range(0, SHARD, 5):
        drawn = [draw(train, FACES + (k + 500 * (count - 1)) * SHARD + first + i, rng, count) for i in range(5)]
        z = encode(vae, np.stack([d["frames"] for d in drawn]))
        ref = clips.pixels(np.stack([d["reference"] for d in drawn]))
        y = encode(vae, torch.cat([ref, torch.zeros(5, 4 * (Y_LATENTS - 1), *ref.shape[2:])], 1))
        context = clips.pixels(np.stack([d["context"] for d in drawn]))
        going = torch.tensor([d["going"] for d in drawn])
        again = torch.from_numpy(rng.random(5) < 0.6) & going
        if again.any():
            with fast(), torch.no_grad():
                c = encode(vae, context[again])
                context[again] = vae.decode(c + torch.randn_like(c) * std * float(rng.uniform(0, 0.3))).float().clamp(-1, 1)
        out["z"].append(normal(z))
        out["y"].append(normal(y))
        out["c"].append(normal(z[:, :CONTEXT_LATENTS]))
        if going.any():
            out["c"][-1][going] = normal(encode(vae, torch.stack([spoil(x, rng) for x in context[going]])))
        for d in drawn:
            for n in facts:
                out[n].append(d[n])
    part = {n: torch.cat(out[n]) for n in "zyc"}
    part.update({n: torch.tensor(np.array(out[n])) for n in facts})
    return part


@torch.no_grad()
def features(voice):
    """f16 [WAYS, UNITS + 1, 128, layers x hidden]: as it is, then as if recorded; the last row of each is silence."""
    z = units("speech", SEED_SPEECH, POOL, False, "W")["W"][:UNITS]
    gen, out = torch.Generator().manual_seed(17), []
    for way in range(WAYS):
        rows = []
        for i in range(0, UNITS, 10):
            wave = torch.from_numpy(z[i:i + 10].astype(np.float32) / 32767)
            rows.append(voice(sound.record(wave, gen) if way else wave).flatten(2).half())
        out.append(torch.cat(rows + [voice(torch.zeros(1, z.shape[1])).flatten(2).half()]))
    return torch.stack(out)


def main(count, pairs=0, part=0, parts=1):
    (want, voice), train = versions(), bank("train")
    vae, base = vae_of(), run.load("cache/base.pt") or dict(version="", voice=-1)
    if base["version"] != want:
        mean, std = statistics(vae, train)
        grey = {w: ((encode(vae, torch.zeros(1, FRAMES, SIZE, w, 3))[0] - mean) / std).half() for w in (SIZE, WIDE)}
        base.update(version=want, mean=mean, std=std, grey=grey)
        print("latent sd %.2f..%.2f" % (std.min(), std.max()), flush=True)
    if base["voice"] != voice or base["features"].shape[:2] != (WAYS, UNITS + 1):
        base.update(voice=voice, features=features(voice_of()))
        print("features", tuple(base["features"].shape), flush=True)
    run.save("cache/base.pt", **base)
    for kind, people, n in (("clips", 1, count), ("pairs", 2, pairs)):
        for k in range(part, (n + SHARD - 1) // SHARD, parts):
            name = "cache/%s%03d.pt" % (kind, k)
            old = run.load(name)
            if not old or old["version"] != want:
                run.save(name, version=want, **make_shard(vae, train, base["mean"], base["std"], k, people))
                print(kind, (k + 1) * SHARD, flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
