"""Draws heads: a face is a dictionary of colours and lengths, a pose is ten numbers, a frame is 8-bit RGB.

All lengths are in 1/96 of the picture's height, so that one face draws at any size. The head turns a little (tilt about
the neck; yaw moves the features across the head), the jaw drops with the mouth, the shoulders follow the head. What the
mouth does is exactly (opening, width, roundness): this is the truth that reading the mouth off a frame is checked by.
"""
import colorsys
import math
import random

import cairo
import numpy as np

from config import SIZE

POSE = ["opening", "width", "roundness", "blink", "dx", "dy", "tilt", "yaw", "brow", "gaze"]
PAIR_SIZE = 0.82  # of heads in a picture of two
REST_POSE = [0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
SKINS = [(0.98, 0.85, 0.75), (0.95, 0.76, 0.61), (0.86, 0.65, 0.48), (0.70, 0.49, 0.34), (0.55, 0.37, 0.26), (0.42, 0.28, 0.20)]
HAIRS = [(0.10, 0.08, 0.07), (0.25, 0.15, 0.08), (0.42, 0.26, 0.12), (0.74, 0.57, 0.30), (0.56, 0.22, 0.10), (0.62, 0.62, 0.64), (0.90, 0.88, 0.85)]
HAIR_STYLES = ["short", "long", "cap", "bald", "parted", "curls", "bun"]


def shade(colour, k):
    return tuple(min(1.0, max(0.0, k * c)) for c in colour)


def brightness(colour):
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def face_new(seed, size=1.0):
    r = random.Random(seed * 31 + 7)
    u = r.uniform
    hsv = lambda h, s, v: colorsys.hsv_to_rgb(h % 1, s, v)
    skin = tuple(min(1, max(0, c + u(-0.03, 0.03))) for c in r.choice(SKINS))
    back = hsv(r.random(), u(0.08, 0.6), u(0.4, 0.97))
    while abs(brightness(back) - brightness(skin)) < 0.07:
        back = hsv(r.random(), u(0.08, 0.6), u(0.4, 0.97))
    hair = r.choice(HAIRS) if r.random() < 0.85 else hsv(r.random(), 0.6, 0.6)
    lip = (skin[0] * 0.4 + 0.4 + u(0, 0.1), skin[1] * 0.25 + 0.1, skin[2] * 0.25 + 0.12 + u(0, 0.05))
    return dict(
        skin=skin, back=back, back2=shade(back, u(0.68, 1.1)), scene=r.choice(["plain", "plain", "disc", "band"]),
        disc=(u(10, 86), u(8, 50), u(14, 34)), disc_colour=shade(back, r.choice([0.86, 1.12])),
        shirt=hsv(r.random(), u(0.2, 0.9), u(0.25, 0.92)), collar=r.choice(["round", "v", "stripe"]),
        hair=hair, style=r.choice(HAIR_STYLES), fringe=u(0.45, 0.75), beard=r.choice([""] * 8 + ["beard", "moustache"]),
        glasses=r.choice(["", "", "", "round", "square"]), frame=r.choice([(0.1, 0.1, 0.12), (0.45, 0.2, 0.1), (0.6, 0.1, 0.15)]),
        x=u(-2.5, 2.5), y=u(-3, 1), zoom=size * u(1.08, 1.26), rx=u(22.5, 27), ry=u(29.5, 34), chin=u(0.72, 1.02),
        eye_y=u(-7, -4), eye_x=u(9, 11.5), eye_r=u(3.4, 4.5), iris=hsv(r.choice([0.08, 0.55, 0.6, 0.3]), u(0.3, 0.7), u(0.25, 0.6)),
        nose=u(4, 7), nose_w=u(1.5, 3.2), mouth_y=u(15, 18), mouth_w=u(8.2, 10.5), mouth_h=u(6.0, 7.6), lip=shade(lip, 1.0),
        lip_w=u(1.3, 2.1), brow_w=u(1.2, 2.4), brow_slope=u(-0.12, 0.12), blush=r.random() < 0.3, earring=r.random() < 0.15)


def oval(c, x, y, rx, ry):
    c.save()
    c.translate(x, y)
    c.scale(max(rx, 0.05), max(ry, 0.05))
    c.new_sub_path()
    c.arc(0, 0, 1, 0, 2 * math.pi)
    c.restore()


def fill(c, colour, alpha=1.0):
    c.set_source_rgba(*colour, alpha)
    c.fill()


def stroke(c, colour, width):
    c.set_source_rgb(*colour)
    c.set_line_width(width)
    c.stroke()


def draw_scene(c, f, wide):
    g = cairo.LinearGradient(0, 0, 0, 96)
    g.add_color_stop_rgb(0, *f["back"])
    g.add_color_stop_rgb(1, *f["back2"])
    c.set_source(g)
    c.paint()
    if f["scene"] == "disc":
        oval(c, f["disc"][0] * wide / 96, *f["disc"][1:], f["disc"][2])
        fill(c, f["disc_colour"])
    elif f["scene"] == "band":
        c.rectangle(0, f["disc"][1], wide, f["disc"][2] * 0.5)
        fill(c, f["disc_colour"])


def draw_body(c, f, dx, dy):
    rx, ry = f["rx"], f["ry"]
    oval(c, dx * 0.3, 54 + dy * 0.4, 42, 25)
    fill(c, f["shirt"])
    if f["collar"] == "stripe":
        oval(c, dx * 0.3, 58 + dy * 0.4, 42, 20)
        fill(c, shade(f["shirt"], 0.75))
    c.rectangle(dx * 0.5 - 8, dy + ry * 0.55, 16, ry * 0.5)
    fill(c, shade(f["skin"], 0.84))
    if f["collar"] == "v":
        c.move_to(dx * 0.4 - 8.5, ry + dy * 0.4 - 1)
        c.line_to(dx * 0.4, ry + 11 + dy * 0.4)
        c.line_to(dx * 0.4 + 8.5, ry + dy * 0.4 - 1)
        stroke(c, shade(f["shirt"], 0.6), 2.0)


def draw_hair_behind(c, f):
    rx, ry, style = f["rx"], f["ry"], f["style"]
    if style == "long":
        oval(c, 0, -4, rx * 1.2, ry * 1.06)
        c.rectangle(-rx * 1.2, -4, rx * 2.4, ry)
    elif style == "curls":
        for i in range(9):
            a = math.pi * (1 + i / 8)
            oval(c, math.cos(a) * rx * 1.02, -5 + math.sin(a) * ry * 0.86, 7.5, 7.5)
    elif style != "bald":
        oval(c, 0, -5, rx * 1.1, ry * 0.98)
        if style == "bun":
            oval(c, 0, -ry * 1.08, 9, 8)
    fill(c, f["hair"])


def draw_head(c, f, opening):
    rx, ry = f["rx"], f["ry"]
    for s in (-1, 1):
        oval(c, s * rx * 0.98, 1, 3.4, 5)
        fill(c, shade(f["skin"], 0.84))
        if f["earring"]:
            oval(c, s * rx * 1.02, 7, 1.3, 1.3)
            fill(c, (0.9, 0.8, 0.3))
    jaw, j = ry + opening * 2.6, f["chin"] * rx
    c.move_to(-rx, -3)
    c.curve_to(-rx, -ry * 1.15, rx, -ry * 1.15, rx, -3)
    c.curve_to(rx, jaw * 0.55, j * 0.62, jaw, 0, jaw)
    c.curve_to(-j * 0.62, jaw, -rx, jaw * 0.55, -rx, -3)
    if f["beard"] == "beard":
        fill_then = c.copy_path()
        fill(c, f["skin"])
        c.save()
        c.append_path(fill_then)
        c.clip()
        c.move_to(-rx * 1.1, 6)
        c.curve_to(-rx * 0.6, 13, rx * 0.6, 13, rx * 1.1, 6)
        c.line_to(rx * 1.1, jaw + 4)
        c.line_to(-rx * 1.1, jaw + 4)
        fill(c, f["hair"], 0.75)
        c.restore()
    else:
        fill(c, f["skin"])


def draw_hair_front(c, f):
    rx, ry, style = f["rx"], f["ry"], f["style"]
    if style in ("short", "parted", "bun"):
        lean = {"short": 0.8, "parted": 0.1, "bun": 0.5}[style]
        c.move_to(-rx * 1.05, -2)
        c.curve_to(-rx * 1.1, -ry * 1.3, rx * 1.1, -ry * 1.3, rx * 1.05, -2)
        c.curve_to(rx * lean, -ry * 0.78, -rx * 0.25, -ry * f["fringe"], -rx * 1.05, -2)
    elif style == "long":
        c.move_to(-rx * 1.08, 0)
        c.curve_to(-rx * 1.1, -ry * 1.35, rx * 1.1, -ry * 1.35, rx * 1.08, 0)
        c.curve_to(rx * 0.7, -ry * 0.8, -rx * 0.7, -ry * 0.8, -rx * 1.08, 0)
    elif style in ("cap", "curls"):
        c.move_to(-rx * 1.02, -6)
        c.curve_to(-rx * 0.9, -ry * 1.3, rx * 0.9, -ry * 1.3, rx * 1.02, -6)
        c.line_to(rx * 0.7, -ry * f["fringe"])
        c.line_to(-rx * 0.7, -ry * f["fringe"])
        c.close_path()
    fill(c, f["hair"])


def draw_eyes(c, f, blink, yaw, brow, gaze):
    r, dark = f["eye_r"], shade(f["skin"], 0.45)
    open_ = max(0.12, 1 - blink)
    for s in (-1, 1):
        x, y = s * f["eye_x"] * (1 - 0.02 * s * yaw) + yaw, f["eye_y"]
        oval(c, x, y, r * 1.15, r * 0.8 * open_)
        fill(c, (1, 1, 1))
        if open_ > 0.3:
            oval(c, x + gaze, y, r * 0.58, r * 0.64 * open_)
            fill(c, f["iris"])
            oval(c, x + gaze, y, r * 0.3, r * 0.32 * open_)
            fill(c, (0.05, 0.05, 0.05))
        top = r * (0.3 - 1.35 * open_)
        c.move_to(x - r * 1.2, y + r * 0.15 * (1 - open_))
        c.curve_to(x - r * 0.5, y + top, x + r * 0.5, y + top, x + r * 1.2, y + r * 0.15 * (1 - open_))
        stroke(c, dark, 1.0)
        c.move_to(x - r * 1.3, y - r * 1.5 - brow + s * f["brow_slope"] * r * 1.3)
        c.line_to(x + r * 1.3, y - r * 1.5 - brow - s * f["brow_slope"] * r * 1.3)
        stroke(c, shade(f["hair"], 0.8), f["brow_w"])
        if f["glasses"] == "round":
            oval(c, x, y, r * 1.75, r * 1.6)
            stroke(c, f["frame"], 1.2)
        elif f["glasses"] == "square":
            c.rectangle(x - r * 1.7, y - r * 1.2, r * 3.4, r * 2.5)
            stroke(c, f["frame"], 1.3)
    if f["glasses"]:
        c.move_to(yaw - f["eye_x"] + r * 1.7, f["eye_y"])
        c.line_to(yaw + f["eye_x"] - r * 1.7, f["eye_y"])
        stroke(c, f["frame"], 1.2)


def draw_nose(c, f, yaw):
    x = yaw * 1.25
    c.move_to(x + 0.8, -1)
    c.line_to(x + f["nose_w"], f["nose"])
    c.line_to(x - f["nose_w"] * 0.6, f["nose"] + 0.6)
    stroke(c, shade(f["skin"], 0.74), 1.3)


def lips(c, x, y, half, up, low, extra):
    c.move_to(x - half - extra, y)
    c.curve_to(x - half * 0.45, y - up * 1.3 - extra * 1.35, x + half * 0.45, y - up * 1.3 - extra * 1.35, x + half + extra, y)
    c.curve_to(x + half * 0.5, y + low * 1.32 + extra * 1.55, x - half * 0.5, y + low * 1.32 + extra * 1.55, x - half - extra, y)
    c.close_path()


def draw_mouth(c, f, opening, width, roundness, yaw):
    x, y = yaw, f["mouth_y"]
    half = f["mouth_w"] * (0.5 + 0.5 * width) * (1 - 0.12 * roundness)
    tall = f["mouth_h"] * opening
    up, low = tall * 0.38, tall * 0.95
    if f["beard"]:
        c.move_to(x - 8.5, y - 2.5)
        c.curve_to(x - 4, y - 6.5, x + 4, y - 6.5, x + 8.5, y - 2.5)
        stroke(c, f["hair"], 2.6)
    lips(c, x, y, half, up, low, f["lip_w"])
    fill(c, f["lip"])
    if tall > 0.25:
        lips(c, x, y, half, up, low, 0)
        c.save()
        c.clip()
        c.set_source_rgb(0.22, 0.04, 0.06)
        c.paint()
        oval(c, x, y + low * 1.15, half * 0.55, low * 0.45)
        fill(c, (0.75, 0.32, 0.34))
        c.rectangle(x - half * 0.7, y - up * 1.4 - 1, half * 1.4, 1.3 + up * 0.75)
        fill(c, (0.97, 0.96, 0.93), min(1.0, max(0.0, width * 5 - 1)))
        c.restore()
    else:
        c.move_to(x - half, y)
        c.line_to(x + half, y)
        stroke(c, shade(f["lip"], 0.5), 0.8)


def draw_person(c, f, pose, x):
    """One person around the column x (in 1/96 of the height)."""
    opening, width, roundness, blink, dx, dy, tilt, yaw, brow, gaze = pose
    c.save()
    c.translate(x + f["x"], 45 + f["y"])
    c.scale(f["zoom"], f["zoom"])
    draw_body(c, f, dx, dy)
    c.translate(dx, dy)
    c.translate(0, f["ry"] * 0.8)
    c.rotate(tilt)
    c.translate(0, -f["ry"] * 0.8)
    draw_hair_behind(c, f)
    draw_head(c, f, opening)
    if f["blush"]:
        for s in (-1, 1):
            oval(c, s * f["rx"] * 0.6 + yaw, 8, 4, 3)
            fill(c, (0.9, 0.35, 0.35), 0.25)
    draw_hair_front(c, f)
    draw_nose(c, f, yaw)
    draw_eyes(c, f, blink, yaw, brow, gaze)
    draw_mouth(c, f, opening, width, roundness, yaw)
    c.restore()


def render(people, poses, wide=96, size=SIZE):
    """people [(face, column)], poses [people, n, 10] to u8 [n, size, size wide / 96, 3]; the first face owns the scene."""
    k = size / 96
    w = int(round(wide * k))
    surface = cairo.ImageSurface(cairo.FORMAT_RGB24, w, size)
    out = np.empty((len(poses[0]), size, w, 3), np.uint8)
    for i in range(len(out)):
        c = cairo.Context(surface)
        c.scale(k, k)
        draw_scene(c, people[0][0], wide)
        for (f, x), p in zip(people, poses):
            draw_person(c, f, p[i], x)
        surface.flush()
        out[i] = np.frombuffer(surface.get_data(), np.uint8).reshape(size, surface.get_stride() // 4, 4)[:, :w, 2::-1]
    return out


def portrait(f, poses, size=SIZE):
    return render([(f, 48)], [poses], 96, size)


def boxes(f, x=48, size=SIZE):
    """Where mouth and eyes move: two boxes (x0, x1, y0, y1) in pixels."""
    k, z, cx, cy = size / 96, f["zoom"], x + f["x"], 45 + f["y"]
    box = lambda y, w, up, down: [int(round(v * k)) for v in (cx - w * z, cx + w * z, cy + (y - up) * z, cy + (y + down) * z)]
    return box(f["mouth_y"], 13, 7, 11), box(f["eye_y"], 20, 9, 8)
