#!/usr/bin/env bash
# One film by several ranks, with the tiny model: 1, 2, 3 and 4 ranks make the same frames but for the order of sums, with
# weights whole and spread, with 1, 2 and 3 branches, one speaker and two. Ranks, their launcher and longtake are killed:
# the film has the bytes of the undisturbed run and nobody is left. What cannot work together is refused in a sentence.
#   ranks.sh BIN_DIR [SECONDS]      of voice [2]; kills take the short one
set -euo pipefail
bin=$(realpath "$1")
seconds=${2:-2}
here=$(cd "$(dirname "$0")/.." && pwd)
media=$here/deploy/media
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
export XDG_RUNTIME_DIR=$tmp
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
if ! command -v mpirun >/dev/null; then
  echo "skip: no mpirun"
  exit 0
fi
checks=0

fail() { echo "ranks: $*" >&2; exit 1; }
ok() { checks=$((checks + 1)); echo "ok $*"; }

"$bin/longtake" weights synth --seed 1 -o model >/dev/null
for v in voice voice2; do
  ffmpeg -v error -y -stream_loop -1 -i "$media/$v.wav" -t "$seconds" -c:a pcm_s16le $v.wav
done
ffmpeg -v error -y -i "$media/voice.wav" -t 2 -c:a pcm_s16le short.wav
one=(--image "$media/portrait.png" --audio voice.wav)
brief=(--image "$media/portrait.png" --audio short.wav)
two=("${one[@]}" --audio2 voice2.wav --audio-type para)
common=(--model model --seed 3 --crf 0 --overwrite)

# film NAME FLAG...: its frames as bytes
film() {
  timeout 300 "$bin/longtake" render "${common[@]}" "${@:2}" -o "$1.mp4" >/dev/null 2>log || fail "$*: $(tail -3 log)"
  ffmpeg -v error -y -i "$1.mp4" -pix_fmt yuv420p -f rawvideo "$1.raw"
}
# same A B NAME: as many frames, and frame for frame all but a byte in a thousand equal (in one frame, in fifty), none off by
# more than one
same() {
  local size
  size=$(ffprobe -v error -select_streams v -show_entries stream=width,height -of csv=p=0 "$1.mp4")
  python3 - "$1.raw" "$2.raw" "${size%,*}" "${size#*,}" <<'P' || fail "$3: the frames differ"
import sys
a, b = open(sys.argv[1], "rb").read(), open(sys.argv[2], "rb").read()
n = int(sys.argv[3]) * int(sys.argv[4]) * 3 // 2
frames = [[abs(x - y) for x, y in zip(a[i : i + n], b[i : i + n]) if x != y] for i in range(0, len(a), n)]
most, off = max(map(len, frames), default=0), sum(map(len, frames))
worst = max(max(f, default=0) for f in frames)
print(f"{len(frames)} frames of {n} bytes: {off} bytes differ, {most} in the worst frame, by at most {worst}")
sys.exit(len(a) != len(b) or not frames or len(a) % n or worst > 1 or off > len(a) / 1000 or most > n / 50)
P
  ok "$3"
}

film alone -n 1 "${one[@]}"
for way in "2" "3" "4" "4 --layout 1x2x2 --shard all"; do
  film many -n $way "${one[@]}"
  same alone many "-n $way"
done
for scales in "1 3" "5 4"; do
  guided=(--text-scale "${scales% *}" --audio-scale "${scales#* }")
  film alone2 -n 1 "${two[@]}" "${guided[@]}"
  for way in "2" "3 --shard node"; do
    film many -n $way "${two[@]}" "${guided[@]}"
    same alone2 many "-n $way, two speakers, scales $scales"
  done
done

# ---- kills

ranks_of() { pgrep -f "longtake-worker --connect ipc://$tmp/" || true; }
nobody() {
  for _ in $(seq 600); do
    [ -z "$(ranks_of)" ] && return
    sleep 0.1
  done
  fail "$1: ranks are left: $(ranks_of | tr '\n' ' ')"
}

