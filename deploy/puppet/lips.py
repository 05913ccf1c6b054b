"""Reads mouth shapes off latents: what makes the transformer say the right thing rather than look right on the whole.

The square error of a latent is mostly of heads, hair and shirts; a mouth half open in place of shut hardly shows in it. So a
small network learns to read opening, width and roundness of all frames off clean latents (`lips.py MINUTES`), is frozen,
and the transformer's guess of the clean latents is read by it: the error of what it reads is a part of the loss.

Of each person, a window of 6 x 6 cells around the mouth, of a latent and the two before it (the VAE is causal; a latent
holds four frames, and what they look like depends on those before). Noise in training, as guesses are not sharp.
"""
import sys

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import run
from config import LATENTS, VAE

CELLS, BACK, WIDTH, CHECK, BATCH, RATE = 6, 2, 96, 200, 32, 2e-3
WEIGHTS = (1.0, 0.5, 0.5)  # opening, width, roundness


class Lips(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(VAE["z"] * (BACK + 1), WIDTH, 3, padding=1)
        self.second = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.hidden = nn.Linear(WIDTH * CELLS * CELLS, 128)
        self.out = nn.Linear(128, 12)

    def forward(self, x):
        """x [N, 48, 6, 6] to the shapes of a latent's four frames [N, 4, 3]."""
        x = F.silu(self.second(F.silu(self.first(x))))
        return self.out(F.silu(self.hidden(x.flatten(1)))).unflatten(1, (4, 3))


def cut(z, boxes):
    """z [B, 16, T, h, w], boxes [B, P, 2, 4] (the mouth's first) to windows [B P T, 48, 6, 6]."""
    b, c, t, h, w = z.shape
    people = boxes.shape[1]
    low = lambda k, size: ((boxes[:, :, 0, k] + boxes[:, :, 0, k + 1]) // 16 - CELLS // 2).clamp(0, size - CELLS)
    x = low(0, w)[..., None] + torch.arange(CELLS)  # B P 6
    y = low(2, h)[..., None] + torch.arange(CELLS)
    at = (y[..., :, None] * w + x[..., None, :]).flatten(2)  # B P 36
    near = z.flatten(3)[:, None].expand(-1, people, -1, -1, -1).gather(4, at[:, :, None, None].expand(-1, -1, c, t, -1))
    past = torch.cat([near[:, :, :, :1]] * BACK + [near], 3)
    return torch.cat([past[:, :, :, k:k + t] for k in range(BACK + 1)], 2).transpose(2, 3).reshape(b * people * t, -1, CELLS, CELLS)


def distance(lips, z, boxes, shapes, free):
    """Mean square error of the shapes read off z against the true ones [B, P, 33, 3]; free [B, T] says which latents count."""
    b, people, t = z.shape[0], boxes.shape[1], z.shape[2]
    read = lips(cut(z, boxes)).view(b, people, t, 4, 3)[:, :, 1:]
    e = (read - shapes[:, :, 1:].reshape(b, people, t - 1, 4, 3)) ** 2
    e = (e * torch.tensor(WEIGHTS)).sum(-1).mean((1, 3))
    return (e * free[:, 1:]).sum() / free[:, 1:].sum().clamp(min=1)


def lips_of(version):
    """The frozen reader of these latents."""
    state = run.load("lips.pt")
    if not state or state["version"] != version:
        raise SystemExit("nothing reads lips off these latents; run lips.py first")
    lips = Lips()
    lips.load_state_dict(state["net"])
    return lips.eval().requires_grad_(False)


@torch.no_grad()
def measure(lips, data):
    """Correlation of opening, width and roundness on unseen clips."""
    ids = torch.arange(CHECK)
    read = lips(cut(data.z[ids].float().permute(0, 4, 1, 2, 3), data.boxes[ids])).view(CHECK, LATENTS, 12)[:, 1:].reshape(-1, 3)
    return [float(np.corrcoef(read[:, k], data.shapes(ids)[:, 0, 1:].reshape(-1, 3)[:, k])[0, 1]) for k in range(3)]


def main(minutes):
    from train_dit import Data

    torch.manual_seed(21)
    data, lips, clock, step = Data("clips"), Lips(), run.Clock(), 0
    opt, gen = torch.optim.AdamW(lips.parameters(), lr=0.0, weight_decay=0.01), torch.Generator().manual_seed(22)
    every = torch.ones(BATCH, LATENTS)
    while clock.tick() < minutes * 60:
        part = clock.used / (minutes * 60)
        for g in opt.param_groups:
            g["lr"] = RATE * min(1.0, (step + 1) / 50) * max(0.01, 1 - part)
        ids = torch.randint(CHECK, data.n, (BATCH,), generator=gen)
        z = data.z[ids].float().permute(0, 4, 1, 2, 3)
        z = z + 0.5 * torch.rand(BATCH, 1, 1, 1, 1, generator=gen) * torch.randn(z.shape, generator=gen)
        loss = distance(lips, z, data.boxes[ids], data.shapes(ids), every)
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        if step % 200 == 0:
            print("lips %d %.0fs loss %.4f unseen clips:" % (step, clock.used, loss.item()), *("%.3f" % r for r in measure(lips, data)), flush=True)
    run.save("lips.pt", version=data.base["version"], net=lips.state_dict())
    print("lips %d %.0fs unseen clips:" % (step, clock.used), *("%.3f" % r for r in measure(lips, data)), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
