# To be sourced, with bin, here and tmp set, in the test's folder: a daemon of the test's own, a worker that needs no model, a
# job for both, and the words in which tests speak to them. name says who fails; flags=(...) go to every start. A job that must still be
# under way when something is done to it is held; the worker is then given gate:$tmp/gate.
daemon= checks=0 flags=() silence=(--silence-ms 60000) # a busy machine loses no group
export XDG_DATA_HOME=$tmp/data XDG_RUNTIME_DIR=$tmp ASAN_OPTIONS=${ASAN_OPTIONS:-}:verify_asan_link_order=0
inputs=(--image "$here/deploy/media/portrait.png" --audio "$here/deploy/media/voice.wav")
fail() { echo "$name: $*" >&2; tail -5 log >&2; exit 1; }
ok() { checks=$((checks + 1)); echo "ok $*"; }
longtake() { timeout 60 "$bin/longtake" "$@"; }
submit() { longtake submit "${inputs[@]}" "$@" | sed -E 's/job ([0-9]+):.*/\1/'; }
field() { longtake status "$1" --json | sed -E "s/.*\"$2\":\"?([a-z0-9]+).*/\1/"; }
# waits behind its third segment until open_gate
submit_held() { touch "$tmp/gate"; submit "$@"; }
open_gate() { rm -f "$tmp/gate"; }
until_segment() { for _ in $(seq 3000); do [ "$(field "$1" segments)" -ge "$2" ] && return; sleep 0.02; done; fail "job $1 never has segment $2"; }
ended() { for _ in $(seq 1200); do case $(field "$1" status) in failed | completed) return ;; esac; sleep 0.05; done; fail "job $1 does not end"; }
completes() { # JOB [FILM]: with the bytes of that film, else of whole.mp4
  longtake watch "$1" >out 2>&1 || fail "job $1: $(tail -1 out)"
  rm -f got.mp4
  longtake fetch "$1" -o got.mp4 || fail "no film of job $1"
  cmp -s "${2:-whole.mp4}" got.mp4 || fail "job $1 has other bytes"
}
says() { # WORDS CODE COMMAND...: ends with the code, and a line of what it says has the words
  local words=$1 code=$2 rc=0
  shift 2
  "$@" >out 2>err || rc=$?
  [ "$rc" -eq "$code" ] || fail "$*: ends with $rc, not $code: $(cat out err)"
  grep -q -- "$words" out err || fail "$*: no '$words' in: $(cat out err)"
  ok "$words"
}
logged() { for _ in $(seq 1200); do grep -qE -- "$1" log && { ok "logged: $1"; return; }; sleep 0.05; done; fail "no '$1' in the log"; }
# FILM [FLAG...]: what an undisturbed run makes of the job
render() { local film=$1; shift; longtake render --model model --worker "$bin/fake_worker" "${inputs[@]}" "$@" -o "$film" 2>/dev/null || fail "render fails"; }
start() {
  "$bin/longtake" serve --model model --worker "$bin/fake_worker" "${silence[@]}" "${flags[@]}" "$@" 2>>log &
  daemon=$!
  for _ in $(seq 1200); do longtake list >/dev/null 2>&1 && return; sleep 0.05; done
  fail "the daemon does not start"
}
stop() { kill -9 "$daemon" && wait "$daemon" 2>/dev/null || true; daemon=; }
drain() { # [CODE]: SIGTERM, and so it ends
  local rc=0
  kill -TERM "$daemon"
  wait "$daemon" 2>/dev/null || rc=$?
  [ "$rc" -eq "${1:-0}" ] || fail "after SIGTERM the daemon ends with $rc, not ${1:-0}"
  daemon=
}
. "$here/tests/fake_model.sh"
fake_model model
