#!/bin/sh
# check_cuda.sh ROOT SCRATCH - gfl_cuda.cu by nvcc for every target, without a warning or a spill;
# then its tests as a GPU machine builds them, which skip where there is no driver
root=$1 scratch=$2
nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
[ -x "$nvcc" ] || { echo "no nvcc here"; exit 77; }
mkdir -p "$scratch"
# Functions that nothing calls yet are for the backend that is to come.
flags="-std=c++17 -O3 -Werror all-warnings -diag-suppress 177 -I$root/src -x cu"
for arch in ${CUDA_ARCH:-80 90a 100 120}; do
    "$nvcc" $flags -gencode "arch=compute_$arch,code=sm_$arch" -Xptxas -v -c "$root/src/gfl_cuda.cu" \
        -o "$scratch/$arch.o" > "$scratch/$arch.log" 2>&1 || { cat "$scratch/$arch.log"; exit 1; }
    kernels=$(grep -c "0 bytes spill stores, 0 bytes spill loads" "$scratch/$arch.log")
    if grep -B1 "[1-9][0-9]* bytes spill" "$scratch/$arch.log"; then
        echo "sm_$arch: registers are spilled"
        exit 1
    fi
    echo "sm_$arch: $kernels kernels, none spills," \
        "$(sed -n 's/.*Used \([0-9]*\) registers.*/\1/p' "$scratch/$arch.log" | sort -n | tail -1)" \
        "registers at most"
done

# The tests, natively, for one target: they link, start, and skip where there is no driver.
cc -std=c11 -O2 -x c -DGFL_IMPLEMENTATION -c "$root/src/gfl.h" -o "$scratch/gfl.o" || exit 1
for test in "$root"/tests/emu/test_*.cc; do
    name=$(basename "$test" .cc)
    "$nvcc" $flags -DGFL_INTERNAL -I"$root/tests" -gencode arch=compute_90a,code=sm_90a -c "$test" \
        -o "$scratch/$name.o" && "$nvcc" "$scratch/$name.o" "$scratch/gfl.o" -o "$scratch/$name" ||
        exit 1
    "$scratch/$name" cpu
    status=$?
    [ $status = 0 ] || [ $status = 77 ] || { echo "$name: exit status $status"; exit 1; }
done
