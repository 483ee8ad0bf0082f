#!/bin/sh
# What must hold for the files that users copy.  check_shipped.sh CHECK ROOT SCRATCH
# Exit status 77: a tool that the check needs is not installed (CTest shows it as skipped).
set -u
check=$1 root=$2 scratch=$3/$1
rm -rf "$scratch" && mkdir -p "$scratch" || exit 1
cd "$root" || exit 1
warn='-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror'
shipped='gfl.h gfl_train.c'
posix=-D_POSIX_C_SOURCE=200809L # what strict modes need, since no header here defines it

fail() {
    echo "$*" >&2
    exit 1
}

need() {
    command -v "$1" >/dev/null 2>&1 || { echo "skipped: no $1 here"; exit 77; }
}

# compiles CC CXX: declarations as C99 and C++11, everything as C11 and C++17, all in one unit.
compiles() {
    need "$1" && need "$2"
    printf '#include "gfl.h"\nint main(void) { return gfl_get_version() == 0; }\n' > "$scratch/api.c"
    printf '#define GFL_IMPLEMENTATION\n#include "gfl.h"\n#include "gfl_train.c"\n' \
        > "$scratch/one.c"
    "$1" -std=c99 $warn -I. -c "$scratch/api.c" -o "$scratch/a.o" || fail "$1: C99"
    "$2" -x c++ -std=c++11 $warn -I. -c "$scratch/api.c" -o "$scratch/a.o" || fail "$2: C++11"
    for std in c11 gnu17; do
        "$1" -x c -std=$std $posix $warn -I. -c "$scratch/one.c" -o "$scratch/one.o" || fail "$1: $std"
    done
    # With the optimiser, which finds more to warn of.
    "$2" -x c++ -std=c++17 -O3 $warn -I. -c "$scratch/one.c" -o "$scratch/one_cxx.o" \
        || fail "$2: C++17"
    "$1" -x c -std=c11 $posix $warn -DGFL_IMPLEMENTATION -c gfl.h -o "$scratch/gfl.o" \
        || fail "$1: gfl.h"
    "$1" -std=c11 $posix $warn -c gfl_train.c -o "$scratch/train.o" || fail "$1: gfl_train.c"
    "$1" "$scratch/api.c" -I. "$scratch/gfl.o" -o "$scratch/app" -lm -pthread \
        || fail "$1: linking what only detects, without gfl_train.c"
    "$scratch/app" || fail "version"
}

case $check in
amalgamation_in_sync)
    cc -std=c11 -O1 $warn scripts/amalgamate.c -o "$scratch/amalgamate" || exit 1
    for f in $shipped gfl_cuda.cu; do
        "$scratch/amalgamate" "src/$f" > "$scratch/$f" || exit 1
        cmp -s "$scratch/$f" "$f" \
            || fail "$f differs from src/: run \"make amalgamate\" and commit both"
    done ;;
files_of_two_versions_do_not_mix)
    # By the preprocessor where the sources meet, by the linker where the objects do.
    sed 's/^\(#define GFL_VERSION  *\)[0-9]*/\1199/' gfl.h > "$scratch/gfl.h"
    printf 'int main(void) { return 0; }\n' > "$scratch/main.c"
    for f in gfl_train.c gfl_cuda.cu; do
        cp "$f" "$scratch" && cc -x c $posix -fsyntax-only "$scratch/$f" 2> "$scratch/log" &&
            fail "$f compiles with another version's gfl.h"
        grep -q 'take both from one release' "$scratch/log" || fail "$f does not say why"
    done
    cc -x c -DGFL_IMPLEMENTATION -c "$scratch/gfl.h" -o "$scratch/gfl.o" &&
        cc -c gfl_train.c -o "$scratch/train.o" || exit 1
    cc "$scratch/main.c" "$scratch/gfl.o" "$scratch/train.o" -lm -pthread -o "$scratch/app" \
        2> "$scratch/log" && fail "objects of two versions link"
    grep -q "gfli_error_$(sed -n 's/^#define GFL_VERSION  *\([0-9]*\).*/\1/p' gfl.h)" "$scratch/log" ||
        fail "$(cat "$scratch/log")" ;;
