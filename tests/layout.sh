#!/usr/bin/env bash
# --layout auto from end to end: two ranks measure and choose, the choice lies with the job, and a render that was killed
# goes on by it. The film has the bytes of one that was told the layout from the start.
#   layout.sh BIN_DIR
set -euo pipefail
bin=$(realpath "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
export XDG_RUNTIME_DIR=$tmp
if ! command -v mpirun >/dev/null; then
  echo "skip: no mpirun"
  exit 0
fi
fail() { echo "layout: $*" >&2; tail -5 log >&2; exit 1; }

"$bin/longtake" weights synth --seed 1 -o model >/dev/null
ffmpeg -v error -y -stream_loop -1 -i "$here/deploy/media/voice.wav" -t 2 -c:a pcm_s16le voice.wav
film() { timeout 300 "$bin/longtake" render --model model --seed 3 --image "$here/deploy/media/portrait.png" --audio voice.wav -n 2 --steps "$steps" "$@"; }

# A quick machine may be done before the kill comes: then once more, with more to do.
for steps in 4 16 64 256; do
  rm -rf film.mp4 film.mp4.longtake
  "$bin/longtake" render --model model --seed 3 --image "$here/deploy/media/portrait.png" --audio voice.wav -n 2 --steps "$steps" \
    --layout auto -o film.mp4 >log 2>&1 &
  pid=$!
  while kill -0 $pid 2>/dev/null && ! grep -q "ranks.layout" film.mp4.longtake/worker.log 2>/dev/null; do sleep 0.05; done
  kill -9 $pid 2>/dev/null || true
  wait $pid 2>/dev/null || true
  [ -e film.mp4 ] || break
done
[ ! -e film.mp4 ] || fail "a film of 256 steps was done before it could be killed"
ls film.mp4.longtake/layout-* >/dev/null || fail "no layout lies with the job"
read -r one two three <film.mp4.longtake/"$(cd film.mp4.longtake && ls -d layout-*)"
echo "chosen: $one, of two branches $two, of three $three"
grep -q "layout.chosen measured=\"$one $two $three\"" film.mp4.longtake/worker.log || fail "it was not measured: $(cat film.mp4.longtake/worker.log)"
case $one in 1x1x2 | 1x2x1) ;; *) fail "$one is no layout of two ranks and one branch" ;; esac

# The log is written anew by the next worker, and goes with the folder: it is held by a second name.
: >film.mp4.longtake/worker.log
ln film.mp4.longtake/worker.log kept.log
film -o film.mp4 >log 2>&1 || fail "it does not go on"
grep -q "layout.chosen kept=\"$one $two $three\"" kept.log || fail "it was measured again: $(cat kept.log)"
[ ! -e film.mp4.longtake ] || fail "the folder is left"
film --layout "$one" -o told.mp4 >log 2>&1 || fail "told $one"
cmp -s film.mp4 told.mp4 || fail "told $one from the start it is another film"
echo "layout: went on by $one"