long=(-n 3 "${brief[@]}" --steps 24) # enough that a quick machine is still under way when the kill comes
film whole "${long[@]}"
nobody "a film"
for victim in rank0 rank2 mpirun longtake; do
  rm -rf killed.mp4 killed.mp4.longtake
  "$bin/longtake" render "${common[@]}" "${long[@]}" -o killed.mp4 >/dev/null 2>log &
  pid=$!
  for _ in $(seq 3000); do # a new folder: the log in it is this render's
    grep -q "job.open" killed.mp4.longtake/worker.log 2>/dev/null && break
    sleep 0.02
  done
  launcher=$(pgrep -P "$pid" -x mpirun) || fail "there is no mpirun to kill"
  pkill -STOP -P "$launcher" || fail "the ranks were gone before they were killed" # none ends while the victim is looked for
  case $victim in
    rank?) target=$(for p in $(pgrep -P "$launcher"); do
      grep -qzx "OMPI_COMM_WORLD_RANK=${victim#rank}" "/proc/$p/environ" 2>/dev/null && echo "$p"
    done || true) ;;
    mpirun) target=$launcher ;;
    longtake) target=$pid ;;
  esac
  kill -9 $target || fail "$victim was gone before it was killed"
  pkill -CONT -P "$launcher" || true
  rc=0
  wait "$pid" 2>/dev/null || rc=$?
  if [ "$victim" = longtake ]; then
    nobody "a kill of longtake"
    timeout 300 "$bin/longtake" render "${common[@]}" "${long[@]}" -o killed.mp4 >/dev/null 2>log || fail "it does not go on: $(tail -3 log)"
  else
    [ "$rc" -eq 0 ] || fail "a kill of $victim: status $rc: $(tail -3 log)"
    grep -q "group.lost" log || fail "a kill of $victim is not told"
    case $victim in rank?) grep -q "rank ${victim#rank} ended on signal 9.*it was at: " log || fail "a kill of $victim is told so: $(grep group.lost log)" ;; esac
  fi
  cmp -s whole.mp4 killed.mp4 || fail "a kill of $victim: other bytes"
  nobody "a kill of $victim"
  ok "a kill of $victim: the same bytes, nobody left"
done

# ---- what happens to the weights of one rank while a segment is under way

# A worker whose rank 1 has weights of its own. The plain table reads them where they lie.
mkdir bent
cp "$bin/longtake" bent/
cat >bent/longtake-worker <<S
#!/usr/bin/env bash
args=("\$@")
if [ "\${OMPI_COMM_WORLD_RANK:-}" = 1 ]; then
  for i in "\${!args[@]}"; do [ "\${args[i]}" != --model ] || args[i+1]=$tmp/own; done
fi
exec "$bin/longtake-worker" "\${args[@]}" --table ref
S
chmod +x bent/longtake-worker

cut_short() { truncate -s 100000 own/diffusion_pytorch_model-00001-of-*; }
no_numbers() {
  python3 - own/diffusion_pytorch_model-0*.safetensors <<'P'
import os, sys
for path in sys.argv[1:]:
    with open(path, "r+b") as f:
        at = 8 + int.from_bytes(f.read(8), "little")
        f.seek(at)
        f.write(b"\xff" * (os.path.getsize(path) - at))
P
}
# struck WHAT PATTERN: it ends soon on all ranks and is told with the place
struck() {
  rm -rf own struck.mp4 struck.mp4.longtake
  cp -r model own
  timeout 120 bent/longtake render "${common[@]}" "${brief[@]}" -n 2 --shard off --steps 200 -o struck.mp4 >/dev/null 2>log &
  local pid=$! rc=0
  for _ in $(seq 3000); do
    grep -q "job.open" struck.mp4.longtake/worker.log 2>/dev/null && break
    sleep 0.05
  done
  "$1"
  wait "$pid" || rc=$?
  [ "$rc" -eq 1 ] || [ "$rc" -eq 3 ] || fail "$1: status $rc: $(tail -3 log)"
  grep -q "$2" log || fail "$1: $(tail -5 log)"
  nobody "$1"
  ok "$1 on rank 1 in the middle of a segment: told, and nobody left"
}
struck cut_short "rank 1: .*own/diffusion_pytorch_model-00001.* was cut short.*it was at: [a-z]"
struck no_numbers "segment 1, step [0-9]* of 200, .*: values that are not finite"

# ---- refusals