compiles_gcc) compiles gcc g++ ;;
compiles_clang) compiles clang clang++ ;;
compiles_newest_clang)
    # Each version knows new warnings; those come from the front end.
    newest=$(ls /usr/bin/clang-[0-9]* 2>/dev/null | sort -V | tail -1)
    [ -n "$newest" ] || { echo "skipped: no clang with a version in its name here"; exit 77; }
    "$newest" --version | head -1
    printf '#define GFL_IMPLEMENTATION\n#include "gfl.h"\n#include "gfl_train.c"\n' \
        > "$scratch/one.c"
    "$newest" -std=c11 $posix $warn -I. -fsyntax-only "$scratch/one.c" &&
        "$newest" -x c++ -std=c++17 $warn -I. -fsyntax-only "$scratch/one.c" || fail "the library"
    for f in examples/*.c; do
        "$newest" -std=c11 $posix $warn -I. -fsyntax-only "$f" || fail "$f"
    done
    "$newest" -x c++ -std=c++11 $warn -I. -fsyntax-only examples/embed.cc || fail "embed.cc"
    for f in tests/test_*.c tests/fuzz_*.c; do
        "$newest" -std=c11 -D_POSIX_C_SOURCE=200809L -DGFL_INTERNAL $warn -Isrc -Itests \
            -fsyntax-only "$f" || fail "$f"
    done ;;
exported_names)
    need nm
    # As hosts compile: nothing on the command line hides anything.
    cc -x c -fPIC -DGFL_IMPLEMENTATION -c gfl.h -o "$scratch/gfl.o" &&
        cc -fPIC -c gfl_train.c -o "$scratch/train.o" &&
        cc -shared "$scratch/gfl.o" "$scratch/train.o" -o "$scratch/libgfl.so" -lm -pthread ||
        exit 1
    bad=$(nm -g --defined-only "$scratch/gfl.o" "$scratch/train.o" |
        awk 'NF == 3 && $3 !~ /^gfli?_/ { print $3 }')
    [ -z "$bad" ] || fail "objects define names of other people: $bad"
    bad=$(nm -D --defined-only "$scratch/libgfl.so" |
        awk 'NF == 3 && $3 !~ /^gfl_/ && $3 !~ /^(_init|_fini|__bss_start|_edata|_end)$/ \
             { print $3 }')
    [ -z "$bad" ] || fail "the shared library exports more than gfl_: $bad"
    # Whoever wants to export none, or to keep all in one file, says so.
    for api in '__attribute__((visibility("hidden")))' 'static __attribute__((unused))' static; do
        case $api in static) flags=-Wno-unused-function ;; *) flags= ;; esac
        printf '#define GFL_API %s\n#define GFL_IMPLEMENTATION\n#include "gfl.h"\n%s\n' "$api" \
            '#include "gfl_train.c"' > "$scratch/own.c"
        cc -x c -std=gnu11 -fPIC $warn $flags -I. -c "$scratch/own.c" -o "$scratch/own.o" &&
            c++ -x c++ -std=c++17 $warn $flags -I. -fsyntax-only "$scratch/own.c" &&
            cc -shared "$scratch/own.o" -o "$scratch/own.so" -lm -pthread || fail "GFL_API $api"
        bad=$(nm -D --defined-only "$scratch/own.so" | grep ' gfl')
        [ -z "$bad" ] || fail "with GFL_API $api, a shared object exports $bad"
    done ;;
changes_nothing)
    # What other headers declare, before the implementation or after it.
    for order in 'gfl.h gfl_train.c other.h' 'other.h gfl.h gfl_train.c'; do
        { echo '#define GFL_IMPLEMENTATION'; printf '#include "%s"\n' $order
          echo 'int main(int n, char **v) { return n > 9 ? (int)host_uses(v[0]) : 0; }'; } \
            > "$scratch/host.c"
        for std in gnu11 c++17; do
            x=c; [ $std = gnu11 ] || x=c++
            cc -x $x -std=$std $warn -I. -Itests/data/host -fsyntax-only "$scratch/host.c" ||
                fail "$order as $std"
        done
    done
    cc -std=gnu11 -O1 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 $warn -I. -Itests/data/host \
        -c "$scratch/host.c" -o "$scratch/host.o" || fail "with checked functions"
    # A static function of the host's that nobody calls is still told.
    { cat "$scratch/host.c"; echo 'static void host_forgot(void) {}'; } > "$scratch/forgot.c"
    cc -std=gnu11 $warn -I. -Itests/data/host -c "$scratch/forgot.c" -o "$scratch/host.o" \
        2>"$scratch/log" && fail "the host's own warnings are gone"
    grep -q host_forgot "$scratch/log" || { cat "$scratch/log"; fail "another error"; }
    # Where it cannot be compiled, it says why.
    refused() {
        says=$1; shift
        cc "$@" -fsyntax-only gfl_train.c 2>"$scratch/log" && fail "$* compiles"
        grep -q "error.*$says" "$scratch/log" || { head "$scratch/log"; fail "$*: not \"$says\""; }
    }
    refused '-std=gnu11, or -D_POSIX_C_SOURCE=200809L' -std=c11
    refused 'big-endian' -std=gnu11 -U__BYTE_ORDER__ -D__BYTE_ORDER__=__ORDER_BIG_ENDIAN__ ;;
guards_hold_under_fast_math)
    for cc in gcc $(ls /usr/bin/clang-[0-9]* 2>/dev/null | sort -V | tail -1); do
        command -v "$cc" >/dev/null 2>&1 || continue
        tried=yes
        "$cc" -std=gnu11 -O1 -ffast-math -w -I. tests/host_fast_math.c -o "$scratch/host" -lm \
            -pthread || fail "$cc: host_fast_math.c"
        (cd "$scratch" && ./host) || fail "$cc -ffast-math: a number that is none was taken"
    done
    [ "${tried-}" ] || { echo "skipped: neither gcc nor a versioned clang"; exit 77; }
    ;;
survives_macros)
    for cc in gcc clang; do
        command -v $cc >/dev/null 2>&1 || continue
        for std in gnu11 c++17; do
            x=c; [ $std = gnu11 ] || x=c++
            # As a host has them: its macros are there first, then all of the library in one file.
            printf '#include "macros.h"\n#define GFL_IMPLEMENTATION\n#include "%s"\n#include "%s"\n' \
                gfl.h gfl_train.c > "$scratch/host.c"
            $cc -x $x -std=$std $warn -I. -Itests/data/host -fsyntax-only "$scratch/host.c" ||
                fail "$cc $std: a macro of the host's meets a name of ours"
        done
    done ;;
shipped_code_is_quiet)
    # Comments and strings may say anything; calls may not.
    for f in $shipped; do
        cc -fpreprocessed -dD -E -P "$f" 2>/dev/null | sed 's/"\([^"\\]\|\\.\)*"//g' |
            grep -nE '(^|[^A-Za-z0-9_.>])(printf|puts|putchar|perror|exit|_exit|abort|assert|getenv|setenv|rand|srand|signal|sigaction|system)[ ]*\(' \
            > "$scratch/loud" && { cat "$scratch/loud"; fail "$f is not quiet"; }
        LC_ALL=C grep -nP '[^\x00-\x7F]' "$f" && fail "$f is not ASCII"
    done ;;
one_place_calls_the_system)
    # core/os*.c: where only regular files are opened, kills are injected and Windows is another.
    names='f?open|fdopen|freopen|f?close|f?read|f?write|pread|pwrite|fgets|fputs|fseek|ftell|[fl]?stat|unlink|rename'
    names="$names|remove|mkdir|rmdir|opendir|f?truncate|fsync|readlink|getpid|sysconf|clock_gettime|time|pthread_[a-z_]+"
    for f in src/*/*.[ch]; do
        case $f in src/core/os*.c | src/core/os.h) continue ;; esac
        cc -fpreprocessed -dD -E -P "$f" 2>/dev/null | sed 's/"\([^"\\]\|\\.\)*"//g' |
            grep -nE "(^|[^A-Za-z0-9_.>*])($names)\\)? *\\(" > "$scratch/calls" &&
            { cat "$scratch/calls"; fail "$f calls the operating system"; }
    done ;;
