#!/usr/bin/env bash
# Builds ggml's CPU library, as stable-diffusion.cpp's package on PyPI carries it, and peer_ggml beside it.
#   bench/peer/get_ggml.sh FOLDER       everything lands in FOLDER, outside of the repository
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
package=stable_diffusion_cpp_python-0.4.7
if [ ! -d $package ]; then
  python3 -m pip download --no-binary :all: --no-deps -d . stable-diffusion-cpp-python==0.4.7
  tar xzf $package.tar.gz
fi
source=$package/vendor/stable-diffusion.cpp/ggml
if [ ! -e ggml-build/src/libggml-cpu.so ]; then
  cmake -G Ninja -S $source -B ggml-build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=ON -DGGML_CCACHE=OFF \
    -DGGML_BUILD_TESTS=OFF -DGGML_BUILD_EXAMPLES=OFF
  cmake --build ggml-build
fi
libs=$PWD/ggml-build/src
cc -O2 -o peer_ggml "$here/peer_ggml.c" -I$source/include -L"$libs" -lggml-cpu -lggml-base -Wl,-rpath,"$libs"
echo "$PWD/peer_ggml"
