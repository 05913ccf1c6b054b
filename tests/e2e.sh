#!/usr/bin/env bash
# The whole program from files to files, with the tiny model: a photograph and a recorded voice, a film at 30000/1001 to
# dub, two speakers, published job files; frame counts, sound and bytes are what they must be. Then a worker that is killed, and longtake itself.
#   e2e.sh BIN_DIR
set -euo pipefail
bin=$(realpath "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
media=$here/deploy/media
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
checks=0

fail() { echo "e2e: $*" >&2; exit 1; }
ok() { checks=$((checks + 1)); echo "ok $*"; }
equal() { [ "$1" = "$2" ] || fail "$3: $1, expected $2"; ok "$3 = $2"; }

probe() { ffprobe -v error "$@"; }
frames_of() { probe -count_frames -select_streams v:0 -show_entries stream=nb_read_frames -of csv=p=0 "$1"; }
# samples a channel that the file plays, after edit lists
samples_of() { ffmpeg -v error -i "$1" -map 0:a:0 -ac 1 -f f32le - | wc -c | awk '{print $1 / 4}'; }
rate_of() { probe -select_streams a:0 -show_entries stream=sample_rate -of csv=p=0 "$1"; }
seconds_of_wav() { probe -show_entries stream=duration_ts,sample_rate -of csv=p=0 "$1"; }

# check FILE VOICE.wav NAME: frames = round(seconds x 25), sound within one AAC frame of the voice, codecs, index in front
check() {
  local file=$1 voice=$2 name=$3 rate n want got
  IFS=, read -r rate n < <(seconds_of_wav "$voice")
  want=$(((50 * n + rate) / (2 * rate)))
  [ "$want" -ge 1 ] || want=1
  equal "$(frames_of "$file")" "$want" "$name: frames"
  got=$(samples_of "$file")
  awk -v got="$got" -v out="$(rate_of "$file")" -v n="$n" -v rate="$rate" \
    'BEGIN { d = got - n * out / rate; exit !(d <= 1024 && d >= -1024) }' ||
    fail "$name: sound has $got samples at $(rate_of "$file"), the voice $n at $rate"
  ok "$name: sound lasts what the voice lasts"
  equal "$(probe -select_streams v:0 -show_entries stream=codec_name,pix_fmt,r_frame_rate -of csv=p=0 "$file")" \
    "h264,yuv420p,25/1" "$name: video stream"
  equal "$(probe -select_streams a:0 -show_entries stream=codec_name -of csv=p=0 "$file")" aac "$name: sound stream"
  python3 - "$file" <<'P' || fail "$name: moov is not in front of mdat"
import struct, sys
order, at, data = [], 0, open(sys.argv[1], "rb").read()
while at < len(data):
    n, kind = struct.unpack(">I4s", data[at:at + 8])
    order.append(kind)
    at += n if n else len(data)
sys.exit(0 if order.index(b"moov") < order.index(b"mdat") else 1)
P
  ok "$name: index in front"
  [ ! -e "$file.longtake" ] || fail "$name: $file.longtake is left behind"
}

# cut SECONDS FROM TO: that much of a voice
cut() { ffmpeg -v error -y -i "$2" -t "$1" -c:a pcm_s16le "$3"; }

render() { timeout 300 "$bin/longtake" render --model "$tmp/model" "$@" 2>"$tmp/log" || fail "render $*: $(tail -3 "$tmp/log")"; }

"$bin/longtake" weights synth --seed 1 -o model >/dev/null
cut 4.39 "$media/voice.wav" voice.wav
cut 2.10 "$media/voice2.wav" voice2.wav

# a photograph
render --image "$media/portrait.png" --audio voice.wav --prompt "A woman is speaking." --seed 3 -o photo.mp4
check photo.mp4 voice.wav photo
render --image "$media/portrait.png" --audio voice.wav --prompt "A woman is speaking." --seed 3 -o again.mp4
cmp -s photo.mp4 again.mp4 || fail "the same job gave other bytes"
ok "the same job gives the same bytes"
render --image "$media/portrait.png" --audio voice.wav --prompt "A woman is speaking." --seed 4 -o other.mp4
! cmp -s photo.mp4 other.mp4 || fail "another seed gave the same bytes"
ok "another seed gives another film"
ffmpeg -v error -i photo.mp4 -vf "select=eq(n\,5)+eq(n\,60),format=gray" -fps_mode passthrough -f rawvideo frames.raw
python3 - frames.raw <<'P' || fail "the pictures are flat or stand still"
import sys
data = open(sys.argv[1], "rb").read()
a, b = data[:len(data) // 2], data[len(data) // 2:]
spread = max(a) - min(a)
moved = sum(abs(x - y) for x, y in zip(a, b)) / len(a)
print(f"spread {spread}, moved {moved:.2f}")
sys.exit(0 if spread > 30 and moved > 0.3 else 1)
P
ok "the picture has contrast and moves"

# a film to dub, at 30000/1001
ffmpeg -v error -y -loop 1 -i "$media/portrait.png" -t 3 -r 30000/1001 \
  -vf "crop=iw-60:ih-60:x='t*20':y='t*20',scale=320:-2" -pix_fmt yuv420p film.mp4
render --video film.mp4 --audio voice.wav -o dub.mp4
check dub.mp4 voice.wav dub

# two speakers: at once, and one after the other
render --image "$media/portrait.png" --audio voice.wav --audio2 voice2.wav --audio-type para -o para.mp4
check para.mp4 voice.wav para
ffmpeg -v error -y -i voice.wav -i voice2.wav -filter_complex "[0:a][1:a]concat=v=0:a=1" -c:a pcm_s16le both.wav
render --image "$media/portrait.png" --audio voice.wav --audio2 voice2.wav --audio-type add -o add.mp4
check add.mp4 both.wav add

# the published program's job file and flags
cat >job.json <<J
{"prompt": "Two people are talking.", "cond_video": "$media/portrait.png",
 "cond_audio": {"person1": "voice.wav", "person2": "voice2.wav"}, "audio_type": "para",
 "bbox": {"person1": [60, 60, 400, 240], "person2": [60, 260, 400, 480]}}
J
render --input_json job.json --sample_steps 2 --mode streaming --motion_frame 9 --sample_text_guide_scale 1.0 \
  --sample_audio_guide_scale 1.0 --save_file published.mp4
check published.mp4 voice.wav published

# every branch of guidance, a job file in YAML
cat >job.yaml <<J
image: $media/portrait.png
audio: voice2.wav
text-scale: 5
audio-scale: 4
use-apg: yes
output: guided.mp4
J
render --input-json job.yaml
check guided.mp4 voice2.wav guided

# a worker that dies: another one goes on, and the bytes are the same
"$bin/longtake" render --model model --image "$media/portrait.png" --audio "$tmp/voice.wav" --prompt "A woman is speaking." \
  --seed 3 -o killed.mp4 2>log &
pid=$!
for _ in $(seq 6000); do
  grep -q "job.open" killed.mp4.longtake/worker.log 2>/dev/null && break
  sleep 0.01
done
worker=$(pgrep -P "$pid" -f longtake-worker) || fail "no worker was started"
kill -9 "$worker"
wait "$pid" || fail "the render ends after its worker died: $(tail -3 log)"
cmp -s photo.mp4 killed.mp4 || fail "another worker made other bytes"
grep -q "group.lost" log || fail "no word about the worker: $(cat log)"
ok "another worker goes on where one was killed"

# longtake itself is killed: the same command goes on
"$here/tests/torture.sh" "$bin" 3 real 4 || fail "a killed render does not go on to the same bytes"
ok "the same command goes on where longtake was killed"

echo "e2e: $checks checks passed"
