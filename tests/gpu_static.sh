#!/usr/bin/env bash
# The programs as a machine with cards gets them: configured with the CUDA table, compiled by nvcc, linked, and asked what
# can be asked without a card. Then what the real compiler made of the kernels: no spills, no local memory, tensor-core
# instructions where they were meant, 16-byte loads where they were meant, registers within what the essays claim. Needs
# nvcc, and cuobjdump for the instructions.
#   tests/gpu_static.sh [ARCH ...]      default: sm_80 sm_90a. Without a toolkit it prints "skip: .." and ends well.
set -euo pipefail
cd "$(dirname "$0")/.."

archs=("$@")
[ $# -gt 0 ] || archs=(sm_80 sm_90a)
export PATH="$PATH:/usr/local/cuda/bin"
command -v nvcc >/dev/null || { echo "skip: no nvcc"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The disassembler is a package of its own: the toolkit's, or PyPI's, put aside in this run's folder.
if ! command -v cuobjdump >/dev/null || ! command -v nvdisasm >/dev/null; then
  python3 -m pip install -q --no-deps --target "$work/tools" nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm >/dev/null 2>&1 || true
  PATH="$PATH:$(dirname "$(find "$work/tools" -name cuobjdump 2>/dev/null | head -1)" 2>/dev/null || true)"
  chmod +x "$work"/tools/nvidia/*/bin/* 2>/dev/null || true
fi
disassemble=yes
command -v cuobjdump >/dev/null && command -v nvdisasm >/dev/null || disassemble=no

# One build for all architectures; what ptxas tells of each kernel stands in its log. A compiler without its libraries
# is no toolkit.
if ! cmake -G Ninja -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DLONGTAKE_TESTS=OFF -DLONGTAKE_BENCH=ON -DLONGTAKE_CUDA=ON \
  "-DLONGTAKE_CUDA_ARCHS=$(IFS=';'; sed 's/sm_//g' <<<"${archs[*]}")" -DCMAKE_CUDA_FLAGS=-Xptxas=-v >"$work/report" 2>&1; then
  if grep -qE "NCCL's library were not found|CUDA::cublasLt.*not found|Could NOT find CUDAToolkit" "$work/report"; then
    echo "skip: nvcc without cuBLASLt, the runtime or NCCL beside it"
    exit 0
  fi
  cat "$work/report"
  echo "FAILED the CUDA build cannot be configured"
  exit 1
fi
if ! cmake --build "$work/build" -j "$(nproc)" --target longtake-worker bench_step >"$work/report" 2>&1; then
  grep -vE "^ptxas info|^    [0-9]+ bytes|^\\[" "$work/report" | tail -60
  echo "FAILED the CUDA build for ${archs[*]}"
  exit 1
fi
bin=$work/build/bin

passed=0 failed=0
check() { # what, condition's result
  if [ "$2" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED $1"; fi
}

# The linked programs: no driver is said plainly, and the CPU is as good in this build as in any other.
tests/no_driver.sh "$bin" >"$work/said" 2>&1 && rc=0 || rc=1
if grep -q 'no CUDA table' "$work/said"; then rc=1; fi
check "no driver: $(cat "$work/said")" $rc
said=$("$bin/bench_step" --tiny --device cpu 2>&1) && rc=0 || rc=1
check "a forward on the CPU: $said" $rc
said=$(LD_BIND_NOW=1 "$bin/longtake-worker" --version 2>&1) && rc=0 || rc=1
check "not all that the worker calls is linked: $said" $rc

# kernel pattern, most registers a thread
limits="attend_mma_kernel<128,_2 255
attend_mma_kernel<128,_1 255
attend_mma_kernel<64 255
conv_mma_kernel 168
norm_kernel 64
scale_kernel 48
qk_kernel 48
quantise_kernel 48
finish_kernel 48"
# mangled pattern, opcode that must be there, how often at least
wanted="attend_mma_kernel HMMA 64
attend_mma_kernel LDSM 36
attend_mma_kernel LDGSTS 5
conv_mma_kernelI4bf16 HMMA 32
conv_mma_kernelIf HMMA 32
conv_mma_kernel LDGSTS 12
norm_kernelI4bf16S0_Li8 LDG.E.128 1
norm_kernelI4bf16S0_Li8 STG.E.128 1
scale_kernelI4bf16Li8 LDG.E.128 1
gate_kernelI4bf16Li8 LDG.E.128 2
gate_kernelI4bf16Li8 STG.E.128 1
qk_kernelI4bf16Li8 LDG.E.128 1
quantise_kernelI4bf16Li8 LDG.E.128 1
finish_kernelI4bf16fLi4 LDG.E.128 1
act_kernelI4bf16Li8 LDG.E.128 1
move_kernelI5uint4 LDG.E.128 1
upsample_kernelI5uint4 LDG.E.128 1"

for arch in "${archs[@]}"; do
  : >"$work/sass"
  if [ $disassemble = yes ]; then
    find "$work/build/kernels/cuda" -name '*.cu.o' -exec cuobjdump -sass -arch "$arch" {} \; >>"$work/sass"
  fi
  # One line a kernel: name, stack bytes, spilled bytes, registers, with blanks of the name as underscores.
  c++filt <"$work/report" | awk -v q="'" -v arch="$arch" '
    /Compiling entry function/ { split($0, p, q); name = p[2]; ours = p[4] == arch; gsub(/ /, "_", name) }
    /bytes stack frame/ { stack = $1; spill = $5 + $9 }
    ours && /Used [0-9]+ registers/ { for (i = 1; i < NF; i++) if ($i == "Used") print name, stack, spill, $(i + 1) }' >"$work/kernels"
  n=$(wc -l <"$work/kernels")
  if [ "$n" -gt 50 ]; then rc=0; else rc=1; fi
  check "$arch: only $n kernels were reported" $rc
  bad=$(awk '$2 > 0 || $3 > 0' "$work/kernels")
  # The trigonometry of double precision has a slow path with a stack, used for huge angles alone.
  bad=$(grep -vE 'rope_(grid|line)_kernel' <<<"$bad" || true)
  if [ -z "$bad" ]; then rc=0; else rc=1; fi
  check "$arch: stack or spills (name, stack, spilled, registers): $bad" $rc
  while read -r pattern most; do
    over=$(grep -F "$pattern" "$work/kernels" | awk -v most="$most" '$4 > most' || true)
    if [ -z "$over" ] && grep -qF "$pattern" "$work/kernels"; then rc=0; else rc=1; fi
    check "$arch: $pattern takes more than $most registers: $over" $rc
  done <<<"$limits"
  if [ $disassemble = yes ]; then
    awk '/Function :/ { name = $3 } /^ *\/\*[0-9a-f]+\*\/ / { for (i = 2; i <= 4; i++) if ($i ~ /^[A-Z]/) { print name, $i; break } }' \
      "$work/sass" | sort | uniq -c >"$work/opcodes"
    while read -r pattern opcode least; do
      poor=$(awk -v p="$pattern" -v o="$opcode" -v least="$least" '
        index($2, p) { seen[$2] += 0; if (index($3, o) == 1) seen[$2] += $1 }
        END { n = 0; for (k in seen) { n++; if (seen[k] < least) print k ": " seen[k] } if (n == 0) print "no such kernel" }' "$work/opcodes")
      if [ -z "$poor" ]; then rc=0; else rc=1; fi
      check "$arch: $pattern wants $least of $opcode: $poor" $rc
    done <<<"$wanted"
    slow=$(awk '$3 ~ /^(LDL|STL)/ && $2 !~ /rope_(grid|line)_kernel/ { print $2 }' "$work/opcodes" | sort -u)
    if [ -z "$slow" ]; then rc=0; else rc=1; fi
    check "$arch: local memory in $slow" $rc
  fi
  echo "$arch: $n kernels; most registers: $(sort -k4 -nr "$work/kernels" | head -3 | awk '{ printf "%s %s  ", $4, $1 }')"
  if [ -n "${GPU_STATIC_LOG:-}" ]; then
    { echo "# $arch, $(nvcc --version | tail -1): kernel, stack, spilled, registers"; sort "$work/kernels"; } >>"$GPU_STATIC_LOG"
  fi
done
[ $disassemble = yes ] || echo "no cuobjdump: the resource report alone was read"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
