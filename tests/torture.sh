#!/usr/bin/env bash
# Kills of longtake and of its worker at random moments: the same command, given again until it is done, makes the bytes of
# the undisturbed run.
#   torture.sh BIN_DIR KILLS [fake|real|ranks] [SEED]     fake: the worker without a model; real: the tiny model; ranks: by
#                                                         three ranks, of which any is killed, or their launcher
set -euo pipefail
bin=$(realpath "$1")
kills=$2 kind=${3:-fake} seed=${4:-1}
here=$(cd "$(dirname "$0")/.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
export XDG_RUNTIME_DIR=$tmp
RANDOM=$seed
echo "torture: $kills kills, $kind worker, seed $seed"

fail() { echo "torture: $*" >&2; tail -5 log >&2; exit 1; }

args=(render --image "$here/deploy/media/portrait.png" --audio "$here/deploy/media/voice.wav" --seed 3 --json)
[ "$kind" != ranks ] || args+=(-n 3)
if [ "$kind" != fake ]; then
  "$bin/longtake" weights synth --seed 1 -o model >/dev/null
  args+=(--model model)
  worker_name=longtake-worker
else
  . "$here/tests/fake_model.sh"
  fake_model model
  export FAKE_WORKER=step:20
  args+=(--model model --worker "$bin/fake_worker")
  worker_name=fake_worker
fi

begun=$(date +%s%N)
timeout 600 "$bin/longtake" "${args[@]}" -o whole.mp4 >/dev/null 2>log || fail "the undisturbed run fails"
span_ms=$((($(date +%s%N) - begun) / 1000000))

# A worker of longtake's, or mpirun and its ranks.
victims() {
  pgrep -P "$1" -x "${worker_name:0:15}" || true
  local launcher
  launcher=$(pgrep -P "$1" -x mpirun || true)
  [ -z "$launcher" ] || { echo "$launcher"; pgrep -P "$launcher" || true; }
}
done_kills=0 films=0 resumed=0
while [ "$done_kills" -lt "$kills" ]; do
  rm -rf film.mp4 film.mp4.longtake
  for try in $(seq 1000); do
    "$bin/longtake" "${args[@]}" -o film.mp4 >out 2>log &
    pid=$!
    if [ "$done_kills" -lt "$kills" ]; then
      ms=$((RANDOM % (span_ms / 2 + 50)))
      sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
      if [ $((RANDOM % 3)) -eq 0 ]; then
        victim=$(victims "$pid" | shuf -n 1 --random-source=<(yes "$RANDOM") || true)
        [ -z "$victim" ] || { kill -9 "$victim" 2>/dev/null && done_kills=$((done_kills + 1)); }
        sleep 0.1
      fi
      if [ "$done_kills" -lt "$kills" ]; then
        kill -9 "$pid" 2>/dev/null && done_kills=$((done_kills + 1))
      fi
    fi
    rc=0
    wait "$pid" 2>/dev/null || rc=$?
    if [ "$rc" -eq 137 ] && [ -e film.mp4 ] && [ ! -e film.mp4.longtake/store.db ]; then # it was done, and tidied up
      rm -rf film.mp4.longtake
      rc=0
    fi
    case $rc in
      0) break ;;
      137 | 75) resumed=$((resumed + 1)) ;;
      *) fail "try $try ends with $rc" ;;
    esac
  done
  [ -e film.mp4 ] || fail "no film after $try tries"
  cmp -s whole.mp4 film.mp4 || fail "film $films has other bytes"
  [ ! -e film.mp4.longtake ] || fail "film.mp4.longtake is left behind"
  films=$((films + 1))
done
echo "torture: $done_kills kills, $resumed runs begun again, $films films, all with the bytes of the undisturbed run"
