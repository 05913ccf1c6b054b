"""What the stages of training share: time budgets, states on disk, curves, a copy of the weights that moves slowly.

A state is written beside its final name and renamed, so that a stage that is killed at any moment goes on from its
last state. Budgets count seconds of computing (of the process, shared among its threads), in all runs of a stage: neither
a pause nor a neighbour on the same cores shortens a stage.
"""
import csv
import os
import time

import torch

from config import CURVES, state_path


def save(name, **parts):
    path = state_path(name)
    torch.save(parts, path + ".new")
    os.replace(path + ".new", path)


def load(name):
    path = state_path(name)
    return torch.load(path, weights_only=False) if os.path.exists(path) else None


class Curve:
    """A CSV in curves/: one row a measurement; rows behind the step that a stage resumes from are dropped."""

    def __init__(self, name, columns, step):
        os.makedirs(CURVES, exist_ok=True)
        self.path = os.path.join(CURVES, name + ".csv")
        rows = []
        if os.path.exists(self.path):
            with open(self.path, newline="") as f:
                rows = [r for r in list(csv.reader(f))[1:] if int(r[0]) <= step]
        with open(self.path, "w", newline="") as f:
            w = csv.writer(f, lineterminator="\n")
            w.writerow(["step", "seconds"] + columns)
            w.writerows(rows)

    def add(self, step, seconds, *values):
        with open(self.path, "a", newline="") as f:
            csv.writer(f, lineterminator="\n").writerow(
                [step, "%.0f" % seconds] + ["" if v is None else "%.5g" % v for v in values])


class Clock:
    def __init__(self, used=0.0):
        self.used, self.last = used, time.process_time()

    def tick(self):
        now = time.process_time()
        self.used += (now - self.last) / torch.get_num_threads()
        self.last = now
        return self.used

    def skip(self):
        """What was computed since the last tick does not count."""
        self.last = time.process_time()


class Pace:
    """Between steps: report() every 120 seconds of computing, keep() every 90 on the wall; both once more at the end()."""

    def __init__(self, clock, report, keep):
        self.clock, self.report, self.keep = clock, report, keep
        self.measured, self.kept = clock.used, time.monotonic()

    def step(self):
        if self.clock.used - self.measured > 120:
            self.report()
            self.measured = self.clock.used
        if time.monotonic() - self.kept > 90:
            self.keep()
            self.kept = time.monotonic()

    def end(self):
        self.report()
        self.keep()


class Slow:
    """An exponential mean of the weights, shorter at the start."""

    def __init__(self, net, keep):
        self.keep, self.n = keep, 0
        self.value = {k: p.detach().clone() for k, p in net.named_parameters()}

    @torch.no_grad()
    def update(self, net):
        self.n += 1
        keep = min(self.keep, self.n / (self.n + 19))
        for k, p in net.named_parameters():
            self.value[k].lerp_(p.detach(), 1 - keep)

    def state(self):
        return dict(n=self.n, value=self.value)

    def resume(self, state):
        self.n = state["n"]
        for k, v in state["value"].items():
            self.value[k].copy_(v)


class swapped:
    """with swapped(net, slow): the network computes with the slow weights."""

    def __init__(self, net, slow):
        self.net, self.slow = net, slow

    @torch.no_grad()
    def exchange(self):
        for k, p in self.net.named_parameters():
            held = p.detach().clone()
            p.copy_(self.slow.value[k])
            self.slow.value[k].copy_(held)

    def __enter__(self):
        self.exchange()

    def __exit__(self, *_):
        self.exchange()
