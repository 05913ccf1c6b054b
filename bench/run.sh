#!/usr/bin/env bash
# Builds the benchmarks and measures this machine: ops against its roof, the stages of a segment, and, with --peer, whole
# networks and every op beside PyTorch and ggml, by turns.
#   bench/run.sh [--peer PYTHON] [--ggml PROGRAM] [--quick] [options of bench_ops]
# PYTHON is one that has torch; PROGRAM is what bench/peer/get_ggml.sh builds. --quick: ops alone, with --peer beside the peers.
# Other options go to bench_ops and mean --quick. Results are bench/results/{ops,segment,peer,models}-<CPU>-<commit>.csv, of which the table is printed at the
# end; bench/table.py --readme puts it into the README. Meant for a quiet machine; a busy one is named in the files.
set -euo pipefail
cd "$(dirname "$0")/.."

python='' ggml='' quick='' options=()
while [ $# -gt 0 ]; do
  case $1 in
    --peer) python=$2 && shift 2 ;;
    --ggml) ggml=$2 && shift 2 ;;
    --quick) quick=1 && shift ;;
    -h | --help) sed -n '2,8s/^# *//p' "$0" && exit ;;
    *) options+=("$1") && shift ;;
  esac
done
set -- "${options[@]}"
if [ -n "$python" ] && ! "$python" -c 'import torch' 2>/dev/null; then
  echo "bench/run.sh: $python has no torch; name a Python that has it, or leave --peer out" >&2
  exit 2
fi
if [ -n "$ggml" ] && { [ -z "$python" ] || [ ! -x "$ggml" ]; }; then
  echo "bench/run.sh: --ggml wants the program that bench/peer/get_ggml.sh builds, and --peer beside it" >&2
  exit 2
fi

cmake -G Ninja -B build-bench -DCMAKE_BUILD_TYPE=Release -DLONGTAKE_TESTS=OFF -DLONGTAKE_BENCH=ON >/dev/null
cmake --build build-bench -j "$(nproc)" --target bench_ops bench_models bench_segment longtake longtake-worker >build-bench/build.log ||
  { tail -30 build-bench/build.log >&2 && exit 1; }
bin=build-bench/bin
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-1000}

commit=$(git rev-parse --short HEAD)
[ -z "$(git status --porcelain --untracked-files=no)" ] || commit=$commit-changed
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1 | tr -cs 'A-Za-z0-9' '-' | sed 's/-*$//')
run=${cpu:-unknown}-$commit
read -r load _ </proc/loadavg
head="# commit: $commit, $(date -u +%Y-%m-%d), load before the run: $load of $(nproc) CPUs"
mkdir -p bench/results

# headed FILE: puts the line of this run on top of a result.
headed() { printf '%s\n' "$head" | cat - "$1" >"$1.new" && mv "$1.new" "$1"; }

# beside_peers [OPTIONS OF bench_ops]: ops, ours and theirs by turns.
ops=bench/results/ops-$run.csv
beside_peers() {
  "$python" bench/peer/peer.py --ops $bin/bench_ops ${ggml:+--ggml "$ggml"} --rounds 2 --seconds 0.5 --out "bench/results/peer-$run.csv" \
    --ops-out "$ops" "$@" >/dev/null
  headed "bench/results/peer-$run.csv"
}

if [ $# -gt 0 ] || [ -n "$quick" ]; then
  if [ -n "$python" ]; then
    beside_peers "$@"
    headed "$ops"
    cat "bench/results/peer-$run.csv"
  else
    $bin/bench_ops "$@" | { echo "$head" && cat; } | tee "$ops"
  fi
else
  if [ -n "$python" ]; then
    "$python" bench/peer/peer_models.py --models $bin/bench_models --rounds 3 --seconds 2 --out "bench/results/models-$run.csv" >/dev/null
    headed "bench/results/models-$run.csv"
    beside_peers
  else
    $bin/bench_ops >"$ops"
  fi
  headed "$ops"
  model=$(mktemp -d)
  trap 'rm -rf "$model"' EXIT
  $bin/longtake weights synth --seed 1 -o "$model/tiny" >/dev/null
  $bin/bench_segment --model "$model/tiny" >"bench/results/segment-$run.csv"
  headed "bench/results/segment-$run.csv"
  python3 bench/table.py "$run"
fi
if awk -v l="$load" 'BEGIN { exit !(l > 0.5) }'; then
  echo "The machine was busy ($load): take these numbers for hints." >&2
fi
echo "bench/results/*-$run.csv" >&2
