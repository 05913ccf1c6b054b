"""Muon: momentum, then the nearest orthogonal matrix instead of the step itself.

Orthogonalised by five rounds of a Newton-Schulz polynomial in bf16; the coefficients let singular values settle near 1
rather than at 1, which is all that a step needs. A kernel is taken as [out, everything else]. Matrices of one shape go together.

For long kernels, such as 64 x 1728, the rounds run on the small square s = x x' instead, because the polynomial of x is
(a + b s + c s^2) x and so all factors of x commute: x is read twice instead of ten times.
"""
import collections

import torch

A, B, C, ROUNDS = 3.4445, -4.7750, 2.0315, 5


def by_square(x):
    s = x @ x.transpose(1, 2)
    size = s.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] + 1e-14
    s, one = s / size, torch.eye(s.shape[1])
    q = one / size.sqrt()
    for k in range(ROUNDS):
        p = A * one + B * s + C * (s @ s)
        q = p @ q
        if k + 1 < ROUNDS:
            s = p @ s @ p
    return q @ x


def orthogonal(x):
    """x [n, rows, columns], rows <= columns."""
    if x.shape[2] > 6 * x.shape[1]:
        return by_square(x)
    x = (x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)).bfloat16()
    for _ in range(ROUNDS):
        s = x @ x.transpose(1, 2)
        x = A * x + (B * s + C * (s @ s)) @ x
    return x.float()


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr, momentum=0.95, decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, decay=decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            mu, alike = group["momentum"], collections.defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                m = state["momentum"].mul_(mu).add_(p.grad, alpha=1 - mu)
                u = (p.grad * (1 - mu) + m * mu).reshape(p.shape[0], -1)
                tall = u.shape[0] > u.shape[1]
                u = u.t() if tall else u
                alike[(*u.shape, tall)].append((p, u))
            for (rows, columns, tall), some in alike.items():
                rate = group["lr"] * (columns / rows) ** (0.5 * tall)
                for (p, _), u in zip(some, orthogonal(torch.stack([u for _, u in some]))):
                    p.mul_(1 - group["lr"] * group["decay"])
                    p.add_((u.t() if tall else u).reshape(p.shape), alpha=-rate)
