#!/usr/bin/env bash
# clang-tidy over every source file, as .clang-tidy says; nothing found is the only good result. Needs clang-14 and
# clang-tidy-14.
#   tests/tidy.sh [REGEX]      only files whose path matches
set -euo pipefail
cd "$(dirname "$0")/.."
CC=clang-14 cmake -G Ninja -B build-tidy -DLONGTAKE_TESTS=ON >/dev/null
cmake --build build-tidy --target proto >/dev/null # its generated header
log=$(mktemp)
trap 'rm -f "$log"' EXIT
run-clang-tidy-14 -quiet -p build-tidy -extra-arg=-Wno-unknown-warning-option -extra-arg=-include -extra-arg=tests/tidy.h \
  "${1:-/(proto|kernels|parallel|worker|daemon|tests|bench)/}" >"$log" 2>/dev/null || true
# err.c defines what tidy.h replaces
if grep -E "(error|warning):" "$log" | grep -v -e "\.pb-c\." -e "/proto/base/err\.c:" | sort -u; then
  exit 1
fi
echo "clang-tidy: $(grep -c '"file"' build-tidy/compile_commands.json) files, nothing found"
