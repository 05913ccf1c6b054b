"""Makes synthetic speech sound like a recording: rooms, microphones, telephones, noise, other people.

Everything linear happens in one product of spectra: a smooth random curve of gains, a band limit in some of the
pieces, and a room (a direct sound and an exponentially dying tail). Then noise of a random colour, sometimes another
voice far below, sometimes a soft limiter. The first layer of the network normalises the gain of a whole track away, so
gain alone needs little.
"""
import torch

RATE = 16000
ROOM = 8000  # samples of a room's tail


def fft_size(n):
    """The next size that has no prime factor above 5."""
    while True:
        m = n
        for p in (2, 3, 5):
            while m % p == 0:
                m //= p
        if m == 1:
            return n
        n += 1


def uniform(n, low, high, gen):
    return torch.rand(n, generator=gen) * (high - low) + low


def chance(n, p, gen):
    return torch.rand(n, generator=gen) < p


def curves(n, bins, gen):
    """Gains [n, bins]: random by up to 9 dB at ten points of a logarithmic axis, straight between them."""
    points = 10
    db = torch.randn(n, points, generator=gen).clamp(-2.5, 2.5) * 4.0
    hz = torch.arange(bins) / (bins - 1) * (RATE / 2)
    at = (torch.log2(hz.clamp(min=50) / 50) / 7.33 * (points - 1)).clamp(0, points - 1.001)
    i = at.long()
    f = at - i
    return 10 ** ((db[:, i] * (1 - f) + db[:, i + 1] * f) / 20)


def bands(n, bins, gen):
    """A low and a high cut of fourth order, each in a part of the pieces."""
    hz = torch.arange(bins)[None] / (bins - 1) * (RATE / 2)
    low = torch.where(chance(n, 0.5, gen), uniform(n, 40, 350, gen), torch.full((n,), 1.0))[:, None]
    high = torch.where(chance(n, 0.4, gen), uniform(n, 2500, 7500, gen), torch.full((n,), 1e6))[:, None]
    return 1 / torch.sqrt(1 + (low / hz.clamp(min=1)) ** 8) / torch.sqrt(1 + (hz / high) ** 8)


def rooms(n, gen):
    """Impulse responses [n, ROOM]: one, then noise that loses 60 dB in 0.1 to 0.7 s."""
    seconds = uniform(n, 0.1, 0.7, gen)[:, None]
    t = torch.arange(ROOM)[None] / RATE
    tail = torch.randn(n, ROOM, generator=gen) * torch.exp(-6.9 * t / seconds)
    tail[:, :20] = 0
    tail = tail / tail.pow(2).sum(1, keepdim=True).sqrt()
    wet = torch.where(chance(n, 0.6, gen), uniform(n, -18, 3, gen), torch.full((n,), -60.0))
    tail *= 10 ** (wet / 20)[:, None]
    tail[:, 0] += 1
    return tail


def noises(n, length, gen):
    """Noise [n, length] of unit power, from white to brown, sometimes with mains hum."""
    size = fft_size(length)
    white = torch.fft.rfft(torch.randn(n, size, generator=gen))
    hz = torch.arange(white.shape[1])[None].float().clamp(min=20 * size / RATE)
    slope = uniform(n, 0, 1.0, gen)[:, None]
    x = torch.fft.irfft(white / hz ** slope, size)[:, :length]
    x = x / x.pow(2).mean(1, keepdim=True).sqrt()
    mains = torch.where(chance(n, 0.5, gen), 50.0, 60.0)[:, None]
    t = torch.arange(length)[None] / RATE
    hum = sum(torch.sin(2 * torch.pi * k * mains * t) / k for k in (1, 2, 3))
    return x + hum * torch.where(chance(n, 0.15, gen), 0.7, 0.0)[:, None]


def record(wave, gen):
    """wave f32 [n, samples], clean, to the same as if recorded; time stays."""
    n, length = wave.shape
    size = fft_size(length + ROOM)
    h = torch.fft.rfft(rooms(n, gen), size)
    h = h * curves(n, h.shape[1], gen) * bands(n, h.shape[1], gen)
    out = torch.fft.irfft(torch.fft.rfft(wave, size) * h, size)[:, :length]
    level = out.pow(2).mean(1, keepdim=True).sqrt() + 1e-6
    snr = torch.where(chance(n, 0.85, gen), uniform(n, 5, 45, gen), torch.full((n,), 60.0))[:, None]
    out = out + noises(n, length, gen) * level * 10 ** (-snr / 20)
    if n > 1:
        far = torch.where(chance(n, 0.2, gen), uniform(n, -35, -12, gen), torch.full((n,), -90.0))[:, None]
        other = wave.roll(1, 0)
        out = out + other / (other.pow(2).mean(1, keepdim=True).sqrt() + 1e-6) * level * 10 ** (far / 20)
    peak = out.abs().amax(1, keepdim=True) + 1e-6
    drive = torch.where(chance(n, 0.15, gen), uniform(n, 1.5, 4, gen), torch.full((n,), 1e-3))[:, None] / peak
    out = torch.tanh(out * drive) / drive
    return out / peak * uniform(n, 0.05, 0.9, gen)[:, None]
