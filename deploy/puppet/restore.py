"""Puts the committed states of ckpt/ into a fresh state folder, so that training goes on from them.

ckpt/NAME.safetensors holds a stage's slow weights in f16 and, in its header, where the stage stood. Momentum is not
kept: it is found again within some tens of steps. `restore.py --write` makes ckpt/ from the state folder.
"""
import json
import os
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import run
from config import CKPT, STATE

STAGES = {"voice": ("step", "used"), "vae": ("stage", "used", "total", "step"), "dit": ("step", "used", "paired", "hears")}


def write():
    os.makedirs(CKPT, exist_ok=True)
    for name, fields in STAGES.items():
        state = run.load(name + ".pt")
        if not state:
            continue
        tensors = {k: v.to(torch.float16).contiguous() for k, v in state["slow"]["value"].items()}
        facts = {f: state[f] for f in fields}
        facts["n"] = state["slow"]["n"]
        path = os.path.join(CKPT, name + ".safetensors")
        save_file(tensors, path, {"state": json.dumps(facts)})
        os.chmod(path, 0o644)
        print(path, os.path.getsize(path), facts)


def read():
    for name in STAGES:
        source = os.path.join(CKPT, name + ".safetensors")
        if os.path.exists(os.path.join(STATE, name + ".pt")) or not os.path.exists(source):
            continue
        with safe_open(source, "pt") as f:
            facts = json.loads(f.metadata()["state"])
            value = {k: f.get_tensor(k).float() for k in f.keys()}
        slow = dict(n=facts.pop("n"), value=value)
        run.save(name + ".pt", now={k: v.clone() for k, v in value.items()}, slow=slow, opts=None, **facts)
        print("restored", name, facts)


if __name__ == "__main__":
    write() if "--write" in sys.argv else read()
