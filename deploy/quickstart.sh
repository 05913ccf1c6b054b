#!/usr/bin/env bash
# From a fresh clone on a bare Debian 12 to a talking video: packages, build, a small model, one render.
# Run it as root or as a user with sudo. A second run installs nothing and takes seconds.
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

model=build/model
if [ ! -f $model/model.yaml ]; then
  rm -rf $model
  build/bin/longtake weights synth --seed 1 -o $model
fi

mkdir -p out
build/bin/longtake render --model $model --image deploy/media/portrait.png --audio deploy/media/voice.wav \
  --prompt "A woman in a spacesuit is speaking." --overwrite -o out/quickstart.mp4
echo "The video is in out/quickstart.mp4 (made by a small random model: it moves, it does not speak yet)."
