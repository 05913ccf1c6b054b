"""Weights that are not in order, for bad_input.sh. Files are replaced, never written into: they may be links.

  tensors.py drop|nan|short|narrow PATTERN FILE...   of every tensor whose name has the pattern: takes it away, fills it
                                                     with no numbers, takes its last row, keeps 16 columns of it
  tensors.py quanto|fp8 PATTERN FILE...              likewise: stores it as optimum-quanto does, or as 8-bit floats
  tensors.py nan-torch NAME FILE                     fills an entry of a PyTorch file with no numbers
  tensors.py lora KIND DIM FILE                      a LoRA of a model so wide, its first projection: good, nan, dora, lokr,
                                                     ranks, shape, stranger
"""
import json
import os
import re
import struct
import sys
import zipfile

SIZES = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
NAN = {"F32": b"\0\0\xc0\x7f", "BF16": b"\xc0\x7f", "F16": b"\0\x7e", "F64": b"\0" * 6 + b"\xf8\x7f"}


def replace(path, data):
    with open(path + ".new", "wb") as f:
        f.write(data)
    os.replace(path + ".new", path)


def read(path):
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8:8 + n])
    meta = head.pop("__metadata__", None)
    out = {}
    for name, t in head.items():
        a, b = t["data_offsets"]
        out[name] = [t["dtype"], t["shape"], data[8 + n + a:8 + n + b]]
    return out, meta


def write(path, tensors, meta=None):
    head, at = {"__metadata__": meta} if meta else {}, 0
    for name, (dtype, shape, data) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    replace(path, struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))


def change(verb, pattern, files):
    seen = 0
    for path in files:
        if path.endswith(".json"):
            index = json.load(open(path))
            hit = {k: v for k, v in index["weight_map"].items() if re.search(pattern, k)}
            if verb in ("drop", "quanto"):
                index["weight_map"] = {k: v for k, v in index["weight_map"].items() if k not in hit}
            if verb == "quanto":
                index["weight_map"].update({k + end: v for k, v in hit.items() for end in ("._data", "._scale")})
            replace(path, json.dumps(index).encode())
            continue
        tensors, meta = read(path)
        for name in [n for n in tensors if re.search(pattern, n)]:
            seen += 1
            dtype, shape, data = tensors[name]
            if verb == "drop":
                del tensors[name]
            elif verb == "nan":
                tensors[name][2] = NAN[dtype] * (len(data) // SIZES[dtype])
            elif verb == "quanto":
                del tensors[name]
                tensors[name + "._data"] = ["I8", shape, data[:len(data) // SIZES[dtype]]]
                tensors[name + "._scale"] = ["F32", [shape[0], 1], bytes(4 * shape[0])]
            elif verb == "fp8":
                tensors[name] = ["F8_E4M3", shape, data[:len(data) // SIZES[dtype]]]
            elif verb == "short":
                tensors[name] = [dtype, [shape[0] - 1] + shape[1:], data[:len(data) // shape[0] * (shape[0] - 1)]]
            elif verb == "narrow":
                row = len(data) // shape[0]
                tensors[name] = [dtype, [shape[0], 16] + shape[2:],
                                 b"".join(data[i * row:i * row + row // shape[1] * 16] for i in range(shape[0]))]
        write(path, tensors, meta)
    assert seen, f"no tensor has {pattern}"


def nan_torch(entry, path):
    old = zipfile.ZipFile(path)
    with zipfile.ZipFile(path + ".new", "w", zipfile.ZIP_STORED) as new:
        for i in old.infolist():
            data = old.read(i)
            new.writestr(i.filename, NAN["F32"] * (len(data) // 4) if i.filename.endswith(entry) else data)
    os.replace(path + ".new", path)


def lora(kind, dim, path):
    def floats(shape, value=0.01):
        n = 1
        for d in shape:
            n *= d
        return ["F32", shape, struct.pack(f"<{n}f", *[value] * n)]

    dim, rank = int(dim), 4
    stem = "diffusion_model.blocks.0.self_attn.q"
    t = {f"{stem}.lora_down.weight": floats([rank, dim]), f"{stem}.lora_up.weight": floats([dim, rank])}
    if kind == "nan":
        t[f"{stem}.lora_up.weight"] = floats([dim, rank], float("nan"))
    elif kind == "dora":
        t[f"{stem}.dora_scale"] = floats([dim, 1])
    elif kind == "lokr":
        t = {f"{stem}.lokr_w1": floats([4, 4]), f"{stem}.lokr_w2": floats([4, 4])}
    elif kind == "ranks":
        t[f"{stem}.lora_up.weight"] = floats([dim, rank + 1])
    elif kind == "shape":
        t[f"{stem}.lora_down.weight"] = floats([rank, dim + 8])
    elif kind == "stranger":
        t = {k.replace("blocks.0.self_attn.q", "input_blocks.1.attn1.to_q"): v for k, v in t.items()}
    write(path, t)


verb, rest = sys.argv[1], sys.argv[2:]
if verb == "lora":
    lora(*rest)
elif verb == "nan-torch":
    nan_torch(*rest)
else:
    change(verb, rest[0], rest[1:])
