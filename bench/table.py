#!/usr/bin/env python3
"""The README's table of speed, from the results of one bench/run.sh.

  bench/table.py [RUN] [--results bench/results] [--readme]

RUN is what the files of a run have in common, <CPU>-<commit>; without it, the run that the README shows. Prints Markdown;
--readme puts it between the two marks in README.md instead. Files that are missing leave their part out."""
import argparse
import csv
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OPEN, CLOSE = re.compile(r"<!-- speed: (\S+) -->"), "<!-- end of speed -->"

# One block of the 14B network over 3,120 tokens: how often each row occurs in it.
BLOCK = {"dit q/k/v/o": 8, "dit ffn in + gelu": 1, "dit ffn out": 1, "dit self attention": 1, "dit words": 1, "dit picture": 1,
         "dit voice": 1, "norm + modulate": 1}


def read(folder, kind, run):
    """(comment lines, rows as dictionaries), both empty when there is no such file."""
    try:
        with open(os.path.join(folder, f"{kind}-{run}.csv")) as f:
            lines = f.read().splitlines()
    except FileNotFoundError:
        return [], []
    return [x[2:] for x in lines if x.startswith("#")], list(csv.DictReader(x for x in lines if x and not x.startswith("#")))


def ms(text):
    if not text:
        return ""
    v = float(text)
    return f"{v:,.0f}" if v >= 100 else f"{v:.1f}" if v >= 10 else f"{v:.2f}"


def said(comments, key):
    return next((c.split(": ", 1)[1] for c in comments if c.startswith(key + ": ")), "")


def models_table(models, peer):
    by_parts = sum(BLOCK[r["op"]] * float(r["ggml_ms"]) for r in peer
                   if r["op"] in BLOCK and r["dtype"] == "BF16" and r.get("ggml_ms"))
    whole = {r["op"] for r in peer if r["op"] in BLOCK and r["dtype"] == "BF16" and r.get("ggml_ms")} == set(BLOCK)
    yield "| network | size | dtype | ours, ms | PyTorch, ms | PyTorch / ours | ggml by parts / ours |"
    yield "|---|---|---|---|---|---|---|"
    for r in models:
        parts = f"{by_parts / float(r['ours_ms']):.2f}" if whole and r["model"].startswith("dit") else ""
        yield (f"| {r['model']} | {r['shape']} | {r['dtype']} | {ms(r['ours_ms'])} | {ms(r['torch_ms'])} ({r['torch_way']}) | "
               f"{r['torch_over_ours']} | {parts} |")


def ops_table(ops, peer):
    beside = {(r["op"], r["dtype"], r["shape"]): r for r in peer}
    yield "| op | shape | dtype | ms | rate | of the roof | oneDNN alone / ours | PyTorch / ours | ggml / ours |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for r in ops:
        p = beside.get((r["op"], r["dtype"], r["shape"]), {})
        yield (f"| {r['op']} | {r['shape']} | {r['dtype']} | {ms(r['median_ms'])} | {float(r['rate']):.0f} {r['unit']} | {float(r['of_roof']):.2f} | "
               f"{r['onednn_alone_over_ours'] and format(float(r['onednn_alone_over_ours']), '.2f')} | {p.get('torch_over_ours') or ''} | "
               f"{p.get('ggml_over_ours') or ''} |")


def segment_table(segment):
    stages = {}
    for r in segment:
        stages.setdefault(r["stage"], []).append(float(r["ms"]))
    yield "| stage | times | ms each, median | ms in all |"
    yield "|---|---|---|---|"
    for stage, v in stages.items():
        yield f"| {stage} | {len(v)} | {ms(str(sorted(v)[len(v) // 2]))} | {ms(str(sum(v)))} |"


def table(folder, run):
    head, ops = read(folder, "ops", run)
    _, peer = read(folder, "peer", run)
    model_head, models = read(folder, "models", run)
    segment_head, segment = read(folder, "segment", run)
    if not ops:
        sys.exit(f"{folder} holds no ops-{run}.csv; bench/run.sh makes it")
    peer_head, _ = read(folder, "peer", run)
    yield f"{said(head, 'machine')}; commit {said(head, 'commit')}; {said(head, 'versions')}; roofs: {said(head, 'roofs')}."
    peers = [x for x in (said(model_head, "models"), said(peer_head, "peers")) if x]
    if peers:
        yield f"Peers, same dtype and threads, by turns in one run, ratios of medians: {'; '.join(peers)}."
    if models:
        yield ""
        yield from models_table(models, peer)
    yield ""
    yield from ops_table(ops, peer)
    if segment:
        yield ""
        yield f"Stages of a segment of the tiny model: {said(segment_head, 'segment')}."
        yield ""
        yield from segment_table(segment)


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("run", nargs="?")
    a.add_argument("--results", default=os.path.join(ROOT, "bench", "results"))
    a.add_argument("--readme", action="store_true")
    o = a.parse_args()
    path = os.path.join(ROOT, "README.md")
    with open(path) as f:
        readme = f.read()
    mark = OPEN.search(readme)
    run = o.run or (mark and mark.group(1))
    if not run or run == "none":
        sys.exit("the README shows no run yet; name one, <CPU>-<commit> of a file in bench/results")
    text = "\n".join(table(o.results, run))
    if not o.readme:
        print(text)
        return
    end = readme.find(CLOSE)
    if not mark or end < mark.end():
        sys.exit(f"README.md lacks the marks <!-- speed: RUN --> and {CLOSE}")
    with open(path, "w") as f:
        f.write(f"{readme[:mark.start()]}<!-- speed: {run} -->\n{text}\n{readme[end:]}")


main()