stands_alone)
    # A project outside the tree, with copies of the files and nothing else.
    cp $shipped "$scratch" && cp examples/detect.c examples/embed.cc "$scratch" || exit 1
    sh tests/shown.sh . > "$scratch/shown.h" || exit 1
    cd "$scratch" || exit 1
    cc -c -x c -DGFL_IMPLEMENTATION gfl.h -o gfl.o && cc -c gfl_train.c &&
        cc detect.c gfl.o gfl_train.o -o detect_c -lm -pthread || fail "a C program"
    need c++
    c++ -std=c++11 embed.cc gfl.o gfl_train.o -o embed -lm -pthread || fail "a C++ program"
    c++ -x c++ -std=c++11 -fsyntax-only shown.h || fail "what the README and the guide show, as C++"
    # Without stb_image all but JPEG is read, and gfl_image_get_kind says so.
    cat > kinds.c <<'EOF'
#include "gfl.h"
int main(void) {
    int png = 0, jpeg = 1;
    gfl_image_get_kind("\x89PNG\r\n\x1a\n", 8, &png);
    gfl_image_get_kind("\xff\xd8\xff\xe0", 4, &jpeg);
    return !(png == 1 && jpeg == 0);
}
EOF
    cc -c -DGFL_NO_STB_IMAGE gfl_train.c -o without.o &&
        cc kinds.c gfl.o without.o -o kinds -lm -pthread && ./kinds ||
        fail "what is read without stb_image" ;;
