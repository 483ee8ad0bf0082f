#!/bin/sh
# The library, the command and the examples for Windows, compiled by mingw-w64, run by Wine:
#     wine.sh GFL SCRATCH MAKE_SHAPES ROOT
# The reference is the same command here.  Exit status 77: a tool is missing.
set -u
native=$1 shapes=$3 root=$4
for tool in x86_64-w64-mingw32-gcc wine; do
    command -v $tool >/dev/null 2>&1 || { echo "skipped: no $tool here"; exit 77; }
done
rm -rf "$2" && mkdir -p "$2/include" && cd "$2" || exit 1
. "$root/tests/expect.sh"
export WINEPREFIX="$PWD/prefix" WINEDEBUG=-all
ln -s /usr/include/stb include/stb # and no other header of this system

# Everything compiles without a warning.
warn='-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror'
cross="x86_64-w64-mingw32-gcc -O2 $warn -isystem include -I$root"
strict='-std=c11 -D_POSIX_C_SOURCE=200809L'
$cross -std=gnu11 -x c -DGFL_IMPLEMENTATION -c "$root/gfl.h" -o gfl.o &
$cross $strict -c "$root/gfl_train.c" -o gfl_train.o || exit 1
wait $! || exit 1
$cross $strict "$root"/examples/cmd_*.c "$root/examples/gfl.c" gfl.o gfl_train.o -o gfl.exe \
    -lm -lpsapi -lshell32 || exit 1
mkdir flat && ln -s /usr/include/stb/*.h flat # as files that lie beside the program's own
x86_64-w64-mingw32-gcc $warn -isystem flat -I"$root" $strict -fsyntax-only "$root/gfl_train.c" \
    "$root/examples/cmd_draw.c" || exit 1
for f in detect evaluate train distributions; do
    $cross $strict "$root/examples/$f.c" gfl.o gfl_train.o -o $f.exe -lm || exit 1
done
# All of windows.h may have come first: far, near, small, min, max, interface, ERROR, IN, OUT.
printf '#include <windows.h>\n#define GFL_IMPLEMENTATION\n#include "gfl.h"\n#include "gfl_train.c"\n' > one.c
$cross -std=gnu11 -fsyntax-only one.c || exit 1
$cross -fsyntax-only -std=gnu11 -D__USE_MINGW_ANSI_STDIO=0 "$root/gfl_train.c" 2>err && fail "the old printf is good enough"
says 'D__USE_MINGW_ANSI_STDIO' err

# The command as the other tests run it, there and here.
cat > on_windows <<'END'
#!/bin/sh
exec wine ./gfl.exe "$@"
END
chmod +x on_windows
gfl=./on_windows
expect 0 --version; says '^gfl [0-9]' out
expect 2 trian; says 'did you mean "train"' err
"$shapes" 'dätä' 12 4 || exit 1

# Names are UTF-8, separators are either; what is written there is read here.
narrow='--model r18 --base-channels 8 --fpn-channels 32 --head-channels 32 --stacked-convs 1
        --scale 160x128 --batch 4 --threads 2'
expect 0 train --data 'dätä\train.json' --images 'dätä\train' --val 'dätä/val.json' \
    --val-images 'dätä/val' --out 'läuf\eins' --epochs 1 $narrow
[ "$(grep -c '"loss' läuf/eins/train.jsonl)" -ge 3 ] || fail "a line for each step"
LC_ALL=C grep -q "$(printf '\r')" läuf/eins/train.jsonl läuf/eins/results.csv läuf/eins/config.txt &&
    fail "carriage returns in what is written"
expect 0 train --resume --out 'läuf/eins' --epochs 2
[ "$(wc -l < läuf/eins/results.csv)" = 3 ] || fail "two epochs in results.csv"
ls läuf/eins | grep -q tmp && fail "temporaries are left over"
expect 0 detect --weights 'läuf\eins\last.safetensors' --score 0.001 --max 5 --out 'bilder\ä' \
    --results 'läuf\r.json' 'dätä\val'
[ "$(ls bilder/ä | wc -l)" = 4 ] || fail "four pictures are drawn"
"$native" detect --weights läuf/eins/last.safetensors --score 0.001 --max 5 --results here.json \
    dätä/val >out 2>err || fail "the weights cannot be read here"
# Both found the same, to what another order of sums changes.
numbers() { tr -c '0-9.e\n-' ' ' < "$1"; }
numbers läuf/r.json > there.txt && numbers here.json > here.txt
[ "$(wc -l < here.txt)" -gt 10 ] || fail "nothing is found"
paste -d ' ' there.txt here.txt | awk '
    NF % 2 { exit 1 }
    { for (i = 1; i <= NF / 2; i++) {
          d = $i - $(i + NF / 2)
          if (d > 0.01 || d < -0.01) exit 1
      } }' || fail "other detections than here"

# What is no file is told, without waiting for it.
expect 1 check --data NUL; says 'it is a device' err
expect 1 check --data 'dätä'; says 'it is a folder' err
expect 1 check --data 'nicht da.json'; says 'nicht da.json' err

# A folder is one process's.
wine ./gfl.exe train --data 'dätä/train.json' --images 'dätä/train' --out zwei --epochs 1000 $narrow \
    >/dev/null 2>&1 &
first=$!
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ -s zwei/train.jsonl ] && break
    sleep 0.5
done
expect 1 train --resume --out zwei; says 'is training in this folder' err
kill -9 $first
wait $first 2>/dev/null

[ $failures = 0 ] || exit 1
echo ok
