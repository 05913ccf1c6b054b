#!/usr/bin/env bash
# The whole program on two simulated cards: a rank each, their messages over NCCL's stand-in, a film of 9 frames.
#   tests/gpusim/render.sh BIN
set -euo pipefail
bin=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$bin/longtake-worker" weights synth --seed 1 -o "$dir/model" >/dev/null
ffmpeg -v error -f lavfi -i testsrc=s=64x64 -frames:v 1 "$dir/picture.png"
ffmpeg -v error -f lavfi -i "sine=f=300:d=0.36" "$dir/voice.wav"
"$bin/longtake" render --model "$dir/model" --image "$dir/picture.png" --audio "$dir/voice.wav" --prompt words \
  --sample-steps 2 --frame-num 9 --motion-frame 5 --device cuda -n 2 --worker "$bin/longtake-worker-gpusim" \
  -o "$dir/film.mp4" >"$dir/log" 2>&1 || { cat "$dir/log"; exit 1; }
frames=$(ffprobe -v error -count_frames -select_streams v -show_entries stream=nb_read_frames -of csv=p=0 "$dir/film.mp4")
[ "$frames" = 9 ] || { cat "$dir/log"; echo "FAILED: $frames frames of 9"; exit 1; }
echo "a film of $frames frames by two simulated cards"
