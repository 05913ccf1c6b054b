"""The pipeline's colour correction: each frame's Lab means and deviations become those of the job's first picture."""
import numpy as np

TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE = np.array([0.95047, 1.0, 1.08883])


def to_lab(rgb):
    a = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = a @ TO_XYZ.T / WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def to_rgb(lab):
    y = (lab[..., 0] + 16) / 116
    f = np.stack([lab[..., 1] / 500 + y, y, np.maximum(y - lab[..., 2] / 200, 0)], -1)
    xyz = np.where(f > 0.2068966, f ** 3, (f - 16 / 116) / 7.787) * WHITE
    a = xyz @ np.linalg.inv(TO_XYZ).T
    return np.clip(np.where(a > 0.0031308, 1.055 * np.abs(a) ** (1 / 2.4) - 0.055, a * 12.92), 0, 1)


def match(frames, picture, strength=1.0):
    """frames [t, h, w, 3] and picture [h, w, 3] in -1..1."""
    want = to_lab((picture.astype(np.float64) + 1) / 2)
    rgb = np.clip((frames.astype(np.float64) + 1) / 2, 0, 1)
    lab = to_lab(rgb)
    mean, sd = lab.mean((1, 2), keepdims=True), lab.std((1, 2), keepdims=True)
    lab = (lab - mean) * (want.std((0, 1)) / np.maximum(sd, 1e-6)) + want.mean((0, 1))
    return (((1 - strength) * rgb + strength * to_rgb(lab)) * 2 - 1).astype(np.float32)
