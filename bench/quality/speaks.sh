#!/usr/bin/env bash
# Whether a small model speaks: a drawn face and a voice that no training saw, rendered by the program; the opening of the
# mouth, read off the frames, must follow the voice's own, at lag 0 and nowhere else, and the mouth be closed in silence.
# A photograph is answered by a notice, the drawn face is not.
# exam.py makes the exam and says how a mouth is read; this asks for nothing but ffmpeg and plain python3.
#   speaks.sh BIN_DIR MODEL EXAM PHOTO
set -euo pipefail
bin=$(realpath "$1")
model=$(realpath "$2")
exam=$(realpath "$3")
photo=$(realpath "$4")
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

timeout 600 "$bin/longtake" render --model "$model" --image "$exam/face.png" --audio "$exam/voice.wav" --crf 10 \
  -o "$tmp/film.mp4" 2>"$tmp/log" || { tail -3 "$tmp/log" >&2; exit 1; }
timeout 600 "$bin/longtake" render --model "$model" --image "$photo" --audio "$exam/voice.wav" --max-frame-num 5 --steps 1 \
  -o "$tmp/photo.mp4" 2>"$tmp/photo.log" || { tail -3 "$tmp/photo.log" >&2; exit 1; }
grep -q "looks like a photograph" "$tmp/photo.log" || { echo "no notice for a photograph" >&2; exit 1; }
! grep -q "looks like a photograph" "$tmp/log" || { echo "the drawn face is taken for a photograph" >&2; exit 1; }
ffmpeg -v error -i "$tmp/film.mp4" -f rawvideo -pix_fmt rgb24 "$tmp/film.rgb"
python3 - "$tmp/film.rgb" "$exam/truth.json" <<'P'
import json
import sys

SIDE, LEAST, CLOSED = 96, 0.6, 0.15
data, exam = open(sys.argv[1], "rb").read(), json.load(open(sys.argv[2]))
x0, x1, y0, y1 = exam["box"]
truth, read = exam["opening"], []
for i in range(len(data) // (3 * SIDE * SIDE)):
    box = b"".join(data[3 * (SIDE * (SIDE * i + y) + x0):3 * (SIDE * (SIDE * i + y) + x1)] for y in range(y0, y1))
    read.append(exam["bias"] + sum(w * v for w, v in zip(exam["weights"], box)))
if len(read) != len(truth):
    sys.exit("the film has %d frames, the voice %d" % (len(read), len(truth)))


def correlation(a, b):
    ma, mb = sum(a) / len(a), sum(b) / len(b)
    ab = sum((x - ma) * (y - mb) for x, y in zip(a, b))
    return ab / (sum((x - ma) ** 2 for x in a) * sum((y - mb) ** 2 for y in b)) ** 0.5


at = {d: correlation(read[max(0, d):len(read) + min(0, d)], truth[max(0, -d):len(truth) + min(0, -d)]) for d in range(-5, 6)}
best = max(at, key=at.get)
quiet = [r for r, t in zip(read, truth) if t < 0.03]
print("correlation %.3f at lag 0, best %.3f at %d frames; opening in %d silent frames %.3f" % (
    at[0], at[best], best, len(quiet), sum(quiet) / max(1, len(quiet))))
if at[0] < LEAST or abs(best) > 1 or (quiet and sum(quiet) / len(quiet) > CLOSED):
    sys.exit("the mouth does not follow the voice: at least %g at lag 0 and at most %g in silence are expected" % (LEAST, CLOSED))
P
