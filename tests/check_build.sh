#!/bin/sh
# What make and CMake do for those who package or embed the library.  check_build.sh CHECK ROOT SCRATCH
# Exit status 77: a tool that the check needs is not installed (CTest shows it as skipped).
set -u
check=$1 root=$2 scratch=$3/$1
rm -rf "$scratch" && mkdir -p "$scratch" && cd "$scratch" || exit 1
# Nor what the make that runs the tests was told: it hands that on in the environment.
unset CFLAGS CPPFLAGS LDFLAGS MAKEFLAGS MAKELEVEL DESTDIR config WERROR CUDA CC CXX AR RANLIB
quick='CUDA=0 CFLAGS=-O0' # of the library as such, whose speed does not matter here

fail() {
    echo "$*" >&2
    exit 1
}

need() {
    command -v "$1" >/dev/null 2>&1 || { echo "skipped: no $1 here"; exit 77; }
}

# What users download, unpacked in folder $1.
unpack() {
    make -s -C "$root" dist BUILD="$scratch/dist" >log 2>&1 || { cat log; fail "make dist"; }
    mkdir -p "$1" && tar -xzf dist/gfl-*.tar.gz --strip-components=1 -C "$1" || fail "unpacking"
}

quietly() {
    "$@" >log 2>&1 || { cat log; fail "failed: $*"; }
}

case $check in
archives_are_equal)
    # From two folders, by people of other habits, at other times; and from the archive itself.
    for i in 1 2; do
        mkdir -p "$i/deeper"
        (umask $((i * 11)) && cd "$root" && tar -cf - --exclude=./build --exclude=./.git . |
            tar -xf - --no-same-permissions -C "$scratch/$i/deeper") || exit 1
        [ $i = 1 ] || find 2/deeper -type f -exec touch -d 2001-02-03 {} +
        (umask $((i * 11)) && TZ=UTC-$i make -s -C $i/deeper dist BUILD="$scratch/dist$i") || exit 1
    done
    cmp dist1/gfl-*.tar.gz dist2/gfl-*.tar.gz || fail "the folder or the user shows"
    unpack unpacked
    make -s -C unpacked dist BUILD="$scratch/dist3" && cmp dist3/gfl-*.tar.gz dist/gfl-*.tar.gz ||
        fail "an archive of the archive differs" ;;
tools_are_respected)
    # Tools that only write down how they were called.
    unpack src
    for tool in cc ar ranlib; do
        printf '#!/bin/sh\necho "%s $*" >> "%s/calls"\n' $tool "$scratch" > my_$tool
        printf 'for a in "$@"; do [ "${last:-}" != -o ] || : > "$a"; last=$a; done\n' >> my_$tool
        [ $tool = cc ] || printf 'for a in "$@"; do case $a in *.a) : > "$a" ;; esac; done\n' \
            >> my_$tool
        chmod +x my_$tool
    done
    build() {
        : > calls
        quietly make -C src CUDA=0 CC="$scratch/my_cc" AR="$scratch/my_ar" \
            RANLIB="$scratch/my_ranlib" "$@" all build/release/libgfl.so.0.2
    }
    build CPPFLAGS=-DFORTIFIED CFLAGS=-march=x LDFLAGS=-Wl,-z,now
    [ "$(grep -c -- '-DFORTIFIED -march=x' calls)" = 4 ] || { cat calls; fail "CPPFLAGS or CFLAGS"; }
    [ "$(grep -c -- '-Wl,-z,now' calls)" = 2 ] || { cat calls; fail "LDFLAGS"; }
    grep -q '^ar ' calls && grep -q '^ranlib ' calls || fail "AR or RANLIB"
    ! grep -q -- -Werror calls || fail "warnings are errors for those who only build"
    build CPPFLAGS=-DFORTIFIED CFLAGS=-march=x LDFLAGS=-Wl,-z,now
    [ ! -s calls ] || { cat calls; fail "built again though nothing changed"; }
    build CPPFLAGS=-DFORTIFIED CFLAGS=-march=y LDFLAGS=-Wl,-z,now
    [ "$(grep -c -- -march=y calls)" = 4 ] || { cat calls; fail "other CFLAGS build nothing"; }
    build CFLAGS=-march=y WERROR=1
    [ "$(grep -c -- -Werror calls)" = 4 ] || { cat calls; fail "WERROR=1"; } ;;
