#!/usr/bin/env bash
# What the daemon makes of a disk that fills up under it, and of one that is read-only. Wants to mount a tmpfs.
#   disk.sh BIN_DIR
set -euo pipefail
bin=$(realpath "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
tmp=$(mktemp -d)
daemon=
finish() {
  [ -z "$daemon" ] || kill -9 "$daemon" 2>/dev/null || true
  umount -l "$tmp/small" 2>/dev/null || true
  rm -rf "$tmp"
}
trap finish EXIT
cd "$tmp"
export XDG_DATA_HOME=$tmp/data XDG_RUNTIME_DIR=$tmp ASAN_OPTIONS=${ASAN_OPTIONS:-}:verify_asan_link_order=0
checks=0
fail() { echo "disk: $*" >&2; tail -5 log >&2; exit 1; }
ok() { checks=$((checks + 1)); echo "ok $*"; }
longtake() { timeout 60 "$bin/longtake" "$@"; }
job=(--image "$here/deploy/media/portrait.png" --audio "$here/deploy/media/voice.wav")
submit() { longtake submit "${job[@]}" "$@" | sed -E 's/job ([0-9]+):.*/\1/'; }
field() { longtake status "$1" --json | sed -E "s/.*\"$2\":\"?([a-z0-9]+).*/\1/"; }
until_segment() { for _ in $(seq 400); do [ "$(field "$1" segments)" -ge "$2" ] && return; sleep 0.02; done; fail "job $1 never has segment $2"; }
ended() { for _ in $(seq 400); do case $(field "$1" status) in failed | completed) return ;; esac; sleep 0.05; done; fail "job $1 does not end"; }
completes() {
  longtake watch "$1" >out 2>&1 || fail "job $1: $(tail -1 out)"
  rm -f got.mp4
  longtake fetch "$1" -o got.mp4 || fail "no film of job $1"
  cmp -s whole.mp4 got.mp4 || fail "job $1 has other bytes"
}
start() { # no floor of free space: what a write itself meets is tried here
  "$bin/longtake" serve --model model --worker "$bin/fake_worker" --free-min 0 "$@" 2>>log &
  daemon=$!
  for _ in $(seq 200); do longtake list >/dev/null 2>&1 && return; sleep 0.05; done
  fail "the daemon does not start"
}
stop() { kill -9 "$daemon" && wait "$daemon" 2>/dev/null || true; daemon=; }
. "$here/tests/fake_model.sh"
fake_model model
export FAKE_WORKER=step:5
longtake render --model model --worker "$bin/fake_worker" "${job[@]}" -o whole.mp4 2>/dev/null || fail "render fails"

# a disk that fills up: the job says so and goes on by retry, the daemon lives
if ! mkdir small || ! mount -t tmpfs -o size=3m tmpfs small 2>/dev/null; then
  echo "skip: no tmpfs can be mounted here"
  exit 0
fi
export XDG_DATA_HOME=$tmp/small FAKE_WORKER=step:20
start
full=$(submit)
until_segment "$full" 2
cat /dev/zero >small/other 2>/dev/null || true
ended "$full"
longtake status "$full" >said
rm small/other
sleep 1
grep -q "no space left on the disk\|No space left" said || fail "a full disk: $(cat said)"
longtake retry "$full" >/dev/null || fail "retry after a full disk"
completes "$full"
ok "a disk that fills up"
stop
for _ in $(seq 40); do mount -o remount,ro small 2>/dev/null && break; sleep 0.1; done # until the last worker is gone
if ! touch small/x 2>/dev/null; then
  rc=0
  longtake serve --model model 2>err || rc=$?
  [ "$rc" -eq 3 ] && grep -qi "read-only" err || fail "a read-only store: $rc $(cat err)"
  ok "a read-only store is refused by name"
fi
echo "disk: $checks checks passed"