# refused STATUS WHAT SENTENCE FLAG...: once
refused() {
  local status=$1 rc=0
  shift
  timeout 60 "$bin/longtake" render "${common[@]}" "${brief[@]}" "${@:3}" -o no.mp4 >/dev/null 2>log || rc=$?
  [ "$rc" -eq "$status" ] || fail "$1: status $rc: $(tail -2 log)"
  [ "$(grep -cF "$2" log)" -eq 1 ] || fail "$1: $(tail -2 log)"
  ok "$1 is refused"
}
refused 3 "a layout of more ranks" "needs 4 ranks, and there are 2" -n 2 --layout 1x2x2
refused 3 "a number of ranks that fits no layout" "needs a multiple of 2 ranks, and there are 3" -n 3 --layout 0x2x0
refused 3 "heads that do not divide" "3 ranks cannot share the model's 4 attention heads evenly; use 1, 2 or 4" -n 3 --layout 1x1x3
refused 3 "guide ranks without branches" "2 ranks for 1 branch of guidance" -n 2 --layout 2x1x1
refused 3 "no layout" "'pairs' is no layout" -n 2 --layout pairs

rc=0
timeout 60 "$bin/longtake" plan --model model -n 2 --layout 1x2x2 >/dev/null 2>log || rc=$?
[ "$rc" -eq 3 ] && [ "$(wc -l <log)" -eq 1 ] && grep -q "needs 4 ranks, and there are 2; start as many" log ||
  fail "plan, of a layout of more ranks: status $rc: $(cat log)"
ok "plan refuses it in a line"

"$bin/longtake" weights synth --seed 2 -o other >/dev/null

# apart STATUS SENTENCE WHAT COMMAND...: of two ranks by hand, rank 1 is COMMAND, and rank 0 says why it cannot be
by_hand=(--connect "ipc://$tmp/nobody" --cache "$tmp" --wait 2 --threads 1 --layout 1x1x2)
group() { timeout 120 mpirun --bind-to none --oversubscribe -n 1 "$bin/longtake-worker" "${by_hand[@]}" --model model : -n 1 "$@"; }
apart() {
  local rc=0
  group "${@:4}" >log 2>&1 || rc=$?
  [ "$rc" -eq "$1" ] || fail "$3: status $rc: $(tail -3 log)"
  grep -q "longtake-worker: rank 1$2" log || fail "$3: $(cat log)"
  [ "$(grep -c 'longtake-worker: ' log)" -eq 1 ] || fail "$3: it is told more than once"
  ok "$3: refused"
}
apart 3 " has another set of weights than rank 0" "ranks with other weights" "$bin/longtake-worker" "${by_hand[@]}" --model other
apart 3 ": there is no model folder none" "an error of rank 1 alone" "$bin/longtake-worker" "${by_hand[@]}" --model none
python3 - "$bin/longtake-worker" worker-of-another-build <<'P'
import os, sys
b = bytearray(open(sys.argv[1], "rb").read())
b[b.index(b"\x03\0\0\0GNU\0") + 8] ^= 1  # of the build id
open(sys.argv[2], "wb").write(b)
os.chmod(sys.argv[2], 0o755)
P
apart 3 " has another build of this program than rank 0" "ranks of different builds" ./worker-of-another-build "${by_hand[@]}" --model model

# What rank 1 reserves when all goes well, but for the last of it. The shadow of a sanitizer leaves nothing to measure.
if grep -q __asan_init "$bin/longtake-worker"; then
  echo "not tried under a sanitizer: a rank without memory"
else
  group bash -c 'echo $$ >pid; exec "$@"' - "$bin/longtake-worker" "${by_hand[@]}" --model model >log 2>&1 &
  pid=$!
  most=0
  while kill -0 "$pid" 2>/dev/null; do
    now=$(awk '/VmPeak/ {print $2}' "/proc/$(cat pid 2>/dev/null || echo none)/status" 2>/dev/null || echo 0)
    [ "${now:-0}" -le "$most" ] || most=$now
    sleep 0.1
  done
  wait "$pid" && fail "a group without a coordinator ended well"
  grep -q "nobody has answered for [0-9]* s; start the daemon" log || fail "a group without a coordinator: $(tail -3 log)"
  apart 1 ": .*\(cannot reserve\|cannot map\|no memory\)" "a rank without memory" bash -c 'ulimit -v $0; exec "$@"' \
    $((most - 100000)) "$bin/longtake-worker" "${by_hand[@]}" --model model
fi
echo "ranks: $checks checks"