every_gpu_has_code)
    # "all" is machine code for the GPUs of today, and PTX for those that nobody has heard of.
    unpack src
    mkdir -p src/build/release
    want='code=compute_80 code=sm_100 code=sm_120 code=sm_80 code=sm_90a '
    codes() { tr ' ' '\n' | sed -n 's/^arch=.*,//p' | sort -u | tr '\n' ' '; }
    got=$(make -s -n -C src CUDA=1 NVCC=nvcc CUDA_ARCH=all build/release/libgfl_cuda.a | codes)
    [ "$got" = "$want" ] || fail "make: $got"
    nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
    [ -x "$nvcc" ] && command -v cmake >/dev/null || exit 0
    quietly cmake -S src -B build -DGFL_CUDA=ON -DGFL_CUDA_ARCH=all -DCMAKE_CUDA_COMPILER="$nvcc"
    got=$(cat build/CMakeFiles/gfl_cuda.dir/flags.make | codes)
    [ "$got" = "$want" ] || fail "CMake: $got" ;;
installs)
    # From what users download, below a folder where others have files, with a hostile umask.
    need pkg-config && need cmake && need readelf
    unpack src
    lib=usr/lib/x86_64-linux-gnu
    mkdir -p root/usr/share/gfl root/$lib && echo x | tee root/usr/share/gfl/others > root/$lib/others
    install() {
        (umask 077 && quietly make -C src $quick DESTDIR="$scratch/root" PREFIX=/usr \
            LIBDIR=/$lib "$@")
    }
    install install || exit 1
    find root -type f ! -name others ! -perm 644 ! -perm 755 -o -type d ! -perm 755 |
        grep . && fail "modes depend on the umask"
    abi=$(sed -n 's/^#define GFL_ABI *//p' "$root/gfl.h")
    readelf -d root/$lib/libgfl.so | grep -q "SONAME.*\[libgfl[.]so[.]0[.]$abi\]" ||
        fail "the SONAME is not that of GFL_ABI $abi"
    export PKG_CONFIG_SYSROOT_DIR="$scratch/root" PKG_CONFIG_PATH="$scratch/root/$lib/pkgconfig"
    cc $(pkg-config --cflags gfl) "$root/examples/detect.c" -o app $(pkg-config --libs gfl) ||
        fail "a program built through pkg-config"
    LD_LIBRARY_PATH="$scratch/root/$lib" ./app >/dev/null 2>&1
    [ $? = 2 ] || fail "it does not start"
    ask() { # find_package's arguments
        mkdir -p cmake && cat > cmake/CMakeLists.txt <<EOF
cmake_minimum_required(VERSION 3.18)
project(user C)
find_package(gfl $*)
add_executable(app "$root/examples/detect.c")
target_link_libraries(app gfl::gfl)
EOF
        rm -rf cmake/build
        cmake -S cmake -B cmake/build -DCMAKE_PREFIX_PATH="$scratch/root/usr" \
            -DCMAKE_LIBRARY_ARCHITECTURE=x86_64-linux-gnu >log 2>&1
    }
    ask 0.2 REQUIRED && cmake --build cmake/build >log 2>&1 ||
        { cat log; fail "a program built through CMake"; }
    ask REQUIRED && ask 0 REQUIRED || { cat log; fail "CMake refuses it without a minor version"; }
    for other in 0.1 0.3 1.0; do ! ask $other REQUIRED || fail "CMake takes it for version $other"; done
    ! ask REQUIRED COMPONENTS cuda || fail "CMake finds a gfl::cuda that is not there"
    tr -s '\n ' '  ' < log | grep -q "installed without CUDA" ||
        { cat log; fail "CMake does not say why there is no gfl::cuda"; }
    ! pkg-config --exists gfl-cuda || fail "there is a gfl-cuda.pc without CUDA"
    install uninstall || exit 1
    [ "$(cd root && find . ! -type d | sort | tr '\n' ' ')" = "./$lib/others ./usr/share/gfl/others " ] ||
        fail "uninstall leaves or takes: $(find root ! -type d)" ;;
embeds_in_cmake)
    # A project with flags of its own has gfl in a folder, or fetches it.
    need cmake
    unpack gfl
    for how in add_subdirectory FetchContent; do
        mkdir -p $how && cat > $how/CMakeLists.txt <<EOF
cmake_minimum_required(VERSION 3.18)
project(user VERSION 7.8 LANGUAGES C)
$(if [ $how = add_subdirectory ]; then echo 'add_subdirectory(../gfl gfl)'; else
    echo "include(FetchContent)"
    echo "FetchContent_Declare(gfl SOURCE_DIR $scratch/gfl)"
    echo "FetchContent_MakeAvailable(gfl)"
fi)
add_executable(app "$root/examples/detect.c")
target_link_libraries(app gfl::gfl)
if(NOT "\${CMAKE_C_FLAGS}" STREQUAL "-O0" OR NOT PROJECT_VERSION STREQUAL 7.8 OR TARGET gfl::cuda)
    message(FATAL_ERROR "gfl changed what is the project's")
