#!/usr/bin/env python3
"""One voice over eight videos: a batch of the daemon beside eight single renders, with the tiny model.

  bench/batch.py [--bin build/bin] [--videos 8] [--seconds 12] [--out bench/results/batch.csv]

Both on one worker at a time. Prints the two times, their ratio, and how often the worker encoded the voice in the batch; ends
with 1 unless the batch takes at least 30 % less time, the voice was encoded once, and the films are the same byte for byte."""
import argparse
import csv
import filecmp
import os
import platform
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run(*args, **more):
    subprocess.run(args, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)


def make(folder, n, seconds):
    videos = []
    for i in range(n):
        path = f"{folder}/video{i}.mp4"
        run("ffmpeg", "-y", "-loop", "1", "-i", f"{HERE}/deploy/media/portrait.png", "-t", "2", "-r", "25", "-vf",
            f"scale=256:256,hue=h={i * 30}", "-pix_fmt", "yuv420p", path)
        videos.append(path)
    voice = f"{folder}/voice.wav"
    run("ffmpeg", "-y", "-stream_loop", "-1", "-i", f"{HERE}/deploy/media/voice.wav", "-t", str(seconds), voice)
    return videos, voice


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("--bin", default=f"{HERE}/build/bin")
    a.add_argument("--videos", type=int, default=8)
    a.add_argument("--seconds", type=int, default=12)
    a.add_argument("--out")
    o = a.parse_args()
    longtake = f"{os.path.abspath(o.bin)}/longtake"
    with tempfile.TemporaryDirectory() as folder:
        model = f"{folder}/model"
        run(longtake, "weights", "synth", "--seed", "1", "-o", model)
        videos, voice = make(folder, o.videos, o.seconds)
        env = dict(os.environ, XDG_RUNTIME_DIR=folder, XDG_DATA_HOME=f"{folder}/data")
        os.mkdir(f"{folder}/data")
        os.mkdir(f"{folder}/films")
        begun = time.monotonic()
        for i, video in enumerate(videos):
            run(longtake, "render", "--model", model, "--video", video, "--audio", voice, "-o", f"{folder}/single{i}.mp4", env=env)
        single = time.monotonic() - begun
        begun = time.monotonic()
        daemon = subprocess.Popen([longtake, "serve", "--model", model], env=env, stderr=subprocess.DEVNULL)
        while subprocess.run([longtake, "list"], env=env, capture_output=True).returncode:
            time.sleep(0.02)
        run(longtake, "batch", "--audio", voice, "--videos", *videos, "-o", f"{folder}/films", env=env)
        batch = time.monotonic() - begun
        with open(f"{folder}/data/longtake/worker.log", encoding="utf-8") as f:
            encoded = sum("render.voice known=0" in line for line in f)
        daemon.terminate()
        daemon.wait()
        same = all(filecmp.cmp(f"{folder}/single{i}.mp4", f"{folder}/films/video{i}.mp4", shallow=False) for i in range(o.videos))
    commit = subprocess.run(["git", "-C", HERE, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    row = {"videos": o.videos, "seconds": o.seconds, "single_s": round(single, 2), "batch_s": round(batch, 2),
           "saved": round(1 - batch / single, 3), "voice_encoded": encoded, "same_bytes": same, "cores": os.cpu_count(),
           "machine": platform.machine(), "commit": commit}
    for f in [sys.stdout] + ([open(o.out, "w", newline="", encoding="utf-8")] if o.out else []):
        w = csv.DictWriter(f, row)
        w.writeheader()
        w.writerow(row)
    sys.exit(0 if row["saved"] >= 0.3 and encoded == 1 and same else 1)


main()
