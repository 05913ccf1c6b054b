#!/usr/bin/env python3
"""Puts together what a power cut has left of a folder, from what tests/powercut.c has noted.

  powercut.py FOLDER NOTES     FOLDER is replaced"""
import os
import shutil
import sys

folder, notes = sys.argv[1:]


def key_of(path):
    s = os.stat(path)
    out = os.popen(f"stat -c '%i %W %w' '{path}'").read().split()
    return f"{out[0]}-{out[1]}-{int(out[3].split('.')[1])}" if s else ""


def build(key, to):
    os.mkdir(to, 0o700)
    try:
        with open(f"{notes}/names/{key}", encoding="utf-8") as f:
            lines = f.read().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        kind, inner, name = line.split(" ", 2)
        if kind == "d":
            build(inner, f"{to}/{name}")
        elif kind == "f" and os.path.exists(f"{notes}/bytes/{inner}"):
            shutil.copy(f"{notes}/bytes/{inner}", f"{to}/{name}")
            os.chmod(f"{to}/{name}", 0o600)
        elif kind == "f":
            open(f"{to}/{name}", "wb").close()


key = key_of(folder)
build(key, folder + ".left")
shutil.rmtree(folder)
os.rename(folder + ".left", folder)
# the same bytes under new inodes: what is known of the old ones is over, the new ones are on disk
shutil.rmtree(notes)
os.makedirs(f"{notes}/names")
os.makedirs(f"{notes}/bytes")
for at, folders, files in os.walk(folder):
    with open(f"{notes}/names/{key_of(at)}", "w", encoding="utf-8") as f:
        for n in folders:
            f.write(f"d {key_of(at + '/' + n)} {n}\n")
        for n in files:
            f.write(f"f {key_of(at + '/' + n)} {n}\n")
    for n in files:
        shutil.copy(f"{at}/{n}", f"{notes}/bytes/{key_of(at + '/' + n)}")
