#!/bin/sh
# check_arm.sh ROOT SCRATCH - the operations on 64-bit ARM, with every row of kernels,
# by a cross compiler and qemu.  Exit status 77: one of them is not installed.
set -u
root=$1 scratch=$2
cc=${ARM_CC:-aarch64-linux-gnu-gcc}
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64)
command -v "$cc" >/dev/null 2>&1 || { echo "skipped: no $cc here"; exit 77; }
[ -n "$qemu" ] || { echo "skipped: no qemu-aarch64 here"; exit 77; }
rm -rf "$scratch" && mkdir -p "$scratch" && cd "$scratch" || exit 1

# What computes, and the context that says with what.
tests='context conv deform norm norm_grad pool pool_grad image_ops decode losses assign optim'
flags="-std=c11 -D_POSIX_C_SOURCE=200809L -DGFL_INTERNAL -DGFL_NO_STB_IMAGE -I$root/src -I$root/tests"
$cc $flags -O2 -x c -DGFL_IMPLEMENTATION -c "$root/src/gfl.h" -o gfl.o &
$cc $flags -O2 -c "$root/src/gfl_train.c" -o train.o || exit 1
wait $! || exit 1
cat > run <<EOF
$cc $flags -O1 "$root/tests/test_\$1.c" gfl.o train.o -static -o "\$1" -lm -pthread 2>"\$1.log" &&
    $qemu "./\$1" cpu >>"\$1.log" 2>&1 && tail -1 "\$1.log" | sed "s/^/\$1: /" ||
    { echo "\$1:"; cat "\$1.log"; exit 1; }
EOF
export GFL_ROOT="$root" GFL_TEST_DATA="$root/tests/data"
echo $tests | xargs -n1 -P2 sh run || exit 1
