#!/usr/bin/env bash
# The coordinator under load: bench/queue.sh [options of bench_queue]. A real daemon on two cores with a thousand groups that paint
# numbered frames and ten thousand jobs that wait: how long a free group waits, how long a client waits, what the daemon's memory
# does, and how much it does in a second at most. Under five minutes on a quiet machine; the result is
# bench/results/queue-<CPU>-<commit>.txt, and its last line a verdict: status 4 where something wanted was missed. TMPDIR names the
# disk of the store; `bench/table.py --coordinator --readme` puts the result into the README.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD

cmake -G Ninja -B build-bench -DCMAKE_BUILD_TYPE=Release -DLONGTAKE_TESTS=OFF -DLONGTAKE_BENCH=ON >/dev/null
cmake --build build-bench -j "$(nproc)" --target bench_queue longtake >/dev/null
bin=$here/build-bench/bin
commit=$(git rev-parse --short HEAD)
[ -z "$(git status --porcelain --untracked-files=no)" ] || commit=$commit-changed
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1 | tr -cs 'A-Za-z0-9' '-' | sed 's/-*$//')
read -r load _ </proc/loadavg

tmp=$(mktemp -d)
daemon=
trap '[ -z "$daemon" ] || kill -9 "$daemon" 2>/dev/null; rm -rf "$tmp"' EXIT
ulimit -n "$(ulimit -Hn)" # a job that is under way holds a few files
[ "$(nproc)" -le 2 ] || taskset -cp "$(taskset -cp $$ | sed -E 's/.*: //' | tr , '\n' | awk -F- '{for (i = $1; i <= ($2 ? $2 : $1); i++) print i}' | head -2 | paste -sd,)" $$ >/dev/null
export GOMP_SPINCOUNT=1000

. tests/fake_model.sh
fake_model "$tmp/model"
# 0.6 s of a tone, one segment of that model, and a picture of its size
python3 - "$tmp" <<'P'
import math, struct, sys, wave, zlib
with wave.open(sys.argv[1] + "/voice.wav", "wb") as w:
    w.setnchannels(1); w.setsampwidth(2); w.setframerate(16000)
    w.writeframes(b"".join(struct.pack("<h", int(8000 * math.sin(i / 8))) for i in range(9600)))
chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
rows = b"".join(b"\0" + bytes(v for x in range(64) for v in (4 * x, 4 * y, 128)) for y in range(64))
with open(sys.argv[1] + "/picture.png", "wb") as f:
    f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
P

mkdir "$tmp/store"
"$bin/longtake" serve --store "$tmp/store" --model "$tmp/model" --groups 0 --join "ipc://$tmp/join" --free-min 0 2>"$tmp/log" &
daemon=$!
# the media are brought, and looked at, by the first job
for _ in $(seq 100); do "$bin/longtake" list --store "$tmp/store" >/dev/null 2>&1 && break; sleep 0.1; done
"$bin/longtake" submit --store "$tmp/store" --image "$tmp/picture.png" --audio "$tmp/voice.wav" >/dev/null

mkdir -p bench/results
out=bench/results/queue-${cpu:-unknown}-$commit.txt
rc=0
{
  echo "# commit $commit, $(date -u +%Y-%m-%d), ${cpu:-unknown CPU}, load before the run: $load of $(nproc) CPUs, store on $(df --output=fstype "$tmp" | tail -1)"
  echo "# daemon, groups and clients share $(taskset -cp $$ | sed -E 's/.*: /CPUs /'); segments of 15 frames of 64x64; the media were looked at before (no probe in submit)"
  echo
  "$bin/bench_queue" --store "$tmp/store" --join "ipc://$tmp/join" --model "$tmp/model" --picture "$tmp/picture.png" --voice "$tmp/voice.wav" \
    --pid "$daemon" "$@" || rc=$?
  [ "$rc" -eq 0 ] || [ "$rc" -eq 4 ] || exit 1
  echo "the daemon's log: $(grep -c 'job.over.*state=completed' "$tmp/log" || true) jobs completed, $(grep -c 'job.over.*state=failed' "$tmp/log" || true) failed, $(grep -c 'group.lost' "$tmp/log" || true) groups lost"
  exit "$rc"
} | tee "$out.new" || rc=$?
[ "$rc" -eq 0 ] || [ "$rc" -eq 4 ] || { rm -f "$out.new"; tail -5 "$tmp/log" >&2; exit 1; }
mv "$out.new" "$out"
if awk -v l="$load" 'BEGIN { exit !(l > 0.5) }'; then
  echo "The machine was busy ($load): take these numbers for hints." >&2
fi
echo "$out" >&2
exit "$rc"
