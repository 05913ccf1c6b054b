#!/usr/bin/env bash
# What comes from strangers, against the real program with the tiny model: every case of the tables in bad/ is a job; it
# must end as its row says, with one sentence that names the thing and the way out, and leave nothing behind.
#   bad_input.sh BIN_DIR TABLE...          KEEP=1 keeps the folder
#
# A row:  case NUMBER what it is      a job in a folder of its own; out.mp4 is its output
#         need TEST...                a shell test; the case is skipped where it fails
#         make COMMANDS               shell: makes its inputs; may be repeated
#         args FLAGS                  of render, after the usual ones; $image and $voice are good inputs
#         run COMMANDS                instead of args: shell that starts the program itself
#         ends CODE [FRAMES]          the exit code; with 0, how many frames out.mp4 must have
#         says WORDS                  an extended pattern that a line of stderr must match; may be repeated
#         check COMMANDS              shell: what else must hold
# Cases run side by side, as many as there are cores.
set -euo pipefail
bin=$(realpath "$1")
shift
here=$(cd "$(dirname "$0")" && pwd)
tmp=$(mktemp -d)
trap '[ -n "${KEEP:-}" ] && echo "kept $tmp" || rm -rf "$tmp"' EXIT
chmod 755 "$tmp"
export bin tmp model=$tmp/model image=$tmp/image.png voice=$tmp/voice.wav voice2=$tmp/voice2.wav

# ---- words for the rows

# still SIZE FILE [FFMPEG FLAGS]: a picture;  sound SECONDS RATE FILE [FLAGS]: a voice;  film SECONDS RATE SIZE FILE [FLAGS]
ff() { ffmpeg -nostdin -v error -y -threads 1 "$@"; }
still() { local size=$1 file=$2; shift 2; ff -f lavfi -i "testsrc2=s=$size" -frames:v 1 "$@" "$file"; }
sound() {
  local seconds=$1 rate=$2 file=$3
  shift 3
  ff -f lavfi -i "aevalsrc='0.3*sin(1400*t)*(0.6+0.4*sin(25*t))':s=$rate:d=$seconds" "$@" "$file"
}
film() { local seconds=$1 rate=$2 size=$3 file=$4; shift 4; ff -f lavfi -i "testsrc2=s=$size:r=$rate:d=$seconds" -pix_fmt yuv420p "$@" "$file"; }
odd() { python3 "$here/bad/odd.py" "$@"; }
tensors() { python3 "$here/bad/tensors.py" "$@"; }
encodes() { [ "$(ffmpeg -v error -h "encoder=$1" 2>/dev/null | grep -c ^Encoder)" -gt 0 ]; } # grep -q would end ffmpeg with a signal
frames_of() { ffprobe -v error -count_frames -select_streams v:0 -show_entries stream=nb_read_frames -of csv=p=0 "$1"; }
stream_of() { ffprobe -v error -select_streams "$2" -show_entries "stream=$3" -of csv=p=0 "$1"; }
render() { render_named -o out.mp4 "$@"; }
render_named() { # by the program
  timeout -k 5 600 "$bin/longtake" render --model "$model" --frame-num 9 --motion-frame 5 --steps 1 --preset ultrafast \
    "$@"
}
# model_with COMMANDS: the model's folder again, as links, but for what the commands, run inside it, replace
model_with() { cp -rs "$tmp/model" model && (cd model && eval "$1"); }
own() { cp --remove-destination "$(readlink -f "$1")" "$1"; } # a file of the folder's own in the place of the link
# worker_of, decoder_of: the process that belongs to the job of this folder, once it is there and denoises
child_of() {
  local i pid parent
  for i in $(seq 1200); do
    for pid in $(pgrep -f "$1" || true); do # no process a candidate: a busy machine has many, and each costs it time
      read -r _ _ _ parent _ 2>/dev/null <"/proc/$pid/stat" || continue
      [ ! "/proc/$parent/cwd" -ef "$PWD" ] || { echo "$pid"; return 0; }
    done
    sleep 0.05
  done
  return 1
}
worker_of() {
  local i
  for i in $(seq 1200); do grep -q '"stage":"denoise"' "$said" && break; sleep 0.05; done
  child_of longtake-worker
}
decoder_of() { child_of '__media picture'; }
export here
export -f ff still sound film odd tensors encodes frames_of stream_of render render_named model_with own child_of worker_of decoder_of

