#!/usr/bin/env bash
# What is refused at submit, and batches: many films of one message, with a worker that needs no model.
#   batch.sh BIN_DIR
set -euo pipefail
bin=$(realpath "$1")
here=$(cd "$(dirname "$0")/.." && pwd)
tmp=$(mktemp -d)
daemon=
trap '[ -z "$daemon" ] || kill -9 "$daemon" 2>/dev/null; rm -rf "$tmp"' EXIT
cd "$tmp"
name=batch
. "$here/tests/daemon.sh"
export FAKE_WORKER=step:2,log:$tmp/runs
picture=$here/deploy/media/portrait.png voice=$here/deploy/media/voice.wav
render whole.mp4
: >log
start --groups 2

# refused before there is a number
echo "no picture" >poem.png
head -c 1000 "$voice" | head -c 30 >stub.wav
says "picture .* is neither a picture" 2 longtake submit --image poem.png --audio "$voice"
says "voice\|sound" 2 longtake submit --image "$picture" --audio stub.wav
says "poem.png\|neither a picture" 2 longtake submit --image poem.png --audio "$voice" --key again
[ -z "$(longtake list)" ] || fail "a refused job has a number: $(longtake list)"
ok "what cannot be read is refused before it has a number"

# one voice, three pictures, of which one is none
ffmpeg -v error -i "$picture" -vf hflip turned.png
mkdir films
says "turned: job 3 completed" 1 longtake batch --audio "$voice" --images "$picture" poem.png turned.png --key b -o films
grep -q "poem: job 2 failed: .*neither a picture" out || fail "the bad item says: $(cat out)"
cmp -s whole.mp4 films/portrait.mp4 || fail "the first item's film is another"
[ -e films/turned.mp4 ] && [ ! -e films/poem.mp4 ] || fail "films: $(ls films)"
ok "one bad item stops no other"
grep -q "submit.looked items=3 pictures=3 voices=1" log || fail "the voice was looked at more than once: $(grep submit.looked log)"
ok "a batch looks at its voice once"
longtake batch --audio "$voice" --images "$picture" poem.png turned.png --key b >out
[ "$(longtake list | wc -l)" -eq 3 ] || fail "the same key is another batch: $(longtake list)"
says "the key 'b/1' was used for another job, 1" 2 longtake batch --audio "$voice" --images turned.png poem.png --key b
says "neither a picture" 2 longtake batch --audio "$voice" --images poem.png poem.png
[ "$(longtake list | wc -l)" -eq 3 ] || fail "a batch of bad items has numbers"

# a file of items, keys for all, and pairs
cat >batch.yaml <<Y
image: $picture
sample-steps: 2
items:
  - {audio: $voice, output: slow.mp4, sample-steps: 4}
  - {audio: $here/deploy/media/voice2.wav}
Y
says "slow: job 4 completed" 0 longtake batch batch.yaml --wait
grep -q "item-2: job 5 completed" out || fail "items: $(cat out)"
[ "$(longtake status 4 --json | grep -o '"batch":[0-9]*')" = '"batch":4' ] || fail "job 4: $(longtake status 4 --json)"
says "give as many of each, or one" 2 longtake batch --audios "$voice" "$voice" --images a b c
echo "seed: 3" >empty.yaml
says "has no list .items" 2 longtake batch empty.yaml

# films that are there already, cannot be brought, or would have one name
n=$(longtake list | wc -l)
says "films/turned.mp4 exists; move it away" 2 longtake batch --audio "$voice" --images turned.png "$picture" -o films
[ "$(longtake list | wc -l)" -eq "$n" ] || fail "a batch whose film has no place has numbers"
rm films/turned.mp4
says "films/portrait.mp4 is there already" 1 longtake batch --audio "$voice" --images "$picture" poem.png turned.png --key b -o films
[ -e films/turned.mp4 ] || fail "a batch that is asked again brings no more: $(ls films)"
mkdir -p more/portrait.mp4.part other
says "more/portrait.mp4.part" 1 longtake batch --audio "$voice" --images "$picture" turned.png -o more
[ -e more/turned.mp4 ] || fail "a film that cannot be brought stops another: $(ls more)"
cp "$picture" film-3.png
cp "$picture" film.png
cp turned.png other/film.png
mkdir three
says "film-3-3: job" 0 longtake batch --audio "$voice" --images film-3.png film.png other/film.png -o three
[ "$(ls three | wc -l)" -eq 3 ] || fail "three films: $(ls three)"
drain
echo "batch: $checks checks passed"
