#!/usr/bin/env bash
# From a fresh clone on a bare Debian 12 to two talking films: packages, build, the small model that ships, two renders.
# Run it as root or as a user with sudo. A second run installs nothing and takes a minute.
set -euo pipefail
cd "$(dirname "$0")/.."

deploy/packages.sh build

# The CUDA table is only worth compiling where a driver could run it.
cuda=OFF
command -v nvidia-smi >/dev/null 2>&1 && cuda=AUTO

if [ ! -f build/build.ninja ]; then
  cmake -G Ninja -B build -DCMAKE_BUILD_TYPE=Release -DLONGTAKE_CUDA=$cuda -DLONGTAKE_TESTS=OFF
fi
cmake --build build --target longtake longtake-worker

mkdir -p out
build/bin/longtake render --model deploy/model --image deploy/media/drawn.png --audio deploy/media/voice.wav \
  --overwrite -o out/quickstart.mp4
build/bin/longtake render --model deploy/model --image deploy/media/drawn-two.png --audio deploy/media/voice.wav \
  --audio2 deploy/media/voice2.wav --audio-type add --overwrite -o out/two.mp4
echo "The films are in out/quickstart.mp4 (one speaker) and out/two.mp4 (two). The small model that made them knows drawn heads"
echo "only; for photographs take the published weights (README.md)."
