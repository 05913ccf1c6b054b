#!/usr/bin/env bash
# The daemon from outside, with a worker that needs no model: jobs in and films out, orders, kills at any moment, restarts.
#   serve.sh BIN_DIR
set -euo pipefail
bin=$(realpath "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
tmp=$(mktemp -d)
daemon=
trap '[ -z "$daemon" ] || kill -9 "$daemon" 2>/dev/null; rm -rf "$tmp"' EXIT
cd "$tmp"
name=serve
. "$here/tests/daemon.sh"
export FAKE_WORKER=step:20,gate:$tmp/gate
is() { [ "$(field "$1" status)" = "$2" ] || fail "job $1 is $(field "$1" status), not $2"; ok "job $1 is $2"; }
: >log
render whole.mp4

# words
says "start one: longtake serve" 4 longtake list
longtake submit --help >help
grep -q -- --priority help || fail "submit --help says nothing of priority"
echo "grups: 3" >bad.yaml
says "unknown key grups; did you mean groups?" 2 longtake serve --config bad.yaml --model model
says "unknown flag --grups; did you mean --groups?" 2 longtake serve --grups 2
says "is not between 0 and 64" 2 longtake serve --groups 65
# the sample has every key, with its default, and no other
sed -nE 's/^#?([a-z-]+):.*/\1/p' "$here/deploy/longtake.yaml" | sort >sample
longtake serve --model model --check | sed -E 's/:.*//' | sort >keys
cmp -s sample keys || fail "deploy/longtake.yaml and the table differ: $(diff sample keys)"
for key in groups attempts upload-max plain-tcp; do
  [ "$(sed -nE "s/^#$key: //p" "$here/deploy/longtake.yaml")" = "$(longtake serve --model model --check | sed -nE "s/^$key: //p")" ] ||
    fail "the sample's $key is not the default"
done
sed -E 's/^#(groups|attempts)/\1/' "$here/deploy/longtake.yaml" >used.yaml
longtake serve --model model --config used.yaml --groups 7 --check | grep -qx "groups: 7" || fail "a flag does not outweigh the file"
LONGTAKE_GROUPS=3 longtake serve --model model --config used.yaml --check | grep -qx "groups: 3" || fail "the environment does not outweigh the file"
LONGTAKE_GROUPS=3 longtake serve --model model --groups 5 --check | grep -qx "groups: 5" || fail "a flag does not outweigh the environment"
LONGTAKE_GROUPS=many says "LONGTAKE_GROUPS: .many. is not a whole number" 2 longtake serve --model model --check
ok "the sample, the table and flags agree"

# one job, and one key
start --device-cost 3.6
says "another process works in" 3 longtake serve --model model
[ "$(submit --key a --seed -1)" = 1 ] || fail "the first job is not 1"
[ "$(submit --key a --seed -1)" = 1 ] || fail "the same key is another job"
says "the key 'a' was used for another job, 1" 2 longtake submit --image "$here/deploy/media/portrait.png" --audio "$here/deploy/media/voice2.wav" --key a
says "model cannot be chosen by a client" 2 longtake submit --image "$here/deploy/media/portrait.png" --audio "$here/deploy/media/voice.wav" --model /etc
says "there is no job 99" 2 longtake status 99
says "is no number of a job" 2 longtake status x
says "'18446744073709551617' is no number of a job" 2 longtake status 18446744073709551617
says "one job at a time, and not also '2'" 2 longtake status 1 2
says "unknown flag --jsom; did you mean --json" 2 longtake status 1 --jsom
completes 1
# what is on record of it
longtake report 1 --json >report || fail "no report"
longtake events 1 >events || fail "no events"
python3 - report <<'P' || fail "the report: $(cat report)"
import json, sys
r = json.load(open(sys.argv[1]))
assert r["status"] == "completed" and r["segments"] == r["segments_total"] > 3 and r["frames"] == r["frames_total"] > 0, r
assert r["stage_seconds"]["denoise"] > 0 and abs(r["device_seconds"] - sum(r["stage_seconds"].values())) < 1e-3, r
assert abs(r["device_seconds_per_output_minute"] * r["frames"] / 1500 - r["device_seconds"]) < 1e-3, r
assert abs(r["cost_per_output_minute"] - r["device_seconds_per_output_minute"] / 1000) < 1e-5, r  # 3.6 an hour
assert r["color_drift"] == {"most": 0.25, "mean": 0.25} and r["seam_score"]["borders"] == r["segments"] - 1, r
P
longtake report 1 >report
grep -q "over $(($(field 1 segments) - 1)) borders" report || fail "the report: $(cat report)"
[ "$(sed -nE 's/^[0-9T:-]+Z ([a-z]+).*/\1/p' events | grep -v note | tr '\n' ' ')" = "finishing completed " ] || fail "events: $(cat events)"
says "there is no job 99" 2 longtake report 99
says "there is no job 99" 2 longtake events 99
seams() { longtake report "$1" --json | grep -o '"seam_score":{[^}]*}'; }
seams_whole=$(seams 1)
grep -q "cost .* for a minute of film" report || fail "the report: $(cat report)"
ok "a report and the events of a job that is over"
says "there is nothing to pause" 2 longtake pause 1
[ "$(find data/longtake/media -type f | wc -l)" -eq 3 ] || fail "media: $(ls data/longtake/media)"
ok "each file was brought once"

# pause, resume, cancel, retry
job=$(submit_held)
until_segment "$job" 3
longtake pause "$job" >/dev/null
open_gate
is "$job" paused
had=$(field "$job" segments)
sleep 0.5
[ "$(field "$job" segments)" -eq "$had" ] || fail "a paused job gets on"
longtake resume "$job" >/dev/null
completes "$job"
job=$(submit_held)
until_segment "$job" 2
longtake cancel "$job" >/dev/null
open_gate
is "$job" cancelled
says "there is no finished film yet" 2 longtake fetch "$job" -o never.mp4
next=$(submit)
completes "$next"
longtake retry "$job" >/dev/null
[ "$(field "$job" segments)" -ge 2 ] || fail "retry begins anew"
completes "$job"
[ "$(grep -c group.lost log)" -eq 0 ] || fail "groups were lost: $(grep group.lost log)"
ok "one worker has served all of them"

# the urgent one comes first, at the border of a segment; the other one has minutes to go
ffmpeg -v error -stream_loop -1 -i "$here/deploy/media/voice.wav" -t 180 longer.wav
slow=$(submit --audio longer.wav --priority 10)
until_segment "$slow" 2
urgent=$(submit --priority 90)
completes "$urgent"
[ "$(field "$slow" status)" != completed ] || fail "the urgent job came last"
had=$(field "$slow" segments)
until_segment "$slow" $((had + 1))
longtake cancel "$slow" >/dev/null
ok "the urgent job came first, and the other one goes on after it"

# what a service manager is told
python3 - "$tmp/notify" >told <<'P' &
import socket, sys, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
s.settimeout(60)
while True:
    got = s.recv(4096).decode()
    print(got, flush=True)
    if "STOPPING" in got: break
P
listener=$!
drain
for _ in $(seq 1200); do [ -S notify ] && break; sleep 0.05; done
export NOTIFY_SOCKET=$tmp/notify WATCHDOG_USEC=400000
start
for _ in $(seq 1200); do [ "$(grep -c WATCHDOG=1 told)" -ge 2 ] && break; sleep 0.05; done
drain
unset NOTIFY_SOCKET WATCHDOG_USEC
wait "$listener" || fail "the manager was not told of the end"
grep -qx READY=1 told || fail "the manager was told: $(cat told)"
[ "$(grep -c WATCHDOG=1 told)" -ge 2 ] || fail "the watchdog was told: $(cat told)"
ok "a service manager is told when it is ready, alive and ending"
start

# drain, and go on
job=$(submit_held)
until_segment "$job" 2
drain 75
open_gate
start --groups 2
[ "$(field "$job" segments)" -ge 2 ] || fail "what was committed is gone"
completes "$job"
drain

# kills: of the daemon and of workers, with three jobs on two groups
start --groups 2
jobs="$(submit) $(submit) $(submit)"
RANDOM=5
for round in 1 2 3 4 5 6; do
  sleep "0.$((RANDOM % 9 + 1))"
  victim=$(pgrep -P "$daemon" -x fake_worker | head -1 || true)
  if [ $((round % 2)) -eq 0 ] && [ -n "$victim" ]; then
    kill -9 "$victim" || true
  else
    kill -9 "$daemon"
    wait "$daemon" 2>/dev/null || true
    start --groups 2
  fi
done
for job in $jobs; do
  completes "$job"
  [ "$(seams "$job")" = "$seams_whole" ] || fail "the seams of job $job: $(seams "$job"), undisturbed $seams_whole"
done
job=$(submit_held)
longtake watch "$job" >watched &
watcher=$!
until_segment "$job" 2
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
open_gate
start
wait "$watcher" || fail "who watches loses a daemon that comes again: $(cat watched)"
ok "watching outlives the daemon"
completes "$job"
[ "$(seams "$job")" = "$seams_whole" ] || fail "the seams of a job whose daemon was killed: $(seams "$job"), undisturbed $seams_whole"
ok "kills take nothing from the report's seams"
drain

# a worker that does not come up is no job's fault
export FAKE_WORKER=step:5,mute,once:$tmp/never
start --hello-ms 300 --attempts 1
job=$(submit)
sleep 1.5
[ "$(field "$job" status)" != failed ] || fail "the job failed while its group was down"
drain 75
export FAKE_WORKER=step:5
start
completes "$job"

# what was taken otherwise than it was given is told while the job runs, and kept with it
job=$(submit --max-frame-num 20)
longtake watch "$job" >out || fail "job $job: $(cat out)"
[ "$(grep -c "^note: the film ends after 20 frames, as asked" out)" = 1 ] || fail "no note, or more than one: $(cat out)"
drain
start
longtake status "$job" | grep -q "^note: the film ends after 20 frames" || fail "the note is gone: $(longtake status "$job")"
ok "notes stay with the job"

# a job that fails is told, and keeps what was made
drain
export FAKE_WORKER=step:5,fail:4,once:$tmp/failed-once
start
job=$(submit)
longtake watch "$job" >out || true
is "$job" failed
longtake status "$job" | grep -q "segment refused: the words are too long" || fail "no word why: $(longtake status "$job")"
[ "$(field "$job" segments)" -eq 4 ] || fail "the failed job has $(field "$job" segments) segments"
: >"$tmp/failed-once"
drain
start
longtake retry "$job" >/dev/null
completes "$job"
drain
echo "serve: $checks checks passed"
