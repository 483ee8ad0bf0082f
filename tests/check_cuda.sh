#!/bin/sh
# check_cuda.sh ROOT SCRATCH - gfl_cuda.cu by nvcc for CUDA_ARCH, without a warning or a spill;
# then its tests as a GPU machine builds them, which skip where there is no driver
root=$1 scratch=$2
nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
[ -x "$nvcc" ] || { echo "no nvcc here"; exit 77; }
mkdir -p "$scratch"
flags="-std=c++17 -O3 -Werror all-warnings -diag-suppress 177 -I$root/src -x cu"
for arch in ${CUDA_ARCH:-80 90a}; do
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
cmake -S "$root/tests" -B "$scratch/native" -DGFL_GPU=ON >"$scratch/native.log" 2>&1 &&
    cmake --build "$scratch/native" -j2 --target gpu_tests >>"$scratch/native.log" 2>&1 ||
    { tail -30 "$scratch/native.log"; exit 1; }
cd "$scratch/native" && ctest --output-on-failure -R '[.]gpu$|[.]cuda$|^gpu_cli'
