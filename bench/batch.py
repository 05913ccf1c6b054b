#!/usr/bin/env python3
"""One voice over eight videos: a batch of the daemon beside eight single renders, with the tiny model.

  bench/batch.py [--videos 8] [--seconds 5] [--bin build/bin] [--out bench/results/batch.csv]

The eight are what somebody without a batch would type, `longtake render --model M --video V --audio A -o O`, one after the
other. The batch is a daemon that is started, given `longtake batch --audio A --videos V... -o FOLDER`, and ended, on one worker.
Counted are the wall and, since that says little on a machine that does other work too, the seconds of CPU of all processes that
were started, clients, decoders and workers with them. A row also says how often the batch encoded the voice; the last line is
what was wanted: at least 30 % less, the voice encoded once, the same films byte for byte. Ends with 1 where one is missed; the
30 % are held against the CPU where the machine had other work, against both else. Builds what it runs, unless --bin names it; the row goes
to bench/results/batch-<CPU>-<commit>.csv, and from there into the README by `bench/table.py --coordinator --readme`."""
import argparse
import ctypes
import filecmp
import os
import resource
import subprocess
import sys
import tempfile
import time

import share

PR_SET_CHILD_SUBREAPER = 36
HERE = share.HERE


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


def family_cpu():
    """Seconds of CPU, in user and system, of all processes that this one has started, theirs included, and that are over."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            u = resource.getrusage(resource.RUSAGE_CHILDREN)
            return u.ru_utime + u.ru_stime


class Spent:
    """Time on the wall and of the CPUs since it was made."""

    def __init__(self):
        self.cpu, self.wall = family_cpu(), time.monotonic()

    def so_far(self):
        wall = time.monotonic() - self.wall
        return wall, family_cpu() - self.cpu


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("--bin")
    a.add_argument("--videos", type=int, default=8)
    a.add_argument("--seconds", type=int, default=5)
    a.add_argument("--out")
    o = a.parse_args()
    load = os.getloadavg()[0]
    longtake = f"{os.path.abspath(o.bin or share.built('longtake', 'longtake-worker'))}/longtake"
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        sys.exit("this kernel does not leave orphans to us, so not all that was spent could be counted")
    with tempfile.TemporaryDirectory() as folder:
        model = f"{folder}/model"
        run(longtake, "weights", "synth", "--seed", "1", "-o", model)
        videos, voice = make(folder, o.videos, o.seconds)
        env = dict(os.environ, XDG_RUNTIME_DIR=folder, XDG_DATA_HOME=f"{folder}/data")
        env.setdefault("GOMP_SPINCOUNT", "1000")  # a thread that waits is no work, and would be counted as such
        os.mkdir(f"{folder}/data")
        os.mkdir(f"{folder}/films")
        spent = Spent()
        for i, video in enumerate(videos):
            run(longtake, "render", "--model", model, "--video", video, "--audio", voice, "-o", f"{folder}/single{i}.mp4", env=env)
        single_s, single_cpu_s = spent.so_far()
        spent = Spent()
        daemon = subprocess.Popen([longtake, "serve", "--model", model], env=env, stderr=subprocess.DEVNULL)
        while subprocess.run([longtake, "list"], env=env, capture_output=True).returncode:
            time.sleep(0.02)
        run(longtake, "batch", "--audio", voice, "--videos", *videos, "-o", f"{folder}/films", env=env)
        with open(f"{folder}/data/longtake/worker.log", encoding="utf-8") as f:
            encoded = sum("render.voice known=0" in line for line in f)
        daemon.terminate()
        daemon.wait()
        batch_s, batch_cpu_s = spent.so_far()
        same = all(filecmp.cmp(f"{folder}/single{i}.mp4", f"{folder}/films/video{i}.mp4", shallow=False) for i in range(o.videos))
    row = {"videos": o.videos, "seconds": o.seconds, "single_s": round(single_s, 2), "batch_s": round(batch_s, 2),
           "saved": round(1 - batch_s / single_s, 3), "single_cpu_s": round(single_cpu_s, 2), "batch_cpu_s": round(batch_cpu_s, 2),
           "saved_cpu": round(1 - batch_cpu_s / single_cpu_s, 3), "voice_encoded": encoded, "same_bytes": same}
    share.put("batch", [row], load, o.out)
    quick = row["saved_cpu"] >= 0.3 and (load > 0.5 or row["saved"] >= 0.3)
    good = quick and encoded == 1 and same
    print(f"batch: {'as it should be' if good else 'NOT as it should be'}"
          f"{', the wall left out: the machine was busy (' + f'{load:.2f}' + ')' if load > 0.5 else ''}")
    sys.exit(0 if good else 1)


main()
