#!/bin/sh
# Trains the small model from nothing, or goes on where it stopped: train.sh [SCALE] multiplies the minutes of every stage.
#
# Every stage keeps its state in $PUPPET_STATE (default: state/ beside this file) once or twice a minute and resumes from it;
# a stage that is done returns at once. A fresh folder takes the states of ckpt/ first (restore.py).
set -eu
cd "$(dirname "$0")"
scale=${1:-1}
python=${PYTHON:-python3}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" OMP_WAIT_POLICY=passive
export PUPPET_STATE="${PUPPET_STATE:-$PWD/state}"
minutes() { awk "BEGIN { print $1 * $scale }"; }
run() { nice -n "${NICE:-10}" "$python" "$@"; }
run restore.py
run train_voice.py "$(minutes 58)"
run train_vae.py "$scale"
run make_clips.py "${PUPPET_CLIPS:-8000}" "${PUPPET_PAIRS:-1000}"
run lips.py "$(minutes 3)"
run train_dit.py "$(minutes 140)"
run train_lora.py "$(minutes 15)"
run export.py
run check.py
