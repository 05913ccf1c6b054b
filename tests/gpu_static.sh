#!/usr/bin/env bash
# What the real compiler made of the CUDA kernels: no spills, no local memory, tensor-core instructions where they were
# meant, 16-byte loads where they were meant, registers within what the essays claim. Needs nvcc and cuobjdump, no card.
#   tests/gpu_static.sh [ARCH ...]      default: sm_80 sm_90a. Without a toolkit it prints "skip: .." and ends well.
set -euo pipefail
cd "$(dirname "$0")/.."

archs=("${@:-sm_80}")
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

passed=0 failed=0
check() { # what, condition's result
  if [ "$2" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED $1"; fi
}
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
  : >"$work/report"
  : >"$work/sass"
  for source in kernels/cuda/*.cu; do
    fast=()
    [ "$(basename "$source")" = pixels.cu ] && fast=(-fmad=false)
    nvcc -std=c++20 -O3 -arch="$arch" -Xptxas -v -D_GNU_SOURCE -I. -Ikernels/cuda/ptx "${fast[@]}" -cubin -o "$work/one.cubin" \
      "$source" 2>>"$work/report" || { cat "$work/report"; echo "FAILED $source does not compile for $arch"; exit 1; }
    [ $disassemble = no ] || cuobjdump -sass "$work/one.cubin" >>"$work/sass"
  done
  # One line a kernel: name, stack bytes, spilled bytes, registers, with blanks of the name as underscores.
  c++filt <"$work/report" | awk -v q="'" '
    /Compiling entry function/ { split($0, p, q); name = p[2]; gsub(/ /, "_", name) }
    /bytes stack frame/ { stack = $1; spill = $5 + $9 }
    /Used [0-9]+ registers/ { for (i = 1; i < NF; i++) if ($i == "Used") print name, stack, spill, $(i + 1) }' >"$work/kernels"
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
