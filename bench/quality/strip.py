#!/usr/bin/env python3
"""A strip of a film's frames under the waveform of its sound: `strip.py FILM.mp4 OUT.png [FROM [TO [FRAMES]]]` (seconds).

Needs numpy, pycairo and ffmpeg.
"""
import subprocess
import sys

import cairo
import numpy as np

WIDE, HIGH = 1152, 72  # of the waveform


def run(*args):
    return subprocess.run(["ffmpeg", "-v", "error", *args, "-"], capture_output=True, check=True).stdout


def size_of(path):
    out = subprocess.run(["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width,height", "-of", "csv=p=0", path],
                         capture_output=True, check=True, text=True).stdout
    return [int(v) for v in out.strip().split(",")[:2]]


def main(film, out, first=0.0, last=None, count=12):
    w, h = size_of(film)
    frames = np.frombuffer(run("-i", film, "-f", "rawvideo", "-pix_fmt", "rgb24"), np.uint8).reshape(-1, h, w, 3)
    sound = np.frombuffer(run("-i", film, "-ac", "1", "-ar", "16000", "-f", "f32le"), np.float32)
    first, last = int(first * 25), int(last * 25) if last else len(frames)
    last = min(last, len(frames))
    wide = WIDE // count
    high = h * wide // w
    surface = cairo.ImageSurface(cairo.FORMAT_RGB24, wide * count, HIGH + high)
    c = cairo.Context(surface)
    c.set_source_rgb(1, 1, 1)
    c.paint()
    part = sound[first * 640:last * 640]
    columns = np.array_split(part, wide * count)
    top = np.abs(part).max() + 1e-9
    c.set_source_rgb(0.25, 0.35, 0.55)
    for x, v in enumerate(columns):
        a = np.abs(v).max() / top * (HIGH / 2 - 2) if len(v) else 0
        c.rectangle(x, HIGH / 2 - a, 1, max(1, 2 * a))
    c.fill()
    for k in range(count):  # each frame stands under the middle of its part of the sound
        frame = frames[first + int((k + 0.5) * (last - first) / count)]
        data = np.zeros((h, w, 4), np.uint8)
        data[..., 2::-1] = frame
        image = cairo.ImageSurface.create_for_data(bytearray(data.tobytes()), cairo.FORMAT_RGB24, w, h)
        c.save()
        c.translate(k * wide, HIGH)
        c.scale(wide / w, high / h)
        c.set_source_surface(image)
        c.paint()
        c.restore()
    surface.write_to_png(out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *(float(v) for v in sys.argv[3:5]), *(int(v) for v in sys.argv[5:6]))
