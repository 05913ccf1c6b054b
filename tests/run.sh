#!/usr/bin/env bash
# Everything there is to test, on a bare Debian 12 too: installs what the tests need, builds, runs all tests, then the unit
# tests once more under the address and undefined-behaviour sanitizers, then the fuzz targets for half a minute each. The
# last line counts them.
#   tests/run.sh [--quick]     --quick leaves the sanitizers and the fuzz targets out
set -euo pipefail
cd "$(dirname "$0")/.."

deploy/packages.sh test

jobs=$(nproc)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0 failed=0

# build DIR, then CTest in it; adds up what CTest counted.
suite() {
  local dir=$1 exclude=$2
  shift 2
  cmake -G Ninja -B "$dir" -DLONGTAKE_TESTS=ON "$@" >/dev/null
  cmake --build "$dir" -j "$jobs"
  local rc=0
  ctest --test-dir "$dir" --output-on-failure -j 1 ${exclude:+-E "$exclude"} 2>&1 | tee "$log" || rc=$?
  local total bad
  total=$(sed -n 's/.*tests failed out of \([0-9]*\)$/\1/p' "$log")
  bad=$(sed -n 's/.*, \([0-9]*\) tests failed out of .*/\1/p' "$log")
  if [ -z "$total" ]; then
    echo "tests/run.sh: $dir ran no test" >&2
    exit 1
  fi
  passed=$((passed + total - bad))
  failed=$((failed + bad))
  [ "$rc" -eq 0 ] || [ "$bad" -gt 0 ] || failed=$((failed + 1))
}

suite build "" -DCMAKE_BUILD_TYPE=Release
if [ "${1:-}" != "--quick" ]; then
  # golden, e2e, speaks and segments on simulated cards run whole networks: the plain build has shown them; here the units matter
  suite build-asan "^(golden|e2e|speaks|gpu_static|gpusim_|test_gpusim_(worker|ranks))" -DCMAKE_BUILD_TYPE=RelWithDebInfo "-DLONGTAKE_SANITIZE=address;undefined"
  tests/fuzz.sh 30 | tee "$log" || true
  read -r clean found < <(sed -n 's/^fuzz: \([0-9]*\) targets clean, \([0-9]*\) failed$/\1 \2/p' "$log") || true
  passed=$((passed + ${clean:-0}))
  failed=$((failed + ${found:-1}))
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
