"""wav2vec2 at a small size, under its published tensor names.

wave [B, 640 m] -> seven convolutions (group norm per channel over time after the first) -> every second feature, which
is what the interpolation to m video frames gives for whole frames -> norm, projection -> positional convolution,
norm -> layers that normalise after adding. All layers' outputs are features: [B, m, layers, hidden].

The positional convolution runs as a product of spectra: its backward pass as a grouped convolution takes a hundred
times as long on a CPU. Window and shift: output t sees inputs t-64 to t+63. Its weight norm is one gain per tap, over outputs and inputs together.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

from config import VOICE
from sound import fft_size

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)


def box(**parts):
    m = nn.Module()
    for name, part in parts.items():
        setattr(m, name, part)
    return m


class Positional(nn.Module):
    def __init__(self, dim, taps, groups):
        super().__init__()
        self.groups, self.taps = groups, taps
        self.bias = nn.Parameter(torch.zeros(dim))
        self.weight_v = nn.Parameter(torch.randn(dim, dim // groups, taps) * (4 / (taps * dim)) ** 0.5)
        self.weight_g = nn.Parameter(self.weight_v.detach().pow(2).sum((0, 1), keepdim=True).sqrt())

    def forward(self, h):
        b, m, d = h.shape
        g, k, c = self.groups, self.taps, d // self.groups
        w = self.weight_g * self.weight_v / self.weight_v.pow(2).sum((0, 1), keepdim=True).sqrt()
        n = fft_size(m + k)
        hs = torch.fft.rfft(h.float(), n, dim=1).reshape(b, -1, g, c).permute(1, 2, 0, 3)  # f g B in
        ws = torch.fft.rfft(w.float().flip(2), n, dim=2).reshape(g, c, c, -1).permute(3, 0, 2, 1)  # f g in out
        o = torch.fft.irfft((hs @ ws).permute(2, 0, 1, 3).reshape(b, -1, d), n, dim=1)
        return o[:, k - 1 - k // 2:k - 1 - k // 2 + m] + self.bias


class Layer(nn.Module):
    def __init__(self, dim, heads, ffn):
        super().__init__()
        self.heads = heads
        self.attention = box(q_proj=nn.Linear(dim, dim), k_proj=nn.Linear(dim, dim), v_proj=nn.Linear(dim, dim),
                             out_proj=nn.Linear(dim, dim))
        self.layer_norm = nn.LayerNorm(dim)
        self.feed_forward = box(intermediate_dense=nn.Linear(dim, ffn), output_dense=nn.Linear(ffn, dim))
        self.final_layer_norm = nn.LayerNorm(dim)

    def forward(self, h):
        b, m, d = h.shape
        a, f = self.attention, self.feed_forward
        q, k, v = (p(h).reshape(b, m, self.heads, -1).transpose(1, 2) for p in (a.q_proj, a.k_proj, a.v_proj))
        o = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, m, d)
        h = self.layer_norm(h + a.out_proj(o))
        return self.final_layer_norm(h + f.output_dense(F.gelu(f.intermediate_dense(h))))


class Voice(nn.Module):
    def __init__(self, hidden, layers, heads, ffn, conv, taps, groups):
        super().__init__()
        convs = []
        for i, (k, s) in enumerate(zip(KERNELS, STRIDES)):
            c = box(conv=nn.Conv1d(conv if i else 1, conv, k, s, bias=False))
            nn.init.kaiming_normal_(c.conv.weight)
            if i == 0:
                c.layer_norm = nn.GroupNorm(conv, conv)
            convs.append(c)
        self.feature_extractor = box(conv_layers=nn.ModuleList(convs))
        self.feature_projection = box(layer_norm=nn.LayerNorm(conv), projection=nn.Linear(conv, hidden))
        self.encoder = box(pos_conv_embed=box(conv=Positional(hidden, taps, groups)), layer_norm=nn.LayerNorm(hidden),
                           layers=nn.ModuleList(Layer(hidden, heads, ffn) for _ in range(layers)))

    def forward(self, wave):
        x = wave[:, None]
        for c in self.feature_extractor.conv_layers:
            if hasattr(c, "layer_norm"):  # the first: samples keep all their bits
                with torch.autocast("cpu", enabled=False):
                    x = c.layer_norm(c.conv(x))
            else:
                x = c.conv(x)
            x = F.gelu(x)
        x = x[:, :, ::2].transpose(1, 2)
        h = self.feature_projection.projection(self.feature_projection.layer_norm(x))
        h = self.encoder.layer_norm(h + F.gelu(self.encoder.pos_conv_embed.conv(h)))
        out = []
        for layer in self.encoder.layers:
            h = layer(h)
            out.append(h)
        return torch.stack(out, 2)


def voice_new():
    return Voice(**VOICE)
