#!/bin/sh
# check_package.sh ROOT SCRATCH - GPU code in other people's projects: three copied files and one line
# of nvcc, in C and in C++; pkg-config and CMake after make install.  Where there is no driver the
# programs start, say so and use the CPU.  Exit status 77: no nvcc here.
set -u
root=$1 scratch=$2
nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
[ -x "$nvcc" ] || { echo "skipped: no nvcc here"; exit 77; }
rm -rf "$scratch" && mkdir -p "$scratch" && cd "$scratch" || exit 1

fail() {
    echo "$*" >&2
    exit 1
}

# It detects, says on what, and none of NVIDIA's libraries has to be there for that.
runs() {
    "$1" > out 2>&1 || { cat out; fail "$1 failed"; }
    grep -q '^on cuda:' out || { grep -q '^no GPU: .' out && grep -q '^on CPU' out; } ||
        { cat out; fail "$1 does not say what it runs on"; }
    ! readelf -d "$1" | grep -E 'NEEDED.*(libcuda|libcudnn|libcublas)' || fail "$1 wants that"
    echo "$1: $(head -1 out)"
}

# For sm_80, which compiles in the shortest time.
for language in c cpp; do
    mkdir $language && cp "$root/gfl.h" "$root/gfl_cuda.cu" $language && {
        echo '#define GFL_IMPLEMENTATION'
        cat "$root/tests/package/main.c"
    } > $language/main.$language &&
        (cd $language && "$nvcc" -O3 -arch=sm_80 main.$language gfl_cuda.cu -o app) ||
        fail "one line of nvcc with main.$language"
    runs $language/app
done

make -s -C "$root" config=release CUDA=1 NVCC="$nvcc" install DESTDIR="$scratch/root" PREFIX=/usr \
    > log 2>&1 || { cat log; fail "make install"; }
targets=$(grep -o "code=sm_[0-9a-z]*" "$root/build/release/flags" | tr "\n" " ") size=$(wc -c < root/usr/lib/libgfl_cuda.a)
echo "libgfl_cuda.a for $targets: $size bytes"
case $targets in
*sm*sm*) ;;
*) [ "$size" -lt 10000000 ] || fail "it should be less than 10 MB for one target" ;;
esac
[ -f root/usr/share/gfl/gfl_cuda.cu ] || fail "gfl_cuda.cu is not installed"
if command -v pkg-config >/dev/null 2>&1; then
    export PKG_CONFIG_PATH="$scratch/root/usr/lib/pkgconfig"
    # Not by PKG_CONFIG_SYSROOT_DIR: CUDA is outside the staged root.
    cc $(pkg-config --define-variable=prefix="$scratch/root/usr" --cflags gfl-cuda) \
        "$root/tests/package/main.c" -o with_pkg_config \
        $(pkg-config --define-variable=prefix="$scratch/root/usr" --libs gfl-cuda) ||
        fail "a program built through pkg-config"
    runs ./with_pkg_config
fi
command -v cmake >/dev/null 2>&1 || exit 0
mkdir cmake && cat > cmake/CMakeLists.txt <<'EOF'
cmake_minimum_required(VERSION 3.18)
project(user C)
find_package(gfl 0.2 REQUIRED COMPONENTS cuda)
add_executable(app ${SOURCE})
target_link_libraries(app gfl::cuda)
EOF
cmake -S cmake -B cmake/build -DSOURCE="$root/tests/package/main.c" \
    -DCMAKE_PREFIX_PATH="$scratch/root/usr" > log 2>&1 && cmake --build cmake/build > log 2>&1 ||
    { cat log; fail "a program built through CMake"; }
runs cmake/build/app
