"""Muon: momentum, then the nearest orthogonal matrix instead of the step itself.

Orthogonalised by five rounds of a Newton-Schulz polynomial in bf16; the coefficients let singular values settle near 1
rather than at 1, which is all that a step needs. A kernel is taken as [out, everything else].
"""
import torch


def orthogonal(g, rounds=5):
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (g.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = (x.t() if tall else x).contiguous().bfloat16()
    for _ in range(rounds):
        s = x @ x.t()
        x = a * x + (b * s + c * (s @ s)) @ x
    return (x.t() if tall else x).float()


class Muon(torch.optim.Optimizer):
    def __init__(self, params, lr, momentum=0.95, decay=0.0):
        super().__init__(params, dict(lr=lr, momentum=momentum, decay=decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                m, mu = state["momentum"], group["momentum"]
                m.mul_(mu).add_(p.grad, alpha=1 - mu)
                u = orthogonal((p.grad * (1 - mu) + m * mu).reshape(p.shape[0], -1))
                p.mul_(1 - group["lr"] * group["decay"])
                p.add_(u.reshape(p.shape), alpha=-group["lr"] * max(1, u.shape[0] / u.shape[1]) ** 0.5)
