#!/bin/sh
# starve.sh GFL SCRATCH MAKE_SHAPES - whichever piece of memory the command does not get: it says so,
# its exit code is 4, and what was there before is as it was.  GFL is the command with starve.c
# behind it.
gfl=$1 scratch=$2 make_shapes=$3
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$scratch" && mkdir -p "$scratch" && cd "$scratch" || exit 1
. "$here/expect.sh"
for v in $(env | sed -n 's/^\(GFL_[A-Z_]*\)=.*/\1/p'); do unset "$v"; done

"$make_shapes" data 4 2 || exit 1
data='--data data/train.json --images data/train'
expect 0 train $data --model r18 --base-channels 8 --fpn-channels 32 --head-channels 32 \
    --stacked-convs 1 --scale 96x96 --batch 4 --lr 0.01 --seed 3 --epochs 1 --out run
w=run/last.safetensors
[ -s $w ] || exit 1
printf 'a = b\n' >none.cfg
mkdir -p p/sub && cp data/train/0001.png p/a.png && cp data/train/0002.png p/sub/a.png
cp data/train/0003.png "p/$(printf 'b\377.png')" && echo text >p/notes.txt && ln -s sub p/link
expect 0 detect --weights $w --score 0.001 --results r.json p
cp r.json before.json

# Every piece at first, ever fewer later, until the command gets all that it asks for.
starve() {
    n=0 got=4
    while [ $got != 0 ] && [ $n -lt 100000 ]; do
        n=$((n + 1 + n / 8))
        STARVE_AT=$n "$gfl" "$@" >out 2>err
        got=$?
        [ $got = 0 ] && break
        [ $got = 4 ] || fail "exit $got where piece $n is refused: gfl $*"
        [ $got = 4 ] || return
        grep -qi memory err || fail "not a word about piece $n: gfl $*"
        cmp -s r.json before.json || fail "piece $n: r.json is not as it was: gfl $*"
    done
    [ $n -gt "${least:-1}" ] || fail "only $n pieces: gfl $*"
    [ "$(find . -name '*.tmp' | wc -l)" = 0 ] || fail "temporary files stay: gfl $*"
}

least=40
starve detect --weights $w --score 0.001 --results r.json --out drawn --json p
starve detect --weights $w --out drawn p/a.png p/sub/a.png p
least=0
starve detect --weights $w p/a.png
starve eval --weights $w $data --results e.json
starve check $data --out sheet.png
starve convert --classes a,b,c,d $w copy.safetensors
starve train --from $w $data --map square=circle --batch 4 --lr 0.01 --epochs 1 --out other --overwrite
starve bench --weights $w --repeats 1
starve info $w --tensors

[ $failures = 0 ] && echo "all is well"
exit $failures
