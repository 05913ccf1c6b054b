#!/usr/bin/env bash
# What an operator relies on: settings read again, what is committed told, logs for machines, a floor of free space, films that
# go when they are old, and the doctor.
#   operations.sh BIN_DIR
set -euo pipefail
bin=$(realpath "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
tmp=$(mktemp -d)
trap '[ -z "${daemon:-}" ] || kill -9 "$daemon" 2>/dev/null; rm -rf "$tmp"' EXIT
cd "$tmp"
name=operations
. "$here/tests/daemon.sh"
flags=(--config settings.yaml)
export FAKE_WORKER=step:5,gate:$tmp/gate
: >log

# settings that are read again, and those that are not
echo "log-format: json" >settings.yaml
start
id=$(submit_held)
until_segment "$id" 2
kill -USR1 "$daemon"
logged '"event":"job.committed","job":1,"state":"running","segments":[1-9]'
kill -0 "$daemon" || fail "SIGUSR1 ended the daemon"
ok "SIGUSR1 tells what is committed and the daemon goes on"
printf 'log-format: json\nfree-min: 1000000000000000000\ngroups: 3\ndevice-cost: 2.5\n' >settings.yaml
kill -HUP "$daemon"
logged '"event":"config.kept","key":"groups"'
logged '"event":"config.kept","key":"device-cost"'
logged '"event":"disk.full"'
had=$(field "$id" segments)
open_gate
sleep 1
[ "$(field "$id" segments)" -le $((had + 2)) ] || fail "segments go on below the floor"
echo other >other.txt
cp "$here/deploy/media/voice2.wav" new.wav
longtake submit --image "$here/deploy/media/portrait.png" --audio new.wav >out 2>err && fail "a file is taken below the floor"
grep -q "and free-min wants" err || fail "no word of the floor: $(cat err)"
ok "below the floor of free space segments wait and files are refused"
echo "log-format: yaml" >settings.yaml
kill -HUP "$daemon"
logged '"event":"config.refused"'
echo "log-format: json" >settings.yaml
kill -HUP "$daemon"
logged '"event":"disk.free"'
longtake watch "$id" >watched || fail "job $id: $(cat watched)"
ok "a daemon that waited for space goes on"
python3 - log <<'P' || fail "a line of the log is no JSON"
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
assert len(rows) > 5 and all({"time", "level", "program", "rank", "event"} <= set(r) for r in rows), rows[:3]
P
ok "every line of the log is a JSON object"

# retention
[ -f "data/longtake/jobs/$id/video.mp4" ] || fail "no film of job $id"
printf 'keep-days: 0.00002\n' >settings.yaml
kill -HUP "$daemon"
for _ in $(seq 1200); do [ ! -e "data/longtake/jobs/$id" ] && break; sleep 0.05; done
[ ! -e "data/longtake/jobs/$id" ] || fail "the film of an old job stays"
longtake status "$id" >out 2>err && fail "an old job stays"
grep -q "there is no job $id" err || fail "$(cat err)"
ok "a job goes when it is old"
printf 'keep-bytes: 1\n' >settings.yaml
kill -HUP "$daemon"
id=$(submit)
longtake watch "$id" >watched || true
drain
start
for _ in $(seq 1200); do [ ! -e "data/longtake/jobs/$id" ] && break; sleep 0.05; done
[ ! -e "data/longtake/jobs/$id" ] || fail "films that are too much stay"
ok "the oldest films go when all are too much"
drain

# the doctor
longtake doctor --quick --model model >out || fail "doctor: $(cat out)"
for what in program cpu memory model store sockets media mpirun card worker; do
  grep -qE "^(ok|note) +$what " out || fail "doctor says nothing good of $what: $(cat out)"
done
rc=0
longtake doctor --quick --model nowhere --json >out || rc=$?
[ "$rc" -eq 3 ] || fail "doctor ends with $rc without a model"
python3 -c 'import json, sys; l = json.load(open("out")); assert [r for r in l if r["verdict"] == "bad" and r["what"] == "model"], l' ||
  fail "doctor --json: $(cat out)"
ok "doctor names what is missing"
echo "operations: $checks checks passed"
