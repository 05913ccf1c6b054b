#!/usr/bin/env bash
# Kills of the daemon and of its workers (of any rank, and of mpirun, where a group has several) at random moments of jobs
# with several spans on one to three groups: every job finishes, with the bytes of the undisturbed run.
#   torture_serve.sh BIN_DIR KILLS [fake|real] [SEED] [RANKS]     RANKS: of each group, with the real worker
set -euo pipefail
bin=$(realpath "$1")
kills=$2 kind=${3:-fake} seed=${4:-1} ranks=${5:-1}
here=$(cd "$(dirname "$0")/.." && pwd)
tmp=$(mktemp -d)
daemon=
trap '[ -z "$daemon" ] || kill -9 "$daemon" 2>/dev/null; rm -rf "$tmp"' EXIT
cd "$tmp"
export XDG_RUNTIME_DIR=$tmp XDG_DATA_HOME=$tmp/data
RANDOM=$seed
echo "torture: $kills kills of the daemon and its groups, $kind worker, $ranks ranks, seed $seed"
fail() { echo "torture: $*" >&2; tail -5 log >&2; exit 1; }
longtake() { timeout 900 "$bin/longtake" "$@"; }

job=(--image "$here/deploy/media/portrait.png" --audio "$here/deploy/media/voice.wav" --seed 3 --cuts 1.4,1.96,4)
if [ "$kind" = real ]; then
  "$bin/longtake" weights synth --seed 1 -o model >/dev/null
  serve=(--model model) whole=(--model model)
  [ "$ranks" -eq 1 ] || { serve+=(--ranks "$ranks"); whole+=(-n "$ranks"); }
else
  . "$here/tests/fake_model.sh"
  fake_model model
  export FAKE_WORKER=step:20
  serve=(--model model --worker "$bin/fake_worker") whole=(--model model --worker "$bin/fake_worker")
fi
begun=$(date +%s%N)
timeout 600 "$bin/longtake" render "${whole[@]}" "${job[@]}" -o whole.mp4 >/dev/null 2>log || fail "the undisturbed run fails"
span_ms=$((($(date +%s%N) - begun) / 1000000))

start() {
  groups=$((RANDOM % 3 + 1))
  "$bin/longtake" serve "${serve[@]}" --groups "$groups" --attempts 1000 2>>log &
  daemon=$!
  for _ in $(seq 1200); do longtake list >/dev/null 2>&1 && return; sleep 0.05; done
  fail "the daemon does not start"
}
family() { local p; for p in $(pgrep -P "$1" || true); do echo "$p"; family "$p"; done; }
pause() { local ms=$((RANDOM % ($1 + 1))); sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"; }

done_kills=0 of_daemon=0 films=0 rounds=0
while [ "$done_kills" -lt "$kills" ]; do
  rm -rf data && mkdir data
  start
  jobs=
  for _ in $(seq $((RANDOM % 3 + 1))); do jobs+=" $(longtake submit "${job[@]}" | sed -E 's/job ([0-9]+):.*/\1/')"; done
  for _ in $(seq $((RANDOM % 12 + 4))); do
    [ "$done_kills" -lt "$kills" ] || break
    pause $((span_ms / 3 + 100))
    if [ $((RANDOM % 5)) -lt 2 ]; then
      kill -9 "$daemon" && done_kills=$((done_kills + 1)) of_daemon=$((of_daemon + 1))
      wait "$daemon" 2>/dev/null || true
      start
    else
      mapfile -t victims < <(family "$daemon")
      [ "${#victims[@]}" -gt 0 ] || continue
      kill -9 "${victims[RANDOM % ${#victims[@]}]}" 2>/dev/null && done_kills=$((done_kills + 1)) || true
    fi
  done
  for id in $jobs; do
    longtake watch "$id" >out 2>&1 || { longtake retry "$id" >/dev/null 2>&1 && longtake watch "$id" >out 2>&1; } || fail "job $id: $(tail -1 out)"
    longtake fetch "$id" -o "$id.mp4" || fail "no film of job $id"
    cmp -s whole.mp4 "$id.mp4" || fail "job $id has other bytes (round $rounds, $groups groups)"
    rm "$id.mp4"
    films=$((films + 1))
  done
  left=$(find data/longtake/jobs -type f ! -name video.mp4 ! -name worker\*.log | wc -l)
  [ "$left" -eq 0 ] || fail "$left files are left behind: $(find data/longtake/jobs -type f)"
  kill -9 "$daemon"
  wait "$daemon" 2>/dev/null || true
  daemon=
  rounds=$((rounds + 1))
done
echo "torture: $done_kills kills ($of_daemon of the daemon) in $rounds rounds, $films films, all with the bytes of the undisturbed run"
