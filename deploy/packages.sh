#!/usr/bin/env bash
# Installs the Debian packages of a purpose: `packages.sh build`, `packages.sh test`. Installs nothing when all are there.
set -euo pipefail

build="gcc g++ make cmake ninja-build pkg-config git ca-certificates
  libdnnl-dev libzmq3-dev libprotobuf-c-dev protobuf-c-compiler libyaml-dev libjansson-dev libsodium-dev libutf8proc-dev
  libuv1-dev libsqlite3-dev libavcodec-dev libavformat-dev libavfilter-dev libavutil-dev libswscale-dev libswresample-dev
  libopenmpi-dev openmpi-bin"
tests="libcmocka-dev libebur128-dev ffmpeg sqlite3 python3 clang-14 libclang-rt-14-dev libomp-14-dev"

case "${1:-}" in
  build) wanted=$build ;;
  test) wanted="$build $tests" ;;
  *) echo "usage: packages.sh build|test" >&2; exit 2 ;;
esac

missing=()
for p in $wanted; do
  dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$p")
done
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "packages.sh: run as root or install sudo; missing: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "Installing ${#missing[@]} packages: ${missing[*]}"
"${as_root[@]}" apt-get update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
