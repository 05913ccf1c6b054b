#!/usr/bin/env bash
# What the daemon makes of a disk that fills up under it, and of one that is read-only. Wants to mount a tmpfs.
#   disk.sh BIN_DIR
set -euo pipefail
bin=$(realpath "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
tmp=$(mktemp -d)
finish() {
  [ -z "${daemon:-}" ] || kill -9 "$daemon" 2>/dev/null || true
  umount -l "$tmp/small" 2>/dev/null || true
  rm -rf "$tmp"
}
trap finish EXIT
cd "$tmp"
name=disk
. "$here/tests/daemon.sh"
flags=(--free-min 0) # no floor of free space: what a write itself meets is tried here
export FAKE_WORKER=step:5
render whole.mp4

# a disk that fills up: the job says so and goes on by retry, the daemon lives
if ! mkdir small || ! mount -t tmpfs -o size=3m tmpfs small 2>/dev/null; then
  echo "skip: no tmpfs can be mounted here"
  exit 0
fi
export XDG_DATA_HOME=$tmp/small FAKE_WORKER=step:5,gate:$tmp/gate
touch gate
start
full=$(submit)
until_segment "$full" 2
cat /dev/zero >small/other 2>/dev/null || true
rm gate
ended "$full"
longtake status "$full" >said
rm small/other
sleep 1
grep -q "no space left on the disk\|No space left" said || fail "a full disk: $(cat said)"
longtake retry "$full" >/dev/null || fail "retry after a full disk"
completes "$full"
ok "a disk that fills up"
stop
for _ in $(seq 400); do mount -o remount,ro small 2>/dev/null && break; sleep 0.1; done # until the last worker is gone
if ! touch small/x 2>/dev/null; then
  rc=0
  longtake serve --model model 2>err || rc=$?
  [ "$rc" -eq 3 ] && grep -qi "read-only" err || fail "a read-only store: $rc $(cat err)"
  ok "a read-only store is refused by name"
fi
echo "disk: $checks checks passed"
