#!/usr/bin/env bash
# Ranks that somebody else has started: two and three of them join a daemon, their films are those of one rank but for the
# order of sums. A rank that is killed is told with its number and where the group was, whichever it is; the same ranks
# started once more go on, and the film has the bytes of the undisturbed one.
#   by_hand.sh BIN_DIR
set -euo pipefail
bin=$(realpath "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
tmp=$(mktemp -d)
daemon= group=
trap 'for p in $group $daemon; do kill -9 "$p" 2>/dev/null || true; done; rm -rf "$tmp"' EXIT
cd "$tmp"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
if ! command -v mpirun >/dev/null; then
  echo "skip: no mpirun"
  exit 0
fi
name=by_hand
. "$here/tests/daemon.sh"
silence=() # the daemon's own: a group whose rank 0 was killed says nothing more, and is waited for

longtake weights synth --seed 1 -o real >/dev/null
ffmpeg -v error -y -stream_loop -1 -i "$here/deploy/media/voice.wav" -t 1 -c:a pcm_s16le voice.wav
inputs=(--image "$here/deploy/media/portrait.png" --audio voice.wav --seed 3 --crf 0 --steps 24)
longtake render --model real "${inputs[@]}" -n 1 -o alone.mp4 >/dev/null 2>log || fail "render fails"

: >log
: >group.log
join=ipc://$tmp/join
start --model real --join "$join" --groups 0
# group N: as somebody would start it
group() {
  mpirun --bind-to none --oversubscribe -n "$1" "$bin/longtake-worker" --connect "$join" --model real --cache "$tmp" \
    --threads 1 --wait 60 --layout "1x$1x1" >>group.log 2>&1 &
  group=$!
}
fetch() { longtake watch "$1" >watched || fail "job $1: $(cat watched)"; longtake fetch "$1" -o "$2"; }

# same A B: as many frames, none off by more than one in a byte
same() {
  local raw
  for raw in "$1" "$2"; do ffmpeg -v error -y -i "$raw.mp4" -pix_fmt yuv420p -f rawvideo "$raw.raw"; done
  python3 - "$1.raw" "$2.raw" <<'P' || fail "$2 is another film than $1"
import sys
a, b = (open(p, "rb").read() for p in sys.argv[1:])
off = [abs(x - y) for x, y in zip(a, b) if x != y]
print(f"{len(a)} bytes, {len(off)} differ, by at most {max(off, default=0)}")
sys.exit(len(a) != len(b) or not a or max(off, default=0) > 1 or len(off) > len(a) / 1000)
P
  ok "$2 is the film $1"
}

for n in 2 3; do
  group $n
  logged "group.joined .*process [0-9]* on .*, $n ranks"
  fetch "$(submit)" "by$n.mp4"
  same alone "by$n"
  [ $n -eq 3 ] && break
  kill -TERM "$group"
  wait "$group" 2>/dev/null || true
  logged "group.lost.* left: "
done

# kill_rank NUMBER: of the group's, when it has the job
kill_rank() {
  for _ in $(seq 600); do [ "$(grep -c "job.open" group.log)" -gt "$opened" ] && break; sleep 0.02; done
  for p in $(pgrep -P "$group"); do
    if grep -qzx "OMPI_COMM_WORLD_RANK=$1" "/proc/$p/environ" 2>/dev/null; then kill -9 "$p"; fi
  done
  wait "$group" 2>/dev/null || true
}
for rank in 2 0; do
  opened=$(grep -c "job.open" group.log)
  job=$(submit)
  kill_rank $rank
  case $rank in
    0) logged "group.lost job=$job .*: its rank 0, which speaks for it, has ended or hangs \(it was at: [a-z]" ;;
    *) logged "group.lost job=$job .* left: rank $rank of 3 \(process [0-9]*\) ended \(it was at: [a-z]" ;;
  esac
  group 3
  completes "$job" by3.mp4
  ok "rank $rank was killed: told, and the film has the bytes of the undisturbed one"
done
# who started them ends them, too
kill -TERM "$group"
wait "$group" 2>/dev/null || true
group=
for _ in $(seq 100); do pgrep -f "longtake-worker --connect $join" >left || break; sleep 0.1; done
[ ! -s left ] || fail "ranks are left: $(cat left)"
drain
echo "by_hand: all told"