walls_hold)
    # Whoever breaks a wall is told: a layer that names another's, a local name that is not its own.
    cc -std=c11 -O1 $warn scripts/amalgamate.c -o "$scratch/amalgamate" && cp -r src "$scratch" ||
        exit 1
    cd "$scratch" && ./amalgamate src/gfl.h > gfl.h || fail "the tree as it is"
    told() {
        ./amalgamate src/gfl.h > gfl.h 2> said && fail "$1: nothing is said"
        grep -q "$2" said || { cat said; fail "$1: something else is said"; }
    }
    echo 'static int gfli_planted(const gfl_model *m) { return gfli_model_find(m, ""); }' \
        >> src/cpu/pool.c
    told "the CPU names a network" 'cpu/pool.c:.*may not use gfli_model_find of model/'
    cp "$root/src/cpu/pool.c" src/cpu/pool.c
    echo 'static void gfli_max_pool_cpu(void) {' >> src/cpu/nms.c
    told "two functions of one name" 'cpu/nms.c:.*no header declares gfli_max_pool_cpu of cpu/pool.c'
    cp "$root/src/cpu/nms.c" src/cpu/nms.c
    printf '#define GFLI_PLANTED 1\n#undef GFLI_PLANTED\n' | tee -a src/cpu/nms.c >> src/cpu/pool.c
    ./amalgamate src/gfl.h > gfl.h || fail "a macro that is undefined again is nobody's" ;;
ceilings_hold)
    # What may only become less.  First that the search finds what is planted.
    tree=$scratch/planted
    mkdir -p "$tree/src/api" "$tree/examples" "$tree/tests" "$tree/bench" "$tree/scripts" || exit 1
    body() { awk -v n="$1" 'BEGIN { while (n-- > 0) print "    x++;" }'; }
    { echo 'int sixty(void) {'; body 58; echo '}'; } > "$tree/tests/sixty.c"
    { echo 'int sixty_one(int a,'; echo '              int b) {'; body 58; echo '}'; } > "$tree/bench/f.cc"
    awk 'BEGIN { for (i = 0; i < 101; i++) printf "/"; print "" }' > "$tree/scripts/long.cuh"
    cat > "$tree/src/api/planted.h" <<'EOF'
/* A type. */
typedef struct gfl_a {
    int told; /* what it is */
    int untold;
} gfl_a;
typedef enum gfl_b { GFL_B = 0 } gfl_b;

/* gfl_make - make it.
 *
 * Errors, Memory   as gfl_other. */
GFL_API gfl_status gfl_make(gfl_a **out);

/* gfl_lose - make it.
 *
 * Errors    none. */
GFL_API gfl_status gfl_lose(gfl_a **out);

/* gfl_do - do it. */
GFL_API gfl_status gfl_do(void);

GFL_API int gfl_mute(void);
EOF
    sh tests/ceilings.sh "$tree" "$scratch" > "$scratch/list" || exit 1
    cat > "$scratch/want" <<'EOF'
functions over 60 lines: bench/f.cc:1: int sixty_one(int a,
lines over 100 columns: scripts/long.cuh:1: 101
public names without a contract: src/api/planted.h:4:     int untold; has no comment
public names without a contract: src/api/planted.h:6: gfl_b has no comment
public names without a contract: src/api/planted.h:16: gfl_lose has no Memory
public names without a contract: src/api/planted.h:19: gfl_do has no Errors
public names without a contract: src/api/planted.h:21: gfl_mute has no comment
EOF
    diff "$scratch/want" "$scratch/list" || fail "the search misses something (< wanted, > found)"
    sh tests/ceilings.sh . "$scratch" > "$scratch/list" || exit 1
    cc -std=c11 -O1 $warn scripts/amalgamate.c -o "$scratch/amalgamate" || exit 1
    "$scratch/amalgamate" src/gfl.h 2>&1 > "$scratch/gfl.h" | sed 's/^/breaches of a wall: /' >> "$scratch/list"
    while read -r most kind; do
        case $most in '#') continue ;; esac
        n=$(grep -c "^$kind: " "$scratch/list")
        [ "$n" -le "$most" ] || { grep "^$kind: " "$scratch/list"; fail "$n $kind, where $most may be"; }
        [ "$n" -eq "$most" ] ||
            fail "$n $kind, where $most may be: write the lower number into tests/data/ceilings.txt"
    done < tests/data/ceilings.txt
    ;;
