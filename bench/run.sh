#!/bin/sh
# run.sh BUILD - every benchmark; called by `make bench`.  PYTHON names a Python with torch.
set -eu
build=$1
cflags='-std=c11 -O3 -I. -D_POSIX_C_SOURCE=200809L'
for f in conv network; do
    ${CC:-cc} $cflags bench/$f.c "$build/libgfl.a" -o "$build/bench_$f" -lm -pthread
done
"$build/bench_conv"
python=${PYTHON:-python3}
if $python -c 'import torch, torchvision' 2>/dev/null; then
    $python bench/compare_torch.py "$build/bench_network"
else
    echo "PyTorch is not here (PYTHON=$python): gfl alone, seconds"
    "$build/bench_network" detect r50 640 640 1 2 5
    "$build/bench_network" train r18 320 240 4 2 5
fi