# ---- one case

listing() { find . -mindepth 1 ! -path ./out.mp4 | sort; }

sum_of() { [ ! -f "$1" ] || cksum <"$1"; }

wrong() {
  echo "FAILED case $number $title: $*"
  sed 's/^/    stderr: /' "$said"
  return 1
}

run_case() {
  local number=$1 title=$2 i=$3 rc=0
  shift 3
  local need="" make="" args="" run="" ends="" check="" key value
  local -a says=()
  for line in "$@"; do
    key=${line%% *} value=${line#* }
    case $key in
    need) need=$value ;;
    make) make+="$value"$'\n' ;;
    args) args=$value ;;
    run) run=$value ;;
    ends) ends=$value ;;
    says) says+=("$value") ;;
    check) check+="$value"$'\n' ;;
    *) echo "FAILED case $number $title: the table knows no '$key'"; return 1 ;;
    esac
  done
  local dir=$tmp/$i said=$tmp/$i.stderr
  mkdir "$dir" && chmod 777 "$dir" && cd "$dir"
  : >"$said"
  if [ -n "$need" ] && ! eval "$need" >/dev/null 2>&1; then
    echo "skip case $number $title: $need"
    return 0
  fi
  (set -euo pipefail; eval "$make") >"$said" 2>&1 || { wrong "its inputs cannot be made"; return 1; }
  local before after there code=${ends%% *} frames=${ends#* }
  before=$(listing) there=$(sum_of out.mp4)
  (eval "${run:-render $args}") >"$tmp/$i.stdout" 2>"$said" || rc=$?
  [ "$rc" = "$code" ] || { wrong "exit $rc, not $code"; return 1; }
  for words in "${says[@]}"; do grep -Eq -- "$words" "$said" || { wrong "no word of '$words'"; return 1; }; done
  ! grep -Eq 'Sanitizer|runtime error' "$said" || { wrong "a sanitizer speaks"; return 1; }
  if [ "$code" = 0 ]; then
    [ "$frames" = "$code" ] || [ "$(frames_of out.mp4)" = "$frames" ] || { wrong "$(frames_of out.mp4) frames, not $frames"; return 1; }
  else
    [ "$(grep -c '^longtake: ' "$said")" = 1 ] || grep -q 'what was made so far plays' "$said" || { wrong "not one sentence"; return 1; }
    [ "$there" = "$(sum_of out.mp4)" ] || { wrong "a film stands where none was finished"; return 1; }
  fi
  after=$(listing)
  [ "$before" = "$after" ] || { wrong "left behind: $(comm -13 <(echo "$before") <(echo "$after") | tr '\n' ' ')"; return 1; }
  (set -euo pipefail; eval "$check") >>"$said" 2>&1 || { wrong "does not hold: $check"; return 1; }
  echo "ok case $number $title"
  rm -rf "$dir"
}

# ---- all of them

setup() {
  "$bin/longtake" weights synth --seed 1 -o "$model" >/dev/null
  still 256x256 "$image"
  sound 0.2 16000 "$voice"
  sound 0.2 16000 "$voice2" -af volume=0.7
}
(umask 022; setup)

n=0 cores=$(nproc)
lines=() number="" title=""
start_case() {
  [ -n "$number" ] || return 0
  n=$((n + 1))
  while [ "$(jobs -rp | wc -l)" -ge "$cores" ]; do wait -n || true; done
  run_case "$number" "$title" "$n" "${lines[@]}" >"$tmp/$n.result" 2>&1 &
  number="" lines=()
}
for table in "$@"; do
  while IFS= read -r line <&3 || [ -n "$line" ]; do
    case $line in
    "" | "#"*) ;;
    "case "*)
      start_case
      number=${line#case } title=${number#* } number=${number%% *}
      [ -z "${ONLY:-}" ] || [ "$ONLY" = "$number" ] || number=""
      ;;
    *) [ -z "$number" ] || lines+=("$line") ;;
    esac
  done 3<"$table"
  start_case
done
wait || true
for i in $(seq "$n"); do cat "$tmp/$i.result"; done
ok=$(cat "$tmp"/*.result | grep -c '^ok ') || true
skipped=$(cat "$tmp"/*.result | grep -c '^skip ') || true
echo "bad input: $ok of $n cases ok, $skipped skipped"
[ $((ok + skipped)) -eq "$n" ] && [ "$ok" -gt 0 ]
