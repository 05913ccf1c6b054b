"""The fused channel norm + SiLU of the VAE (fused.cpp), compiled on first use."""
import os

import torch
from torch.utils.cpp_extension import load

os.environ.setdefault("MAX_JOBS", "2")
_here = os.path.dirname(os.path.abspath(__file__))
_code = load("puppet_fused", [os.path.join(_here, "fused.cpp")], verbose=False,
             extra_cflags=["-O3", "-march=native", "-ffast-math", "-fopenmp"], extra_ldflags=["-fopenmp", "-lmvec"])


class NormSilu(torch.autograd.Function):
    """x [n, t, s, c], gain f32 [c] to silu(x / |x| sqrt(c) gain), with `pad` zero frames in front."""

    @staticmethod
    def forward(ctx, x, gain, pad):
        x, gain = x.contiguous(), gain.contiguous()
        y, inv = _code.forward(x, gain, pad)
        ctx.save_for_backward(x, gain, inv)
        ctx.pad = pad
        return y

    @staticmethod
    def backward(ctx, dy):
        x, gain, inv = ctx.saved_tensors
        dx, dg = _code.backward(x, gain, inv, dy.to(x.dtype).contiguous(), ctx.pad)
        return dx, dg, None


def norm_silu(x, gamma, pad):
    """x [n, t, h, w, c]."""
    n, t, h, w, c = x.shape
    return NormSilu.apply(x.reshape(n, t, h * w, c), gamma.reshape(c), pad).reshape(n, t + pad, h, w, c)
