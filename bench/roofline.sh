#!/usr/bin/env bash
# The predicted step of cards that were not at hand: what gpusim counts of each op's bytes, the ops of a forward, and
# stated rates. Writes bench/results/gpu-bytes.csv and bench/results/roofline.txt, and the README's rows of them.
#   bench/roofline.sh [BIN_DIR]      default build/bin, configured with -DLONGTAKE_BENCH=ON
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${1:-build/bin}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$bin/test_gpusim_bytes" --csv >"$work/all" 2>"$work/errors" || { cat "$work/errors"; exit 1; }
grep -E '^[a-z_0-9]+,' "$work/all" >bench/results/gpu-bytes.csv
"$bin/bench_roofline" bench/results/gpu-bytes.csv >bench/results/roofline.txt

# README: the steps by card, between its marks.
awk '
  /^branches/ { steps = 1; next }
  steps && /^[123] / { row[++n] = "| " $1 " | " $2 " | " $3 " | " $4 " |"; next }
  steps { steps = 0 }
  /^one forward/ { calls = $3 }
  /^Element-wise ops:/ { ratio = $(NF - 3) }
  END {
    print "| branches, predicted s a step | H100 | A100 | 4090 |\n|---|---|---|---|"
    for (i = 1; i <= n; i++) print row[i]
    print "\nA forward is " calls " calls of ops; the element-wise ones move " ratio " of the least that they could (bench/results/gpu-bytes.csv)."
  }' bench/results/roofline.txt >"$work/rows"
awk -v rows="$work/rows" '
  /^<!-- end of roofline -->/ { inside = 0 }
  !inside { print }
  /^<!-- roofline -->/ { inside = 1; while ((getline line <rows) > 0) print line }' README.md >"$work/readme"
grep -q '^<!-- roofline -->' README.md || { echo "bench/roofline.sh: README.md has no mark for the rows" >&2; exit 1; }
cp "$work/readme" README.md
cat bench/results/roofline.txt
