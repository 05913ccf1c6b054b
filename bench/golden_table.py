#!/usr/bin/env python3
"""The worst error of every golden file and table of ops, as Markdown.

  build/bin/golden tests/golden | bench/golden_table.py"""
import re
import sys

LINE = re.compile(r"^(PASS|FAIL) (\S+) (\S+) (\S+) error (\S+) bound (\S+)")


def main():
    worst, keys, tables, failed = {}, {}, [], 0
    for line in sys.stdin:
        failed += line.startswith("FAIL")
        m = LINE.match(line)
        if not m:
            continue
        _, table, name, key, error, bound = m.groups()
        if table not in tables:
            tables.append(table)
        keys[name, table] = keys.get((name, table), 0) + 1
        share = float(error) / float(bound) if float(bound) > 0 else 0.0
        if share >= worst.get((name, table), (-1,))[0]:
            worst[name, table] = (share, float(error), float(bound), key)
    print("| file | keys | " + " | ".join(f"`{t}`: worst error / its bound" for t in tables) + " |")
    print("|---|---|" + "---|" * len(tables))
    for name in sorted({n for n, _ in worst}):
        cells = [f"{w[1]:.1e} / {w[2]:.0e} ({w[3]})" for w in (worst[name, t] for t in tables)]
        print(f"| {name} | {keys[name, tables[0]]} | " + " | ".join(cells) + " |")
    if failed:
        sys.exit(f"{failed} keys failed")


main()