endif()
get_property(tests DIRECTORY "$scratch/gfl" PROPERTY TESTS)
if(tests)
    message(FATAL_ERROR "gfl adds tests")
endif()
install(TARGETS app)
EOF
        quietly cmake -S $how -B $how/build -DCMAKE_C_FLAGS=-O0 -DCMAKE_BUILD_TYPE=Debug
        quietly cmake --build $how/build -j2
        $how/build/app >/dev/null 2>&1
        [ $? = 2 ] || fail "$how: the program does not start"
        quietly cmake --install $how/build --prefix "$scratch/$how/root"
        [ "$(cd $how/root && find . -type f)" = ./bin/app ] || fail "$how: gfl installs itself"
    done ;;
copies_do_not_mix)
    # Three copies in one process: a program that exports its own, and two shared libraries.  A copy
    # is known by the name that it has for a preset, which one public function asks another for.
    need nm
    unpack 1
    cp -r 1 2 && cp -r 1 3 || exit 1
    for i in 1 2 3; do sed -i "s/\"r18\"/\"r18 of $i\"/" $i/gfl.h; done
    for i in 1 2; do quietly make -C $i $quick build/release/libgfl.so.0.2; done
    nm -D --defined-only 1/build/release/libgfl.so.0.2 > names
    grep -q ' gfl_detect@@GFL_0[.]2$' names || fail "symbols have no version"
    ! grep -v ' gfl_[a-z_0-9]*@@GFL_0[.]2$' names | grep -v ' A GFL_0[.]2$' || fail "others are exported"
    cat > main.c <<'EOF'
#define _GNU_SOURCE
#include "gfl.h"
#include <dlfcn.h>
#include <stdio.h>
typedef gfl_status (*preset)(gfl_context *, const char *, gfl_arch *);
int main(int argc, char **argv) {
    preset of[3] = {gfl_arch_find_preset, 0, 0};
    gfl_arch arch;
    int wrong = argc != 3;
    for (int i = 1; i < argc; i++) {
        void *copy = dlopen(argv[i], RTLD_NOW | RTLD_GLOBAL);
        if (!copy) return puts(dlerror()), 1;
        of[i] = (preset)dlsym(copy, "gfl_arch_find_preset");
    }
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++) {
            char name[16];
            snprintf(name, sizeof name, "r18 of %d", k);
            if ((of[i](NULL, name, &arch) == GFL_OK) == (i == k)) continue;
            printf("a call of copy %d reached another one\n", i);
            wrong = 1;
        }
    return wrong;
}
EOF
    sed -i 's/r18 of 3/r18 of 0/' 3/gfl.h
    cc -O0 -I3 -c main.c -o main.o && cc -O0 -x c -std=gnu11 -DGFL_IMPLEMENTATION -c 3/gfl.h -o 3.o &&
        cc -rdynamic main.o 3.o -o main -lm -pthread -ldl || exit 1
    ./main 1/build/release/libgfl.so.0.2 2/build/release/libgfl.so.0.2 || exit 1 ;;
long_same_bits)
    # A training and a detection, built by the lines that the manual gives, and as make builds.
    unpack src
    want=''
    while read -r line; do
        need=${line%% *}
        command -v "$need" >/dev/null 2>&1 || { echo "no $need here"; continue; }
        $line -Isrc -x c "$root/tests/bits.c" src/gfl_train.c -o bits -lm -pthread 2>log ||
            { cat log; fail "$line"; }
        got=$(./bits) || fail "$line: it does not run"
        echo "$line: $got"
        [ "$got" = "${want:=$got}" ] || fail "$line gives other bits than make"
    done <<'EOF'
cc -std=c11 -D_POSIX_C_SOURCE=200809L -O3 -g
cc -O3
cc -O2 -std=gnu17
clang -O3 -march=native
EOF
    # What the host writes behind the implementation is compiled as it was asked for.
    [ "$(uname -m)" = x86_64 ] || exit 0
    cat > host.c <<'EOF'
#define GFL_IMPLEMENTATION
#include "gfl.h"
double host(double a, double b, double c);
double host(double a, double b, double c) { return a * b + c; }
EOF
    for cc in cc clang; do
        command -v $cc >/dev/null 2>&1 || continue
        $cc -O2 -mfma -Isrc -S host.c -o host.s || fail "$cc: a host"
        sed -n '/^host:/,/ret/p' host.s | grep -q vfmadd || fail "$cc: the host's code changed"
    done ;;
*) fail "no such check: $check" ;;
esac
exit 0