citations_resolve)
    # "spec 5.4" in a comment is a heading of docs/spec.md.
    grep -rhoE 'spec [0-9]+(\.[0-9]+)?' src tests/*.[ch] tests/emu examples bench | sort -u |
        sed 's/^spec //' > "$scratch/cited"
    [ -s "$scratch/cited" ] || fail "no citation was found: the search is wrong"
    while read -r number; do
        grep -qE "^###? $(echo "$number" | sed 's/\./\\./')\.? " docs/spec.md ||
            fail "docs/spec.md has no section $number: $(grep -rlE "spec $number" src tests)"
    done < "$scratch/cited" ;;
interface_is_the_committed_one)
    [ "$(getconf LONG_BIT)" = 64 ] || { echo "skipped: the list is for 64-bit machines"; exit 77; }
    sh tests/abi.sh "$root" "$scratch" > "$scratch/abi.txt" || exit 1
    set -- $(sed -n 's/^GFL_ABI \([0-9]*\) of \([0-9]*\)[.]\([0-9]*\)$/\1 \2 \3/p' "$scratch/abi.txt")
    [ "$1" -eq $(($2 == 0 ? $3 : 100 * $2)) ] ||
        fail "GFL_ABI is $1 in version $2.$3: it is MAJOR * 100, and MINOR while MAJOR is 0"
    diff tests/data/abi.txt "$scratch/abi.txt" || fail "
The public interface changed (< committed, > now).  Programs that are already compiled would go wrong:
 * fields are only added at the end of a struct, enumerators keep their values;
 * if the committed list was released, raise GFL_ABI and GFL_VERSION_MINOR in src/api/config.h;
 * then write the new list with \"make abi\" and commit it." ;;
names_follow_the_rules)
    # As the manual's NAMES has them: a creator takes a description just before the object that it
    # makes; what only reads of an object is a gfl_X_get_Y or a gfl_X_count_Y.
    calls=$scratch/calls
    sed -n 's/^call //p' tests/data/abi.txt > "$calls"
    made='gfl_(context|model|dataset|detector|trainer|evaluator)'
    [ "$(grep -cE "$made \*\*out\)" "$calls")" -gt 10 ] || fail "no creator was found"
    ! grep -E "$made \*\*out\)" "$calls" | grep -v gfl_context_create_abi |
        grep -vE "const gfl_[a-z]+_desc \*desc, $made \*\*out\)" ||
        fail "a creator without its description"
    ! grep -E "\(const $made \*[a-z]+[,)]" "$calls" | grep -v ' gfl_status ' |
        grep -vE " \*?${made}_(get|count)_[a-z_]+\(" || fail "neither gfl_X_get_Y nor gfl_X_count_Y"
    ! grep -E ' \*?gfl_[a-z]+_n_[a-z]+\(|_at\(' "$calls" || fail "an old name for a getter"
    # No public name is another's plural, or that of something else inside the library.
    grep -ow 'gfl_[a-z_0-9]*' tests/data/abi.txt | sort -u > "$scratch/public"
    sed 's/$/s/' "$scratch/public" | grep -xFf "$scratch/public" && fail "names apart by one letter"
    sed 's/^gfl_/gfli_/' "$scratch/public" | grep -vx 'gfli_backend\|gfli_cuda' > "$scratch/inside"
    grep -owhFf "$scratch/inside" gfl.h gfl_train.c gfl_cuda.cu && fail "a public name and an internal one"
    # What CHANGELOG.md calls renamed is: the old name is gone, the new one is there.
    sed -n 's/^| `\(gfl_[a-z_]*\)` | `\(gfl_[a-z_]*\)`.*/\1 \2/p' CHANGELOG.md > "$scratch/renamed"
    [ "$(wc -l < "$scratch/renamed")" -gt 20 ] || fail "no table of renamed names was found"
    while read -r old new; do
        ! grep -qw "$old" tests/data/abi.txt || fail "$old is still there"
        grep -qw "$new" tests/data/abi.txt || fail "there is no $new, which $old is said to be now"
    done < "$scratch/renamed" ;;
formatted)
    # Versions of clang-format disagree; the tree is written by this one.
    need clang-format
    clang-format --version | grep -q 'version 14\.' ||
        { echo "skipped: clang-format 14 is wanted, not $(clang-format --version)"; exit 77; }
    make -s format-check || fail 'run "make format" and commit what it changes' ;;
*) fail "no such check: $check" ;;
esac
exit 0
