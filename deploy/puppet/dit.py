"""The diffusion transformer at a small size, under its published tensor names, for training.

Text and picture cross-attention are left out here: the exported weights give them zero values, which is exactly the same
function (export.py). Identity comes from y, the reference's latents, and from the context latents inside x.

x, y [B, C, T, h, w]; patches 1 x 2 x 2, channel slowest. modulation order: shift, scale, gate of attention, then of the
feed-forward. Rotations turn neighbouring pairs, time first, then rows, then columns. Audio windows: five frames around
frame 0 for the first latent; for the others, of four frames, three of the first, the middle ones' centres, three of the
last, which together are eight frames in a row from 4j-5 on.

There are two sets of ears on one body: the adapter for one speaker, and `second`, for two. With two, a token belongs to the
speaker (or the background) whose region of the first frame it attends to most, mean over heads; it is turned to a place in
0..4, 20..24 or 12 by how strongly, the speakers' tokens to 2 and 22, so that it hears its own speaker. Nobody tells the
attention to look at its own region, so training adds a loss for it (`told`).
"""
import torch
import torch.nn as nn
import torch.nn.functional as F

from config import DIT
from voice import box


def angles(head, t, h, w):
    n = [(head - 4 * (head // 6)) // 2, head // 6, head // 6]
    f = lambda k, size: torch.arange(size).double()[:, None] * 10000.0 ** (-torch.arange(k).double() / k)
    a, b, c = (f(k, s) for k, s in zip(n, (t, h, w)))
    full = torch.cat([a[:, None, None].expand(t, h, w, -1), b[None, :, None].expand(t, h, w, -1),
                      c[None, None].expand(t, h, w, -1)], -1).reshape(t * h * w, -1)
    return full.cos().float(), full.sin().float()


def spin(x, turn):
    c, s = turn
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * c - odd * s, even * s + odd * c], -1).flatten(-2)


def turned(x, places):
    """x [B, H, L, head] turned by places [B or 1, L], as neighbouring pairs."""
    head = x.shape[-1]
    a = places[:, None, :, None] * 10000.0 ** (-torch.arange(0, head, 2).float() / head)
    return spin(x.float(), (a.cos(), a.sin()))


class Attend(torch.autograd.Function):
    """softmax(q k') v, all [..., rows, head]; plain products: the library's own attention costs twice as much at such sizes."""

    @staticmethod
    def forward(ctx, q, k, v):
        with torch.autocast("cpu", enabled=False):
            p = torch.softmax((q @ k.transpose(-1, -2)).mul_(q.shape[-1] ** -0.5), -1)
            ctx.save_for_backward(q, k, v, p)
            return p @ v

    @staticmethod
    def backward(ctx, do):
        q, k, v, p = ctx.saved_tensors
        do = do.contiguous()
        ds = torch.ops.aten._softmax_backward_data(do @ v.transpose(-1, -2), p, -1, p.dtype).mul_(q.shape[-1] ** -0.5)
        return ds @ k, ds.transpose(-1, -2) @ q, p.transpose(-1, -2) @ do


class Rms(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


def plain_norm(x):
    return F.layer_norm(x.float(), x.shape[-1:], eps=1e-6)


def sequence(**parts):
    m = nn.Module()
    for name, part in parts.items():
        m.add_module(name[1:], part)  # _0, _2 to "0", "2"
    return m


def ears(dim, audio_dim):
    """What a block hears with."""
    m = box(norm_x=nn.LayerNorm(dim, eps=1e-6),
            audio_cross_attn=box(q_linear=nn.Linear(dim, dim), kv_linear=nn.Linear(audio_dim, 2 * dim), proj=nn.Linear(dim, dim)))
    nn.init.normal_(m.audio_cross_attn.proj.weight, std=0.5 * dim ** -0.5)
    nn.init.zeros_(m.audio_cross_attn.proj.bias)
    return m


def projection(c):
    width = c["blocks"] * c["channels"]
    p = box(proj1=nn.Linear(5 * width, c["hidden"]), proj1_vf=nn.Linear(8 * width, c["hidden"]),
            proj2=nn.Linear(c["hidden"], c["hidden"]), proj3=nn.Linear(c["hidden"], c["tokens"] * c["audio_dim"]),
            norm=nn.LayerNorm(c["audio_dim"]))
    for m in (p.proj1, p.proj1_vf, p.proj2, p.proj3):
        nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
    return p


def owners(q, k, regions):
    """Places of all tokens [B, L] and how much each attends to each region [B, 3, L]; q, k turned, regions [B, 3, S]."""
    near = torch.softmax(q.float() @ k[:, :, :regions.shape[2]].float().transpose(-1, -2) * q.shape[-1] ** -0.5, -1).mean(1)
    share = (near @ regions.transpose(1, 2) / regions.sum(2).clamp(min=1)[:, None]).transpose(1, 2)
    two = share[:, :2].detach()
    low, high = two.amin(2, keepdim=True), two.amax(2, keepdim=True)
    place = (two - low) / (high - low + 1e-8) * 4 + torch.tensor([0.0, 20.0])[:, None]
    place = torch.cat([place, torch.full_like(place[:, :1], 12.0)], 1)
    return place.gather(1, share.argmax(1, keepdim=True))[:, 0], share


class Block(nn.Module):
    def __init__(self, dim, heads, ffn, audio_dim):
        super().__init__()
        self.heads = heads
        self.modulation = nn.Parameter(torch.zeros(1, 6, dim))
        self.modulation.data[:, [2, 5]] = 0.5
        self.self_attn = box(q=nn.Linear(dim, dim), k=nn.Linear(dim, dim), v=nn.Linear(dim, dim), o=nn.Linear(dim, dim),
                             norm_q=Rms(dim), norm_k=Rms(dim))
        for name, part in ears(dim, audio_dim).named_children():
            self.add_module(name, part)
        self.ffn = sequence(_0=nn.Linear(dim, ffn), _2=nn.Linear(ffn, dim))
        for m in (self.self_attn.o, self.ffn._modules["2"]):
            nn.init.normal_(m.weight, std=0.5 * m.in_features ** -0.5)
            nn.init.zeros_(m.bias)

    def hear(self, x, ear, audio, frames, place):
        """place: None, or where each token stands between two speakers [B, L]."""
        b, n, d = x.shape
        c, per = ear.audio_cross_attn, n // frames
        split = lambda t: t.reshape(b * frames, -1, self.heads, d // self.heads).transpose(1, 2)
        q = split(c.q_linear(ear.norm_x(x.float())))
        k, v = (split(t) for t in c.kv_linear(audio).chunk(2, -1))
        if place is not None:
            tokens = audio.shape[2] // 2
            q = turned(q, place.reshape(b * frames, per))
            k = turned(k, torch.tensor([[2.0] * tokens + [22.0] * tokens]))
        return c.proj(Attend.apply(q.to(v.dtype), k.to(v.dtype), v).transpose(1, 2).reshape(b, n, d))

    def forward(self, x, time, audio, turn, frames, ear, regions, told):
        b, n, d = x.shape
        split = lambda t: t.reshape(b, n, self.heads, d // self.heads).transpose(1, 2)
        m = (self.modulation + time).unsqueeze(2)  # B 6 1 D
        a, f = self.self_attn, self.ffn._modules
        h = plain_norm(x) * (1 + m[:, 1]) + m[:, 0]
        v = split(a.v(h))
        q, k = (spin(split(t), turn) for t in (a.norm_q(a.q(h)), a.norm_k(a.k(h))))
        place = None
        if regions is not None:
            place, share = owners(q, k, regions)
            told.append(share)
        o = Attend.apply(q.to(v.dtype), k.to(v.dtype), v).transpose(1, 2).reshape(b, n, d)
        x = x + a.o(o) * m[:, 2]
        x = x + self.hear(x, ear, audio, frames, place)
        h = plain_norm(x) * (1 + m[:, 4]) + m[:, 3]
        return x + f["2"](F.gelu(f["0"](h), approximate="tanh")) * m[:, 5]


class Dit(nn.Module):
    def __init__(self, c):
        super().__init__()
        dim = c["dim"]
        self.c, self.turns = c, {}
        self.patch_embedding = nn.Conv3d(c["in_dim"], dim, (1, 2, 2), (1, 2, 2))
        self.time_embedding = sequence(_0=nn.Linear(c["freq"], dim), _2=nn.Linear(dim, dim))
        self.time_projection = sequence(_1=nn.Linear(dim, 6 * dim))
        nn.init.zeros_(self.time_projection._modules["1"].weight)
        nn.init.zeros_(self.time_projection._modules["1"].bias)
        self.audio_proj = projection(c)
        self.blocks = nn.ModuleList(Block(dim, c["heads"], c["ffn"], c["audio_dim"]) for _ in range(c["layers"]))
        self.head = box(head=nn.Linear(dim, 4 * c["out_dim"]))
        self.head.modulation = nn.Parameter(torch.zeros(1, 2, dim))
        self.second = box(audio_proj=projection(c),
                          blocks=nn.ModuleList(ears(dim, c["audio_dim"]) for _ in range(c["layers"])))

    @torch.no_grad()
    def second_from_first(self):
        mine = dict(self.named_parameters())
        for name, p in self.second.named_parameters():
            p.copy_(mine[name])

    def listen(self, p, first, later):
        """first [B, 5 width], later [B, T-1, 8 width] to tokens [B, T, tokens, audio_dim]."""
        z = torch.cat([F.relu(p.proj1(first))[:, None], F.relu(p.proj1_vf(later))], 1)
        z = p.proj3(F.relu(p.proj2(z)))
        return p.norm(z.float().reshape(*z.shape[:2], self.c["tokens"], -1))

    def forward(self, x, y, t, first, later, regions=None, told=None):
        """Velocity; t [B] in 0..1000. Two speakers: first, later [B, 2, ...], regions [B, 3, rows x columns of tokens]."""
        b, _, n, h, w = x.shape
        key = (n, h // 2, w // 2)
        if key not in self.turns:
            self.turns[key] = angles(self.c["dim"] // self.c["heads"], *key)
        v = torch.cat([x, y], 1).reshape(b, -1, n, key[1], 2, key[2], 2).permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)
        z = F.linear(v, self.patch_embedding.weight.flatten(1), self.patch_embedding.bias).float()
        half = self.c["freq"] // 2
        a = t[:, None] * 10000.0 ** (-torch.arange(half).float() / half)
        e = self.time_embedding._modules["2"](F.silu(self.time_embedding._modules["0"](torch.cat([a.cos(), a.sin()], 1))))
        time = self.time_projection._modules["1"](F.silu(e)).float().reshape(b, 6, -1)
        told = [] if told is None else told
        if regions is None:
            body, audio = self, self.listen(self.audio_proj, first, later)
        else:
            body = self.second
            audio = torch.cat([self.listen(body.audio_proj, first[:, k], later[:, k]) for k in range(2)], 2)
        for block, ear in zip(self.blocks, body.blocks):
            z = block(z, time, audio, self.turns[key], n, ear, regions, told)
        m = (self.head.modulation + e.float()[:, None]).unsqueeze(2)
        o = self.head.head(plain_norm(z) * (1 + m[:, 1]) + m[:, 0])
        return o.float().reshape(b, n, key[1], key[2], 2, 2, -1).permute(0, 6, 1, 2, 4, 3, 5).reshape(b, -1, n, h, w)


@torch.no_grad()
def start(net):
    """The noisy latents pass through the first 64 channels to the head; y reaches the others."""
    dim, n = net.c["dim"], net.c["out_dim"]
    w = torch.randn(dim, net.c["in_dim"], 1, 2, 2) * 0.12
    w[:4 * n] = 0
    for c in range(n):
        for k in range(4):
            w[k * n + c, c, 0, k // 2, k % 2] = 1
    net.patch_embedding.weight.copy_(w)
    net.patch_embedding.bias.zero_()
    net.head.head.weight.normal_(std=0.005)
    net.head.head.weight[:, :4 * n] += torch.eye(4 * n) * 0.8
    net.head.head.bias.zero_()


def dit_new():
    net = Dit(DIT)
    start(net)
    return net


def windows(rows, start, frames):
    """rows [L, width]: what frames start.. hear, indices clamped: first [5 width], later [T-1, 8 width]."""
    take = lambda i: rows[i.clamp(0, len(rows) - 1)]
    first = take(start + torch.arange(-2, 3)).reshape(-1)
    j = torch.arange(1, (frames - 1) // 4 + 1)[:, None]
    return first, take(start + 4 * j - 5 + torch.arange(8)).flatten(1)
