#!/usr/bin/env bash
# Clients and groups from other machines: over TCP, with keys, with wrong keys, without keys; groups that join by themselves, are
# refused, killed, stopped; a daemon that comes again. "Other machines" are this one over loopback, with folders that share nothing.
#   doors.sh BIN_DIR
set -euo pipefail
bin=$(realpath "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
tmp=$(mktemp -d)
daemon= workers=
trap 'for p in $daemon $workers; do kill -9 "$p" 2>/dev/null || true; done; rm -rf "$tmp"' EXIT
cd "$tmp"
name=doors
. "$here/tests/daemon.sh"
export FAKE_WORKER=step:20
port=$((20000 + $$ % 20000))
door=tcp://127.0.0.1:$port
join=tcp://127.0.0.1:$((port + 1))

logged() { for _ in $(seq 1200); do grep -q -- "$1" log && { ok "logged: $1"; return; }; sleep 0.05; done; fail "no '$1' in the log"; }
worker() { "$bin/fake_worker" --connect "$join" --model "$model" "$@" 2>>worker.log & workers="$workers $!"; last=$!; }
under_way() { for _ in $(seq 1200); do longtake status "$1" | grep -qE "segment ([2-9]|1[0-9])/" && return; sleep 0.05; done; fail "job $1 does not get on"; }
cp -r model copy
fake_model other
echo other >other/part
: >log
model=copy
render whole.mp4

# keys
for who in daemon laptop stranger node; do longtake keygen -o $who.key --name $who >/dev/null; done
[ "$(stat -c %a laptop.key)" = 600 ] || fail "the key has mode $(stat -c %a laptop.key)"
says "is there already" 2 longtake keygen -o laptop.key
says "is no name for a key" 2 longtake keygen -o x.key --name "a b"
cp laptop.key.pub clients
cp node.key.pub workers
says "is open to the network and wants keys" 3 longtake serve --model model --listen $door
says "is open to the network and wants keys" 3 longtake serve --model model --join $join --key-file daemon.key
says "is no place to listen" 3 longtake serve --model model --listen 127.0.0.1:$port
says "nothing would ever render" 3 longtake serve --model model --groups 0
cp laptop.key loose.key && chmod 644 loose.key
says "others may read the secret key" 2 longtake list --connect $door --key-file loose.key --server-key daemon.key.pub
echo nothing >no.key && chmod 600 no.key
says "is no key file" 2 longtake list --connect $door --key-file no.key --server-key daemon.key.pub

# clients over TCP
start --listen $door --join $join --key-file daemon.key --client-keys clients --worker-keys workers --groups 0
export LONGTAKE_CONNECT=$door
says "give --key-file FILE" 2 longtake list
says "wants a key" 2 longtake list --plain-tcp
says "does not know this key" 2 longtake list --key-file stranger.key --server-key daemon.key.pub
says "is not its public key" 2 longtake list --key-file laptop.key --server-key stranger.key.pub
logged "chan.unknown key=$(cut -d' ' -f2 stranger.key.pub)"
export LONGTAKE_KEY_FILE=laptop.key LONGTAKE_SERVER_KEY=daemon.key.pub
says "nobody answers at tcp://127.0.0.1:$((port + 7))" 4 longtake list --connect tcp://127.0.0.1:$((port + 7))
job=$(submit)
[ "$job" = 1 ] || fail "the first job is '$job'"
longtake pause "$job" | grep -q paused || fail "pause over TCP"
longtake resume "$job" | grep -q queued || fail "resume over TCP"
next=$(submit)
longtake cancel "$next" | grep -q cancelled || fail "cancel over TCP"
ok "a job was brought over TCP, paused, resumed; another cancelled"

# groups that join, and who may not
says "give --key-file FILE" 3 timeout 60 "$bin/longtake-worker" --connect $join --model model
longtake weights synth --seed 1 -o real >/dev/null
says "does not know this key" 3 timeout 60 "$bin/longtake-worker" --connect $join --model real --key-file stranger.key --server-key daemon.key.pub
says "has other weights" 3 timeout 60 "$bin/longtake-worker" --connect $join --model real --key-file node.key --server-key daemon.key.pub
model=other
worker --key-file node.key --server-key daemon.key.pub
logged "has other weights"
wait "$last" && fail "a group with other weights goes on"
model=copy
FAKE_VERSION=0.0.9 worker --key-file node.key --server-key daemon.key.pub
logged "is 0.0.9: install the same on both"
wait "$last" && fail "a group of another version goes on"
ok "who is refused ends"
FAKE_BUILD=one FAKE_WEIGHTS=1 worker --key-file node.key --server-key daemon.key.pub
first=$last
logged "group.joined"
FAKE_BUILD=two worker --key-file node.key --server-key daemon.key.pub
logged "is another build (two)"
wait "$last" && fail "a group of another build goes on beside the first"
FAKE_BUILD=one FAKE_WEIGHTS=2 worker --key-file node.key --server-key daemon.key.pub
logged "have other numbers (02000000)"
wait "$last" && fail "a group with other numbers in its files goes on beside the first"
last=$first
longtake watch "$job" >watched || fail "job $job: $(cat watched)"
longtake fetch "$job" -o got.mp4
cmp -s got.mp4 whole.mp4 || fail "the film that was made over TCP has other bytes"
ok "a film made and fetched over TCP has the bytes of the undisturbed run"
kill -9 "$last"
drain

export FAKE_WORKER=step:5,gate:$tmp/gate
# a daemon that is started anew: the group joins it again, and goes on
unset LONGTAKE_CONNECT LONGTAKE_KEY_FILE LONGTAKE_SERVER_KEY
start --join "$join" --plain-tcp --groups 0
worker --plain-tcp
job=$(submit_held)
under_way "$job"
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
open_gate
start --join "$join" --plain-tcp --groups 0 --silence-ms 3000
longtake watch "$job" >watched || fail "job $job: $(cat watched)"
longtake fetch "$job" -o again.mp4
cmp -s again.mp4 whole.mp4 || fail "other bytes after the daemon was killed"
ok "a group joins a daemon that comes again"

# a group that falls silent is named, its job goes to another one, and it comes back
job=$(submit_held)
under_way "$job"
silent=$last
kill -STOP "$silent"
open_gate
worker --plain-tcp
longtake watch "$job" >watched || fail "job $job: $(cat watched)"
longtake fetch "$job" -o silent.mp4
cmp -s silent.mp4 whole.mp4 || fail "other bytes after a group fell silent"
logged "group.lost .*process $silent on .*has been silent"
n=$(grep -c group.joined log)
kill -CONT "$silent"
for _ in $(seq 1200); do [ "$(grep -c group.joined log)" -gt "$n" ] && break; sleep 0.05; done
[ "$(grep -c group.joined log)" -gt "$n" ] || fail "a group that woke does not come back"
ok "a silent group is named and replaced, and joins again when it wakes"
for p in $workers; do kill -9 "$p" 2>/dev/null || true; done

# one that does not get on is told to end
drain
start --join "$join" --plain-tcp --groups 0 --stall-ms 1500
FAKE_WORKER=step:20,stall:2,once:$tmp/stalled worker --plain-tcp
job=$(submit)
logged "has not got on for"
wait "$last" && fail "a group that stalls goes on"
worker --plain-tcp
longtake watch "$job" >watched || fail "job $job: $(cat watched)"
longtake fetch "$job" -o stalled.mp4
cmp -s stalled.mp4 whole.mp4 || fail "other bytes after a group stalled"
ok "a stalled group is named, ended and replaced"

# what a group that came by itself has loaded is what it has, threads too; what none has loaded is waited for, and told
job=$(submit --threads 3)
longtake watch "$job" >watched || fail "job $job: $(cat watched)"
grep -q "^note: --threads 3 has no effect" watched || fail "no word of the threads: $(cat watched)"
ok "a job with threads of its own is taken by a group that joined"
job=$(submit --dtype bf16)
for _ in $(seq 1200); do longtake status "$job" >out; grep -q "waits for a group with 1 speaker, bf16, 0 LoRAs" out && break; sleep 0.05; done
grep -q "waits for a group with 1 speaker, bf16, 0 LoRAs" out || fail "no word of what is waited for: $(cat out)"
next=$(submit)
longtake watch "$next" >watched || fail "job $next: $(cat watched)"
longtake cancel "$job" >/dev/null
ok "a job that no group here can take says what it waits for, and is in nobody's way"
kill -9 "$last"
drain

# a daemon's own group is held against those that join, and against the daemon
FAKE_WORKER=step:20 FAKE_BUILD=one start --join "$join" --plain-tcp
job=$(submit)
longtake watch "$job" >watched || fail "job $job: $(cat watched)"
FAKE_BUILD=two worker --plain-tcp
logged "given up: the worker of .* is another build (two)"
wait "$last" && fail "a group of another build goes on beside the daemon's own"
drain
FAKE_WORKER=step:20 FAKE_VERSION=0.0.9 start --attempts 1
job=$(submit)
longtake watch "$job" >watched && fail "a worker of another version renders"
grep -q "its worker is 0.0.9: install the same of both" watched || fail "job $job: $(cat watched)"
ok "a worker of another version is refused"
drain

# folders that a daemon left which was killed go when the next one starts a worker; living and young ones stay
leave() { # FOLDER AGE [WORDS]: a socket that nobody listens at any more, or, with words, somebody does
  mkdir -m 700 "$1"
  python3 - "$1" "${3:-}" <<'P' &
import os, socket, sys, time
s = socket.socket(socket.AF_UNIX)
os.chdir(sys.argv[1])
s.bind("socket")
if sys.argv[2]:
    s.listen()
    open("listens", "w")
    time.sleep(600)
P
  if [ -z "${3:-}" ]; then
    wait $!
  else
    workers="$workers $!"
    for _ in $(seq 1200); do [ -e "$1/listens" ] && break; sleep 0.05; done
  fi
  touch -d "$2" "$1"
}
leave "$tmp/longtake-aaaaaa" "1 hour ago"
leave "$tmp/longtake-bbbbbb" "1 hour" # from now: young however long this takes
leave "$tmp/longtake-cccccc" "1 hour ago" listen
render swept.mp4
[ ! -e longtake-aaaaaa ] || fail "a dead daemon's folder stays"
[ -S longtake-bbbbbb/socket ] && [ -S longtake-cccccc/socket ] || fail "a living folder is removed"
ok "what a killed daemon left is swept, what lives is not"
echo "doors: $checks checks passed"
