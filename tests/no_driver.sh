#!/usr/bin/env bash
# `--device cuda` on a machine without a driver: one plain sentence that names the way out, and the exit status of a wrong
# request. Where there is a driver, gpusim's machines without one must do (test_gpusim).
#   tests/no_driver.sh BIN_DIR
set -euo pipefail
bin=$1
if [ -e /dev/nvidiactl ] || ldconfig -p | grep -q 'libcuda\.so'; then
  echo "skip: this machine has a driver"
  exit 0
fi
rc=0
said=$("$bin/longtake-worker" --selftest --device cuda 2>&1 >/dev/null) || rc=$?
echo "$said"
# The build says what it has; the sentence depends on that alone.
if grep -q 'this build has no CUDA table' <<<"$said"; then
  grep -q 'configure with -DLONGTAKE_CUDA=AUTO where nvcc is installed, or use --device cpu' <<<"$said"
else
  grep -qx 'longtake-worker: this machine has no NVIDIA driver: --device cuda needs one; install it, or use --device cpu' <<<"$said"
fi
[ "$rc" -eq 3 ]
[ "$(wc -l <<<"$said")" -eq 1 ]
echo "1 passed, 0 failed"
