#!/usr/bin/env bash
# What there is to prove and to measure on a machine with NVIDIA cards, by one command: builds the CUDA table for the
# cards that are there, and runs the self-test: every op of one card, then by a rank a card the messages between them; then
# what a step of the 14B network takes, beside what others published and what bench/roofline.sh predicts. The
# log is bench/results/gpu-<card>-<commit>.txt.
#   bench/gpu.sh
# Without a card it says so and ends with 3; nothing in the log is estimated.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then
  echo "bench/gpu.sh: this machine has no NVIDIA driver or no card" >&2
  exit 3
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 # containers are root
cards=$(nvidia-smi -L | grep -c '^GPU ')
name=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1)
# 9.0 is built as 90a; the build refuses what it has no kernels for, by name.
archs=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | tr -d '. ' | sed 's/^90$/90a/' | sort -u | paste -sd ';')
cmake -G Ninja -B build-gpu -DCMAKE_BUILD_TYPE=Release -DLONGTAKE_TESTS=OFF -DLONGTAKE_CUDA=ON \
  "-DLONGTAKE_CUDA_ARCHS=$archs" -DLONGTAKE_BENCH=ON >/dev/null
cmake --build build-gpu -j "$(nproc)"

commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
mkdir -p bench/results
out=bench/results/gpu-$(tr -cs 'A-Za-z0-9' '-' <<<"$name" | sed 's/-*$//')-$commit.txt
{
  echo "# commit $commit, $(date -u +%Y-%m-%d), $cards x $name"
  nvidia-smi --query-gpu=index,name,driver_version,memory.total,clocks.sm,clocks.mem,power.limit --format=csv
  build-gpu/bin/longtake-worker --selftest --device cuda
  if [ "$cards" -gt 1 ]; then
    mpirun --bind-to none --oversubscribe -n "$cards" build-gpu/bin/longtake-worker --selftest --device cuda
  fi
  echo "# A step of this program, measured:"
  build-gpu/bin/bench_step --device cuda
  cat <<'ANCHORS'
# Published by others for one step of two branches without the voice part (which adds 8 %), 480x832, 81 frames: 5.18 s
# on one H100, 0.75 s on eight; of one branch on eight 0.39 s, with fp8 products 0.35 s. Predicted of this program:
ANCHORS
  sed -n '/^PREDICTION/,$p' bench/results/roofline.txt
} 2>&1 | tee "$out"
echo "$out" >&2
