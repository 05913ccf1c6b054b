"""Measures the chain on faces, voices and languages held out: `check.py [SEGMENTS [FACES]]`, table to curves/check.csv.

The same walk as the pipeline's: portrait to y, four steps of the sampler with voice guidance, decode, colours matched to
the portrait, the last nine frames encoded as the next segment's context. The mouth is read off the frames (reader.py) and
compared with the truth that the voice was made with.
"""
import csv
import os
import sys

import numpy as np
import torch

import clips
import colour
import measure
import png
import run
from config import CONTEXT, CURVES, FRAMES, LATENTS, SEED_FACE_GATE, state_path
from dit import dit_new, windows
from make_clips import base_of, encode, net_of, vae_of, voice_of
from reader import Reader
from train_vae import fast

SHIFT = 3.0


def times(steps):
    u = np.append(np.linspace(1000, 1, steps) if steps > 1 else [1000.0], 0) / 1000
    return SHIFT * u / (1 + (SHIFT - 1) * u)


class Chain:
    def __init__(self):
        base = base_of()
        self.voice, self.vae, self.dit = voice_of(), vae_of(), net_of(run.load("dit.pt"), dit_new())
        self.mean, self.std = base["mean"], base["std"]

    def encode(self, x):
        return ((encode(self.vae, x) - self.mean) / self.std).permute(0, 4, 1, 2, 3)

    def decode(self, z):
        with fast(), torch.no_grad():
            return self.vae.decode(z.permute(0, 2, 3, 4, 1) * self.std + self.mean).float().clamp(-1, 1)

    @torch.no_grad()
    def generate(self, pictures, rows, segments, steps, scale, correct=True, seed=0):
        """pictures f32 [B, 1, h, w, 3], rows [B][L, width] to u8 [B, frames, h, w, 3]."""
        b, _, h, w, _ = pictures.shape
        gen, out = torch.Generator().manual_seed(seed), []
        y = self.encode(torch.cat([pictures, torch.zeros(b, FRAMES - 1, h, w, 3)], 1))
        mask = torch.zeros(b, 4, LATENTS, h // 8, w // 8)
        mask[:, :, 0] = 1
        y, keep, grid = torch.cat([mask, y], 1), self.encode(pictures), times(steps)
        for k in range(segments):
            ws = [windows(r, k * (FRAMES - CONTEXT), FRAMES) for r in rows]
            first, later = (torch.stack([v[i] for v in ws]) for i in (0, 1))
            x = torch.randn(b, 16, LATENTS, h // 8, w // 8, generator=gen)
            for i in range(steps):
                x[:, :, :keep.shape[2]] = keep
                t = torch.full((b,), float(grid[i] * 1000))
                with fast():
                    v = self.dit(x, y, t, first, later)
                    if scale != 1:
                        n = self.dit(x, y, t, first * 0, later * 0)
                        v = n + scale * (v - n)
                x = x - v * float(grid[i] - grid[i + 1])
            x[:, :, :keep.shape[2]] = keep
            video = self.decode(x)
            if correct:
                video = torch.stack([torch.from_numpy(colour.match(a.numpy(), p[0].numpy())) for a, p in zip(video, pictures)])
            keep = self.encode(video[:, -CONTEXT:])
            out.append(video if k == 0 else video[:, CONTEXT:])
        return ((torch.cat(out, 1) + 1) * 127.5).round().clamp(0, 255).byte().numpy()


def main(segments, count):
    chain, frames = Chain(), FRAMES + (segments - 1) * (FRAMES - CONTEXT)
    said = [measure.voice(i, frames) for i in range(count)]
    with torch.no_grad():
        rows = [chain.voice(torch.from_numpy(s[0])[None])[0].flatten(1) for s in said]
    readers = [Reader(SEED_FACE_GATE + i) for i in range(count)]
    pictures = clips.pixels(np.stack([measure.portrait(i) for i in range(count)])[:, None])
    spoken = np.stack([measure.drawn(i, said[i], frames) for i in range(count)])
    numbers = lambda video: measure.together([measure.film(i, v, readers[i].read(v), said[i][1]) for i, v in enumerate(video)])
    table = [dict(set="drawn", **numbers(spoken))]
    for steps, scale in ((4, 1.0), (4, 2.0)):
        video = chain.generate(pictures, rows, segments, steps, scale)
        table.append(dict(set="%d steps, scale %g" % (steps, scale), **numbers(video)))
        at = np.linspace(0, frames - 1, 14).astype(int)
        sheet = np.concatenate([np.concatenate(list(v[at]), 1) for pair in zip(spoken, video) for v in pair], 0)
        png.write(state_path("check_%d_%g_%d.png" % (steps, scale, segments)), sheet)
    os.makedirs(CURVES, exist_ok=True)
    with open(os.path.join(CURVES, "check_%d_segments.csv" % segments), "w", newline="") as f:
        w = csv.DictWriter(f, list(table[0]), lineterminator="\n")
        w.writeheader()
        for row in table:
            row = {k: v if isinstance(v, str) else "%.3f" % v for k, v in row.items()}
            w.writerow(row)
            print(row, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4, int(sys.argv[2]) if len(sys.argv) > 2 else 8)
