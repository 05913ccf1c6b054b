#!/usr/bin/env bash
# What the daemon makes of power cuts, a clock that jumps back, another layout class, and workers that say things twice, late
# or in the wrong order. The worker needs no model.
#   trouble.sh BIN_DIR
set -euo pipefail
bin=$(realpath "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
tmp=$(mktemp -d)
finish() {
  [ -z "${daemon:-}" ] || kill -9 "$daemon" 2>/dev/null || true
  rm -rf "$tmp"
}
trap finish EXIT
cd "$tmp"
name=trouble
. "$here/tests/daemon.sh"
FAKE_WORKER=step:5 render whole.mp4

# workers that say things twice, late, or in the wrong order
for trouble in twice:3 twice:0 late:2 late:14 "swap:4,once:$tmp/swapped" "garbage:5,once:$tmp/garbled" "short:6,once:$tmp/shortened"; do
  rm -rf data && mkdir data
  export FAKE_WORKER=step:2,$trouble
  start
  completes "$(submit)"
  stop
  ok "a worker with $trouble"
done
lost=$(grep -c group.lost log || true)
[ "$lost" -eq 3 ] || fail "$lost groups were lost, not the three that said wrong things: $(grep group.lost log)"
ok "what comes twice or late is ignored; who says wrong things is replaced"

# two layout classes: a job goes on only where it began, unless it was asked to take any
rm -rf data && mkdir data
export FAKE_WORKER=step:2,layout:one,gate:$tmp/gate
touch gate
start
pinned=$(submit) relaxed=$(submit --relax-layout)
until_segment "$pinned" 2
longtake pause "$pinned" >/dev/null
until_segment "$relaxed" 2
stop
rm gate
export FAKE_WORKER=step:2,layout:two
start
longtake resume "$pinned" >/dev/null
completes "$relaxed"
longtake status "$relaxed" --json | grep -q '"mixed_layouts":true' || fail "nothing is said of two classes: $(longtake status "$relaxed" --json)"
waits() { longtake status "$pinned" --json | grep -q '"waits_for":{"layout":"one"}'; }
for _ in $(seq 1200); do waits && break; sleep 0.05; done
waits || fail "a pinned job: $(longtake status "$pinned" --json)"
stop
export FAKE_WORKER=step:2,layout:one
start
completes "$pinned"
export FAKE_WORKER=step:2,layout:one,gate:$tmp/gate
stop
touch gate
start
asked=$(submit)
until_segment "$asked" 2
longtake pause "$asked" >/dev/null
stop
rm gate
export FAKE_WORKER=step:2,layout:three
start
longtake resume "$asked" --relax-layout >/dev/null
completes "$asked"
stop
ok "a job keeps to the layout class that began it"

# the wall clock jumps a day back, while a job renders and before another one comes
rm -rf data && mkdir data
export CLOCK_BACK=$tmp/back FAKE_WORKER=step:2,gate:$tmp/gate
touch gate
LD_PRELOAD=$bin/libpowercut.so start --groups 2
one=$(submit)
until_segment "$one" 2
touch back
rm gate
two=$(submit)
completes "$one"
completes "$two"
rm back
completes "$(submit)"
unset CLOCK_BACK
stop
ok "a clock that jumps back"

# a drain: a segment that has come whole is committed first, however long its sync takes, and nobody renders it again; what is
# still being rendered is left
rm -rf data && mkdir data
rm -f runs
export HOLD=$tmp/held HOLD_AT=/piece-2 FAKE_WORKER=step:5,log:$tmp/runs
touch "$HOLD"
LD_PRELOAD=$bin/libpowercut.so start
one=$(submit)
for _ in $(seq 1200); do [ -e "$HOLD.held" ] && break; sleep 0.05; done
[ -e "$HOLD.held" ] || fail "no sync of the third segment"
[ "$(field "$one" segments)" -eq 2 ] || fail "there are $(field "$one" segments) segments while the third one is held"
kill -TERM "$daemon"
for _ in $(seq 1200); do grep -q "daemon.drain" log && break; sleep 0.05; done
kill -0 "$daemon" || fail "the daemon does not wait for the segment that came whole"
rm "$HOLD"
rc=0
wait "$daemon" || rc=$?
[ "$rc" -eq 75 ] || fail "after a drain the daemon ends with $rc, not 75"
unset HOLD HOLD_AT
start
[ "$(field "$one" segments)" -ge 3 ] || fail "the segment that came whole is gone"
completes "$one"
[ "$(grep -c '^run 2 ' runs)" -eq 1 ] || fail "the segment that came whole was rendered again: $(cat runs)"
stop
ok "a drain commits the segment that came whole"

# power cuts: only what was synced is left, at ten moments
rm -rf data && mkdir -p data notes/names notes/bytes
export POWERCUT_FROM=$tmp/data/longtake POWERCUT_TO=$tmp/notes FAKE_WORKER=step:10
RANDOM=7
LD_PRELOAD=$bin/libpowercut.so start --groups 2
ids="$(submit --cuts 2,4) $(submit --cuts 2,4)"
FAKE_WORKER=step:5 render cut.mp4 --cuts 2,4
for cut in $(seq 10); do
  sleep "0.$((RANDOM % 5))"
  stop
  pkill -9 -P $$ -x fake_worker 2>/dev/null || true
  python3 "$here/tests/powercut.py" data/longtake notes
  LD_PRELOAD=$bin/libpowercut.so start --groups 2
  [ "$(longtake list | wc -l)" -eq 2 ] || fail "after cut $cut there are: $(longtake list)"
done
for id in $ids; do
  longtake watch "$id" >out 2>&1 || fail "job $id: $(tail -1 out)"
  rm -f got.mp4
  longtake fetch "$id" -o got.mp4
  cmp -s cut.mp4 got.mp4 || fail "job $id has other bytes after power cuts"
done
stop
unset POWERCUT_FROM POWERCUT_TO
ok "ten power cuts: no job is lost, the bytes are the same"

echo "trouble: $checks checks passed"
