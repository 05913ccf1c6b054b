#!/usr/bin/env python3
"""The README's tables: of speed, from the results of one bench/run.sh; with --coordinator, of the coordinator, from those of
bench/hour.py, bench/batch.py and bench/queue.sh.

  bench/table.py [RUN] [--coordinator] [--results bench/results] [--readme]

RUN is what the files of a run have in common, <CPU>-<commit>; without it, the run that the README shows. Prints Markdown;
--readme puts it between the two marks in README.md instead. Files that are missing leave their part out."""
import argparse
import csv
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

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


def hour_table(hour):
    yield "| a long voice | minutes | spans | frames | time | sound and picture end apart | coordinator, one minute: now | worker, one minute: now | frames that show another number |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for r in hour:
        peaks = [f"{int(r[f'minute_{who}_kib']) / 1024:.1f}: {int(r[f'{who}_kib']) / 1024:.1f} MiB" if r[f"{who}_grown"] else ""
                 for who in ("coordinator", "worker")]
        wrong = f"{int(r['wrong_frames']):,} of {int(r['shown']):,}" if r["shown"] else ""
        yield (f"| {r['worker']} worker | {int(r['seconds']) / 60:g} | {int(r['cuts']) + 1} | {int(r['frames']):,} | {float(r['wall_s']):,.0f} s | "
               f"{r['skew_ms']} ms | {' | '.join(peaks)} | {wrong} |")


def batch_table(batch):
    yield "| one voice over videos | seconds each | single jobs: a batch, s | less | single jobs: a batch, CPU s | less | voice encoded | same bytes |"
    yield "|---|---|---|---|---|---|---|---|"
    for r in batch:
        yield (f"| {r['videos']} videos | {r['seconds']} | {r['single_s']}: {r['batch_s']} | {float(r['saved']):.0%} | "
               f"{r['single_cpu_s']}: {r['batch_cpu_s']} | {float(r['saved_cpu']):.0%} | {r['voice_encoded']} | {'yes' if r['same_bytes'] == 'True' else 'NO'} |")


def text_of(folder, name):
    try:
        with open(os.path.join(folder, name)) as f:
            return f.read().strip()
    except FileNotFoundError:
        return ""


def coordinator(folder, run):
    heads, parts = [], []
    for kind, table in (("hour", hour_table), ("batch", batch_table)):
        head, rows = read(folder, kind, run)
        if rows:
            heads.append(f"bench/{kind}.py: commit {said(head, 'commit')}")
            parts.append("\n".join(table(rows)))
    queue = text_of(folder, f"queue-{run}.txt")
    if queue:
        parts.append(f"```\n{queue}\n```")
    if not parts:
        sys.exit(f"{folder} holds no hour-{run}.csv, batch-{run}.csv or queue-{run}.txt; bench/hour.py, bench/batch.py and bench/queue.sh make them")
    yield f"{run.rsplit('-', 1)[0].replace('-', ' ')}. {'; '.join(heads)}." if heads else run
    for part in parts:
        yield f"\n{part}"


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("run", nargs="?")
    a.add_argument("--coordinator", action="store_true")
    a.add_argument("--results", default=os.path.join(ROOT, "bench", "results"))
    a.add_argument("--readme", action="store_true")
    o = a.parse_args()
    path = os.path.join(ROOT, "README.md")
    with open(path) as f:
        readme = f.read()
    word = "coordinator" if o.coordinator else "speed"
    close, mark = f"<!-- end of {word} -->", re.search(rf"<!-- {word}: (\S+) -->", readme)
    run = o.run or (mark and mark.group(1))
    if not run or run == "none":
        sys.exit("the README shows no run yet; name one, <CPU>-<commit> of a file in bench/results")
    text = "\n".join((coordinator if o.coordinator else table)(o.results, run))
    if not o.readme:
        print(text)
        return
    end = readme.find(close)
    if not mark or end < mark.end():
        sys.exit(f"README.md lacks the marks <!-- {word}: RUN --> and {close}")
    with open(path, "w") as f:
        f.write(f"{readme[:mark.start()]}<!-- {word}: {run} -->\n{text}\n{readme[end:]}")


main()
