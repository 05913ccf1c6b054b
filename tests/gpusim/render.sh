#!/usr/bin/env bash
# The whole program on simulated cards: a film of 9 frames by two, a rank each, their messages over NCCL's stand-in; then by
# one whose weights stay in the host's memory.
#   tests/gpusim/render.sh BIN
set -euo pipefail
bin=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$bin/longtake-worker" weights synth --seed 1 -o "$dir/model" >/dev/null
ffmpeg -v error -f lavfi -i testsrc=s=64x64 -frames:v 1 "$dir/picture.png"
ffmpeg -v error -f lavfi -i "sine=f=300:d=0.36" "$dir/voice.wav"

printf '#!/bin/sh\nexec "%s" "$@" 2>>"%s"\n' "$bin/longtake-worker-gpusim" "$dir/worker.log" >"$dir/worker"
chmod +x "$dir/worker"

film() { # name, flags
  local name=$1
  shift
  "$bin/longtake" render --model "$dir/model" --image "$dir/picture.png" --audio "$dir/voice.wav" --prompt words \
    --sample-steps 2 --frame-num 9 --motion-frame 5 --device cuda "$@" --worker "$dir/worker" \
    -o "$dir/$name.mp4" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
  local frames
  frames=$(ffprobe -v error -count_frames -select_streams v -show_entries stream=nb_read_frames -of csv=p=0 "$dir/$name.mp4")
  [ "$frames" = 9 ] || { cat "$dir/log"; echo "FAILED: $frames frames of 9"; exit 1; }
}

film two -n 2
! grep -q device.no_graphs "$dir/worker.log" || { echo "FAILED: graphs are off unasked"; exit 1; }
LONGTAKE_NO_GRAPHS=yes film streamed --weights streamed --sample-text-guide-scale 1 --sample-audio-guide-scale 1
grep -q dit.streamed "$dir/worker.log" || { cat "$dir/worker.log"; echo "FAILED: nothing was streamed"; exit 1; }
grep -q device.no_graphs "$dir/worker.log" || { cat "$dir/worker.log"; echo "FAILED: graphs are not off"; exit 1; }
echo "films of 9 frames by two simulated cards, and by one with streamed weights"
