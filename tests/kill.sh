#!/bin/sh
# kill.sh GFL SCRATCH MAKE_SHAPES [STRIDE] - a run that is killed before any change of the file
# system, or for which any change fails, goes on to the same end.  GFL is the command with seam.c
# behind it; STRIDE 7 tries every seventh change.
gfl=$1 scratch=$2 make_shapes=$3 stride=${4:-1}
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$scratch" && mkdir -p "$scratch" && cd "$scratch" || exit 1
. "$here/expect.sh"
for v in $(env | sed -n 's/^\(GFL_[A-Z_]*\)=.*/\1/p'); do unset "$v"; done

"$make_shapes" data 6 3 || exit 1
data='--data data/train.json --images data/train --val data/train.json --val-images data/train'
tiny='--batch 3 --seed 3 --threads 1 --loaders 0 --clip 5 --steps 0'
narrow='--model r18 --base-channels 1 --fpn-channels 8 --head-channels 32 --stacked-convs 1
    --scale 96x64'
expect 0 train $data $narrow $tiny --lr 0.01 --warmup 20 --epochs 40 --eval-every 0 --out start

# What must be the same: everything but config.txt (which names the folder) and, in train.jsonl,
# the clock, the memory and the lines of runs that begin or go on.
log() { grep -v '^{"gfl"' "$1/train.jsonl" | sed 's/"time": .*//'; }
check() {
    for f in last.safetensors last.state.safetensors previous.safetensors \
        previous.state.safetensors best_bbox_mAP.safetensors results.csv; do
        cmp -s "want/$f" "$1/$f" || fail "$2: $f differs"
    done
    log want >a
    log "$1" >b
    cmp -s a b || fail "$2: train.jsonl differs"
    [ "$(ls -A "$1")" = "$(ls -A want)" ] || fail "$2: left over: $(ls -A "$1" | tr '\n' ' ')"
    [ "$(grep -c '^{"gfl"' "$1/train.jsonl")" -le 3 ] || fail "$2: lines of runs that learnt nothing"
}

# A run whose best weights change, and are not the last ones: at which rate, depends on the machine.
for rate in 0.02 0.01 0.03 0.015 0.04 0.05; do
    run="train $data --from start/last.safetensors $tiny --lr $rate --warmup 1 --epochs 3"
    rm -rf want
    expect 0 $run --out want
    [ "$(grep -c '"best"' want/train.jsonl)" = 2 ] || continue
    [ "$(tail -1 want/train.jsonl | grep -c '"best"')" = 1 ] || break
done
[ "$(grep -c '"best"' want/train.jsonl)" = 2 ] || fail "the best weights do not change twice"

# points COMMAND...: how many changes it makes; 0 changes would test nothing.
points() {
    rm -f seam
    SEAM_LOG=seam expect 0 "$@"
    n=$(wc -l <seam)
    [ "$n" -gt 40 ] || fail "$n changes of the file system: $*"
}

# A fresh run, cut at each point.  Only where nothing was begun, the command is given again.
go_on() {
    again="train --resume"
    [ -s part/config.txt ] || again=$run
    "$gfl" $again --out part >out 2>err
    got=$?
    [ $got = 0 ] || fail "$1: exit $got from the run that goes on"
    check part "$1"
}
points $run --out part
rm -rf part
# Who loses the race for a folder takes nothing away from who trains there.
i=$(grep -n ' lock part/config.txt$' seam | head -1 | cut -d: -f1)
SEAM_AT=$i SEAM_ERROR=11 "$gfl" $run --out lost >out 2>err # EAGAIN: another process holds it
[ $? = 1 ] && grep -q 'another process is training' err || fail "the lock was to be another's"
[ -e lost/config.txt ] || fail "who has no lock removed the file that another process holds"

for e in kill 28 5; do # SIGKILL, no space left, a defective disk
    i=1
    while [ $i -le $n ]; do
        what="begun, $e at $(sed -n ${i}p seam)"
        if [ $e = kill ]; then
            SEAM_AT=$i "$gfl" $run --out part >out 2>err
            [ $? = 137 ] || fail "$what: it was not killed"
        else
            SEAM_AT=$i SEAM_ERROR=$e "$gfl" $run --out part >out 2>err
            got=$?
            case $what in
            *'sync folder'*) [ $got = 0 ] || fail "$what: exit $got" ;; # not every system can
            *) [ $got = 1 ] && grep -q '^gfl: ' err || fail "$what: exit $got, or not a word" ;;
            esac
        fi
        go_on "$what"
        rm -rf part
        i=$((i + stride))
        [ $e = kill ] || i=$((i + stride)) # every other
    done
done

# A run that goes on, from a kill in the midst of putting the second save in its place.
half=$(grep -n 'rename.*/last.safetensors' seam | sed -n 2p | cut -d: -f1)
SEAM_AT=$half "$gfl" $run --out half >out 2>err
[ -e half/next.safetensors ] || fail "the second save was to be half done"
cp -r half part
points train --out part --resume
rm -rf part
i=1
while [ $i -le $n ]; do
    what="resumed, kill at $(sed -n ${i}p seam)"
    cp -r half part
    SEAM_AT=$i "$gfl" train --out part --resume >out 2>err
    [ $? = 137 ] || fail "$what: it was not killed"
    [ -e part/previous.safetensors ] && [ -e part/previous.state.safetensors ] ||
        fail "$what: the earlier pair is gone"
    go_on "$what"
    rm -rf part
    i=$((i + stride))
done

# A run in place of another.
points $run --out part
run="$run --overwrite"
cp -r want part
points $run --out part
rm -rf part
i=1
while [ $i -le $n ]; do
    what="overwritten, kill at $(sed -n ${i}p seam)"
    cp -r want part
    SEAM_AT=$i "$gfl" $run --out part >out 2>err
    [ $? = 137 ] || fail "$what: it was not killed"
    go_on "$what"
    rm -rf part
    i=$((i + 3 * stride))
done

[ $failures = 0 ] && echo "all is well"
exit $failures
