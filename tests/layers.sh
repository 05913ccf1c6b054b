#!/usr/bin/env bash
# Includes run down only (design: rooms). Reads every #include "..." of the sources against the table of who may see whom.
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"

# room: rooms it may include (its own always)
may() {
  case $1 in
    proto/base) echo "" ;;
    proto) echo "proto/base" ;;
    kernels) echo "proto/base" ;;
    parallel) echo "kernels proto/base" ;;
    worker) echo "parallel kernels proto proto/base" ;;
    daemon) echo "proto proto/base" ;;
    *) echo "?" ;;
  esac
}
room() {
  case $1 in
    proto/base/*) echo proto/base ;;
    proto/*) echo proto ;;
    kernels/*) echo kernels ;;
    parallel/*) echo parallel ;;
    worker/*) echo worker ;;
    daemon/*) echo daemon ;;
    *) echo none ;;
  esac
}
# library header: the one file that may include it
keeper() {
  case $1 in
    dnnl*|oneapi/dnnl/*) echo kernels/cpu/dnnl.c ;;
    zmq.h) echo proto/chan ;;
    yaml.h) echo proto/yaml.c ;;
    sqlite3.h) echo daemon/store_parts.h ;;
    uv.h) echo daemon/loop.c ;;
    sodium.h) echo proto/base/hash.c ;;
    mpi.h) echo parallel/comm_mpi.c ;;
    nccl.h) echo parallel/comm_nccl.c ;;
    utf8proc.h) echo "worker/models/" ;;
    libav*|libsw*) echo daemon/media/ ;;
    *) echo "" ;;
  esac
}

bad=0 seen=0
while IFS=: read -r file include; do
  seen=$((seen + 1))
  from=$(room "$file") to=$(room "$include")
  if [ "$to" = none ]; then
    echo "$file includes \"$include\", which is in no room"; bad=$((bad + 1))
  elif [ "$from" != "$to" ] && ! [[ " $(may "$from") " == *" $to "* ]]; then
    echo "$file ($from) may not include $include ($to)"; bad=$((bad + 1))
  fi
done < <(grep -rHoE '^#include "[^"]+"' --include='*.[ch]' --include='*.cu*' proto kernels parallel worker daemon \
           | sed -E 's/:#include "([^"]+)"/:\1/')
while IFS=: read -r file include; do
  k=$(keeper "$include")
  if [ -n "$k" ] && [[ "$file" != "$k"* ]]; then
    echo "$file includes <$include>, whose keeper is $k"; bad=$((bad + 1))
  fi
done < <(grep -rHoE '^#include <[^>]+>' --include='*.[ch]' proto kernels parallel worker daemon | sed -E 's/:#include <([^>]+)>/:\1/')
echo "$seen includes read, $bad wrong"
[ "$seen" -gt 50 ] && [ "$bad" -eq 0 ]
