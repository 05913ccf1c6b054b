"""The video VAE at a small size, under its published tensor names.

Everything is channels-last, [n, t, h, w, c], whole clips at once; the streaming original agrees with this. Time is
causal: a convolution sees two frames of zeros before the first. Frame 0 stands alone in the time resamplers. The
first frame's halves in `time_conv` of the decoder: channel c of the first half is frame 2i-1, of the second frame 2i.

Latents leave as raw means; per-channel mean and deviation are folded into conv1 and conv2 when weights are written
(export.py), so that the published table gives normalised latents here too.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

from config import VAE
from fused import norm_silu


def to_last(x):
    return x.permute(0, 2, 3, 4, 1)


def to_first(x):
    return x.permute(0, 4, 1, 2, 3)


def conv_gradients(ctx, dy, x, w, need_x):
    """Of a stride-1 convolution over x, w in channels-first views; the weights' gradient of small planes in f32.

    The CPU library's bf16 kernel for the gradient of the weights takes 10 to 200 times as long as the f32 one where
    planes have no more than 12 lines; elsewhere bf16 is faster.
    """
    back = lambda dy, x, w, mask: torch.ops.aten.convolution_backward(
        dy, x, w, None, [1] * ctx.axes, ctx.padding, [1] * ctx.axes, False, [0] * ctx.axes, 1, mask)
    dx = back(dy, x, w, [True, False, False])[0] if need_x else None
    if x.shape[-1] <= 12:
        dy32, x, w = dy.float(), x.float(), w.float()
        dw = back(dy32, x, w, [False, True, False])[1]
    else:
        dw = back(dy, x, w, [False, True, False])[1]
    return dx, dw.float(), dy.sum([0] + list(range(2, dy.dim()))).float()


class Convolve(torch.autograd.Function):
    """Channels-last x [..., h, w, c], 2-D or 3-D; in bf16 under autocast."""

    @staticmethod
    def forward(ctx, x, w, b, padding):
        fast = torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", enabled=False):
            t = torch.bfloat16 if fast else x.dtype
            x, wt, bt = x.to(t), w.to(t), b.to(t)
            ctx.axes, ctx.padding = w.dim() - 2, list(padding)
            first = x.movedim(-1, 1)
            y = (F.conv3d if ctx.axes == 3 else F.conv2d)(first, wt, bt, padding=padding)
        ctx.save_for_backward(first, wt)
        return y.movedim(1, -1).contiguous()

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        dx, dw, db = conv_gradients(ctx, dy.to(x.dtype).contiguous().movedim(-1, 1), x, w, ctx.needs_input_grad[0])
        return dx.movedim(1, -1) if dx is not None else None, dw, db, None


class Conv3(nn.Conv3d):
    """Causal; `padded`: two frames of zeros stand in front already."""

    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out, 3)

    def forward(self, x, padded=False):
        if x.shape[1] == (3 if padded else 1):  # one frame: the older taps see zeros
            return Convolve.apply(x[:, -1], self.weight[:, :, -1], self.bias, (1, 1))[:, None]
        if not padded:
            x = F.pad(x, (0, 0, 0, 0, 0, 0, 2, 0))
        return Convolve.apply(x, self.weight, self.bias, (0, 1, 1))


class Conv1(nn.Conv3d):
    def __init__(self, c_in, c_out):
        super().__init__(c_in, c_out, 1)

    def forward(self, x):
        return F.linear(x, self.weight[:, :, 0, 0, 0], self.bias)


class Time(nn.Conv3d):
    """Three frames to one, `stride` apart."""

    def __init__(self, c_in, c_out, stride):
        super().__init__(c_in, c_out, (3, 1, 1))
        self.step = stride

    def forward(self, x):
        return to_last(F.conv3d(to_first(x), self.weight, self.bias, stride=(self.step, 1, 1)))


class Gain(nn.Module):
    def __init__(self, c, axes):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(c, *[1] * axes))


class Res(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.residual = nn.Module()
        for name, part in (("0", Gain(c_in, 3)), ("2", Conv3(c_in, c_out)), ("3", Gain(c_out, 3)), ("6", Conv3(c_out, c_out))):
            self.residual.add_module(name, part)
        self.shortcut = Conv1(c_in, c_out) if c_in != c_out else None

    def forward(self, x):
        r = self.residual._modules
        h = r["2"](norm_silu(x, r["0"].gamma, 2), True)
        h = r["6"](norm_silu(h, r["3"].gamma, 2), True)
        return h + (x if self.shortcut is None else self.shortcut(x))


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm, self.to_qkv, self.proj = Gain(c, 2), nn.Conv2d(c, 3 * c, 1), nn.Conv2d(c, c, 1)

    def forward(self, x):
        n, t, h, w, c = x.shape
        y = (F.normalize(x.float(), dim=-1) * c ** 0.5 * self.norm.gamma.reshape(c)).reshape(n * t, 1, h * w, c)
        q, k, v = F.linear(y, self.to_qkv.weight[:, :, 0, 0], self.to_qkv.bias).chunk(3, -1)
        o = F.scaled_dot_product_attention(q, k, v).reshape(n, t, h, w, c)
        return x + F.linear(o, self.proj.weight[:, :, 0, 0], self.proj.bias)


def plane(conv, x, **how):
    n, t, h, w, c = x.shape
    x = x.reshape(n * t, h, w, c)
    if "stride" in how:
        y = F.conv2d(x.permute(0, 3, 1, 2), conv.weight, conv.bias, **how).permute(0, 2, 3, 1)
    else:
        y = Convolve.apply(x, conv.weight, conv.bias, (1, 1))
    return y.reshape(n, t, *y.shape[1:])


class Down(nn.Module):
    def __init__(self, c, in_time):
        super().__init__()
        self.resample = nn.Module()
        self.resample.add_module("1", nn.Conv2d(c, c, 3))
        self.time_conv = Time(c, c, 2) if in_time else None

    def forward(self, x):
        x = plane(self.resample._modules["1"], F.pad(x, (0, 0, 0, 1, 0, 1)), stride=2)
        if self.time_conv is not None and x.shape[1] > 1:
            x = torch.cat([x[:, :1], self.time_conv(x)], 1)
        return x


class Up(nn.Module):
    def __init__(self, c, in_time):
        super().__init__()
        self.resample = nn.Module()
        self.resample.add_module("1", nn.Conv2d(c, c // 2, 3))
        self.time_conv = Time(c, 2 * c, 1) if in_time else None

    def forward(self, x):
        if self.time_conv is not None and x.shape[1] > 1:
            y = self.time_conv(F.pad(x[:, 1:], (0, 0, 0, 0, 0, 0, 2, 0)))
            n, t, h, w, c = y.shape
            y = y.reshape(n, t, h, w, 2, c // 2).permute(0, 1, 4, 2, 3, 5).reshape(n, 2 * t, h, w, c // 2)
            x = torch.cat([x[:, :1], y], 1)
        n, t, h, w, c = x.shape
        x = x[:, :, :, None, :, None].expand(n, t, h, 2, w, 2, c).reshape(n, t, 2 * h, 2 * w, c)
        return plane(self.resample._modules["1"], x)


class Half(nn.Module):
    """conv1, then the layers of both parts in order, then the head."""

    def __init__(self, first, second, c_in, c_first, c_last, c_out):
        super().__init__()
        self.conv1 = Conv3(c_in, c_first)
        for name, layers in (first, second):
            self.add_module(name, nn.ModuleList(layers))
        self.order = [first[0], second[0]]
        self.head = nn.Module()
        self.head.add_module("0", Gain(c_last, 3))
        self.head.add_module("2", Conv3(c_last, c_out))

    def forward(self, x):
        x = self.conv1(x)
        for name in self.order:
            for layer in self._modules[name]:
                x = layer(x)
        return self.head._modules["2"](norm_silu(x, self.head._modules["0"].gamma, 2), True)


class Vae(nn.Module):
    def __init__(self, dim, z):
        super().__init__()
        width, top = [dim, 2 * dim, 4 * dim, 4 * dim], 4 * dim
        downs, c = [], dim
        for i, w in enumerate(width):
            downs += [Res(c, w), Res(w, w)]
            c = w
            if i < 3:
                downs.append(Down(c, i > 0))
        ups, c = [], top
        for i, w in enumerate(width[::-1]):
            ups += [Res(c, w), Res(w, w), Res(w, w)]
            c = w
            if i < 3:
                ups.append(Up(c, i < 2))
                c //= 2
        middle = lambda: [Res(top, top), Attention(top), Res(top, top)]
        self.z = z
        self.encoder = Half(("downsamples", downs), ("middle", middle()), 3, dim, top, 2 * z)
        self.conv1, self.conv2 = Conv1(2 * z, 2 * z), Conv1(z, z)
        self.decoder = Half(("middle", middle()), ("upsamples", ups), z, top, dim, 3)

    def encode(self, x):
        """Pixels [n, t, h, w, 3] in -1..1 to raw mean and log variance [n, 1 + (t-1)/4, h/8, w/8, z]."""
        return self.conv1(self.encoder(x)).chunk(2, -1)

    def decode(self, z):
        return self.decoder(self.conv2(z))


@torch.no_grad()
def start(net):
    """Newest tap first; time resamplers that copy or average; hardly any noise in the latents."""
    for name, p in net.named_parameters():
        if p.dim() == 5 and p.shape[2:] == (3, 3, 3):
            p[:, :, :2] *= 0.1
            p[:, :, 2] *= 1.7
            if "residual.6" in name:
                p *= 0.3
        elif "proj.weight" in name:
            p *= 0.1
        elif "time_conv.weight" in name:
            p *= 0.3
            n = p.shape[1]
            if p.shape[0] == 2 * n:
                p[:n, :, 2, 0, 0] += torch.eye(n)
                p[n:, :, 2, 0, 0] += torch.eye(n)
            else:
                p[:, :, 1, 0, 0] += torch.eye(n) * 0.5
                p[:, :, 2, 0, 0] += torch.eye(n) * 0.5
    net.conv1.weight[net.z:] *= 0.1
    net.conv1.bias[net.z:] = -6


def vae_new():
    net = Vae(**VAE)
    start(net)
    return net
