#!/usr/bin/env bash
# Fuzzes every reader of hostile bytes for SECONDS each (default 30), under address and undefined-behaviour sanitizers.
# Needs clang with its runtime (clang-14, libclang-rt-14-dev, libomp-14-dev). The last line counts targets.
#   tests/fuzz.sh [SECONDS] [TARGET...]     targets: safetensors torchpt job message tokenizer, or all of them
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-30}
shift $(($# > 0))
[ $# -gt 0 ] || set -- job message safetensors tokenizer torchpt
for name in "$@"; do
  [ -f "tests/fuzz/fuzz_$name.c" ] || { echo "fuzz.sh: there is no target '$name'; there are: $(cd tests/fuzz && echo fuzz_*.c)" >&2 && exit 2; }
done
build=build-fuzz
CC=clang-14 CXX=clang++-14 cmake -G Ninja -B $build -DCMAKE_BUILD_TYPE=RelWithDebInfo -DLONGTAKE_TESTS=OFF -DLONGTAKE_FUZZ=ON >/dev/null
cmake --build $build --target seed_corpus "${@/#/fuzz_}" >/dev/null
seeds=$build/seeds
rm -rf $seeds
$build/bin/seed_corpus $seeds
passed=0 failed=0
for name in "${@/#/fuzz_}"; do
  target=$build/bin/$name
  mkdir -p $build/corpus/"$name" $seeds/"$name" $build/found
  folders=($build/corpus/"$name" $seeds/"$name")
  [ -d tests/fuzz/corpus/"$name" ] && folders+=(tests/fuzz/corpus/"$name")
  log=$build/$name.log
  if "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=3000 -max_len=65536 -seed=1 \
    -artifact_prefix=$build/found/"$name"- "${folders[@]}" >"$log" 2>&1; then
    passed=$((passed + 1))
    echo "$name: $(grep -oE 'stat::number_of_executed_units: .*|Done [0-9]+ runs in [0-9]+ second.*' "$log" | tail -1), $(
      grep -oE 'cov: [0-9]+' "$log" | tail -1)"
  else
    failed=$((failed + 1))
    echo "$name: FAILED, see $log" >&2
    tail -20 "$log" >&2
  fi
done
echo "fuzz: $passed targets clean, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
