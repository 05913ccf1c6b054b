#!/usr/bin/env bash
# Builds the benchmarks and measures the ops on this machine: bench/run.sh [options of bench_ops].
# The result is bench/results/ops-<CPU>-<commit>.csv. Meant for a quiet machine; a busy one is named in the file.
set -euo pipefail
cd "$(dirname "$0")/.."

cmake -G Ninja -B build-bench -DCMAKE_BUILD_TYPE=Release -DLONGTAKE_TESTS=OFF -DLONGTAKE_BENCH=ON >/dev/null
cmake --build build-bench -j "$(nproc)" --target bench_ops

commit=$(git rev-parse --short HEAD)
[ -z "$(git status --porcelain --untracked-files=no)" ] || commit=$commit-changed
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1 | tr -cs 'A-Za-z0-9' '-' | sed 's/-*$//')
read -r load _ </proc/loadavg
mkdir -p bench/results
out=bench/results/ops-${cpu:-unknown}-$commit.csv
{
  echo "# commit: $commit, $(date -u +%Y-%m-%d), load before the run: $load of $(nproc) CPUs"
  build-bench/bin/bench_ops "$@"
} | tee "$out"
if awk -v l="$load" 'BEGIN { exit !(l > 0.5) }'; then
  echo "The machine was busy ($load): take these numbers for hints." >&2
fi
echo "$out" >&2
