#!/usr/bin/env bash
# What it costs to be several, on this machine: bench/comm.sh. Links by every transport, a segment by one rank and by two
# (equality, bytes, time, what the wire costs), the formulas at 8, 16 and 64 devices. About four minutes on a quiet machine;
# the result is bench/results/comm-<CPU>-<commit>.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

cmake -G Ninja -B build-bench -DCMAKE_BUILD_TYPE=Release -DLONGTAKE_TESTS=OFF -DLONGTAKE_BENCH=ON >/dev/null
cmake --build build-bench -j "$(nproc)" --target bench_comm bench_scale

export GOMP_SPINCOUNT=1000 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
bench=build-bench/bin/bench_comm
mpi() { mpirun --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n "$@"; }

commit=$(git rev-parse --short HEAD)
[ -z "$(git status --porcelain --untracked-files=no)" ] || commit=$commit-changed
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1 | tr -cs 'A-Za-z0-9' '-' | sed 's/-*$//')
read -r load _ </proc/loadavg
mkdir -p bench/results
out=bench/results/comm-${cpu:-unknown}-$commit.txt
{
  echo "# commit $commit, $(date -u +%Y-%m-%d), ${cpu:-unknown CPU}, load before the run: $load of $(nproc) CPUs"
  echo
  echo "## Links"
  "$bench" links self
  for n in 2 4; do "$bench" links "$n"; done
  for n in 2 4; do
    if command -v mpirun >/dev/null; then mpi "$n" "$bench" links mpi; else echo "mpi: no mpirun here"; fi
  done
  echo "nccl: not yet measured on a device"
  echo
  echo "## A segment"
  "$bench" segment
  if command -v mpirun >/dev/null; then mpi 2 "$bench" segment mpi; fi
  echo
  echo "## More devices"
  build-bench/bin/bench_scale
} | tee "$out"
if awk -v l="$load" 'BEGIN { exit !(l > 0.5) }'; then
  echo "The machine was busy ($load): take these numbers for hints." >&2
fi
echo "$out" >&2
