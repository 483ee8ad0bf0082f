#!/bin/sh
# cli_run.sh GFL SCRATCH MAKE_SHAPES - a run's folder and what may happen to it.
gfl=$1 scratch=$2 make_shapes=$3
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$scratch" && mkdir -p "$scratch" && cd "$scratch" || exit 1
. "$here/expect.sh"
for v in $(env | sed -n 's/^\(GFL_[A-Z_]*\)=.*/\1/p'); do unset "$v"; done

same() { cmp -s "$1" "$2" || fail "$1 and $2 differ"; }
log() { grep -v '^{"gfl"' "$1/train.jsonl" | sed 's/"time": .*//'; }
same_run() {
    for f in last.safetensors last.state.safetensors best_bbox_mAP.safetensors results.csv; do
        same "$1/$f" "$2/$f"
    done
    log "$1" >a
    log "$2" >b
    same a b
}
# begin ARGUMENTS...: in the background, until some steps are done.
begin() {
    before=$(cat long/train.jsonl 2>/dev/null | wc -l)
    "$gfl" "$@" >out 2>err &
    pid=$!
    while [ "$(cat long/train.jsonl 2>/dev/null | wc -l)" -lt $((before + 4)) ]; do
        kill -0 $pid 2>/dev/null || break
        sleep 0.05
    done
}
end() {
    wait $pid
    got=$?
    [ $got = "$1" ] || fail "$2: exit $got, wanted $1"
}

"$make_shapes" data 6 3 || exit 1
data='--data data/train.json --images data/train --val data/train.json --val-images data/train'
tiny='--model r18 --base-channels 1 --fpn-channels 8 --head-channels 32 --stacked-convs 1
    --scale 96x64 --batch 3 --seed 3 --loaders 0 --threads 1 --warmup 2
    --steps 0'
train="train $data $tiny --lr 0.01"
expect 0 $train --epochs 3 --out three
expect 0 $train --epochs 2 --out two

# Wrong use.
expect 2 train $data $tiny --lr 0; says 'nothing would be learnt' err
for x in nan inf -inf 1e999; do
    expect 2 train $data $tiny --momentum $x --out x; says 'finite number' err
    expect 2 detect --weights w --score $x p; says 'finite number' err
done
expect 2 $train --momentum -0.1 --out x; says 'momentum' err
expect 2 $train --weight-decay -1 --out x; says 'decay' err
expect 2 $train --out ''; says 'name of a folder' err
expect 2 $train --out three; says '--overwrite' err
expect 2 $train --out three --resume --overwrite; says 'choose one' err
expect 2 train --out nowhere --resume; says '--resume: nowhere holds no run' err
expect 2 $train --out nowhere --resume; says 'no folder nowhere' err
[ ! -e nowhere ] || fail "a folder for a run that is not there"
mkdir empty
expect 2 $train --out empty --resume; says 'there is no empty/last' err
[ -z "$(ls empty)" ] || fail "something is left of a run that never began: $(ls empty)"
OMP_NUM_THREADS=1000 expect 0 info --devices

# Only what has a say may be given anew; the same again is no change.
expect 2 train --out two --resume --model r50; says '--model r18, not --model r50' err
says 'what may change is --epochs' err
expect 2 train --out two --resume --from two/last.safetensors
expect 2 train --out two --resume --head-channels 64; says 'not --head-channels 64' err
expect 2 train --out two --resume --batch 2; says 'with --batch 3, not --batch 2' err
cp -r two longer
expect 0 $train --out longer --resume --epochs 3 --eval-every 1 --threads 2
same_run longer three
expect 0 train --out longer --resume; says 'all 3 epochs are done; --epochs N trains longer' err

# A recipe gives what is not given, and what is given may not contradict it.
paper="train $data --from two/last.safetensors --recipe paper --threads 1"
expect 2 train $data --recipe paper --out x; says 'add --weights FILE' err
expect 2 train $data --recipe fast --out x; says 'must be paper, not "fast"' err
expect 2 $paper --batch 4 --out x; says 'paper means --batch 16, but --batch 4 is given' err
expect 2 $paper --no-flip --out x; says 'paper means --flip, but --no-flip is given' err
GFL_SCALE=96x64 expect 2 $paper --out x; says 'but --scale 96x64 is given' err
[ ! -e x ] || fail "a folder for settings that contradict each other"
"$gfl" $paper --lr .01 --out paper >out 2>err &
pid=$!
while ! grep -q gfl paper/train.jsonl 2>/dev/null; do
    kill -0 $pid || break
    sleep 0.05
done
kill -TERM $pid
end 143 '--recipe paper'
says 'recipe: paper: --scale 1333x800 --epochs 12 --steps 8,11 --batch 16 --accumulate 1' err
says 'learning rate 0.01, warm-up 500 steps' err
for s in 'recipe = paper' 'lr = 0.01' 'warmup = 500' 'frozen-stages = 1' 'drop-empty = true'; do
    says "^$s" paper/config.txt
done
expect 2 train --out two --resume --recipe paper; says 'trained without --recipe' err

# One process at a time, which is named.
begin $train --epochs 5000 --eval-every 0 --out long
expect_other() { "$gfl" "$@" >out2 2>err2; [ $? = 1 ] || fail "two runs in one folder: $*"; }
expect_other $train --epochs 5000 --out long --overwrite; says "process $pid is training" err2
expect_other train --out long --resume; says "process $pid" err2
kill -TERM $pid
end 143 SIGTERM
says 'resume' err
[ -z "$(ls long | grep tmp)" ] || fail "temporary files stay"
steps=$(grep -c loss_dfl long/train.jsonl)
[ "$(tail -1 long/train.jsonl | grep -c "\"iter\": $steps,")" = 1 ] || fail "lines are torn"

# Hanging up saves too, unless nohup; Ctrl-C is answered, and a second one is obeyed at once.
begin $train --epochs 5000 --eval-every 0 --out long --resume
kill -HUP $pid
end 129 SIGHUP
begin $train --epochs 5000 --eval-every 0 --out long --resume
kill -INT $pid
end 130 SIGINT; says 'finishing this step; again to stop now' err
"$gfl" train $data --model r18 --scale 800x800 --batch 2 --threads 1 --out slow >out 2>err &
pid=$!
while ! grep -q gfl slow/train.jsonl 2>/dev/null; do
    kill -0 $pid || break
    sleep 0.05
done
sleep 0.2 # into the first step, which takes seconds
kill -INT $pid
sleep 0.1
kill -INT $pid
end 130 'SIGINT twice'; says 'again to stop now' err
[ ! -e slow/last.safetensors ] || fail "the second SIGINT waited for the step"
(
    trap '' HUP
    begin $train --epochs 5000 --eval-every 0 --out long --resume
    kill -HUP $pid
    sleep 0.3
    kill -0 $pid || fail "nohup: SIGHUP ended it"
    kill -TERM $pid
    end 143 nohup
    exit $failures
)
failures=$((failures + $?))

# Closed streams: no file of the run becomes standard output or error.
"$gfl" $train --epochs 3 --out closed >out 2>&-
[ $? = 0 ] || fail "standard error is closed"
same_run closed three
"$gfl" $train --epochs 3 --out closed --overwrite <&- >&- 2>&-
[ $? = 1 ] || fail "standard output is closed: the numbers were not written"
same_run closed three
{ "$gfl" $train --epochs 3 --out closed --overwrite 2>err; echo $? >code; } | true
[ "$(cat code)" = 1 ] || fail "a pipe without a reader: exit $(cat code)"
same_run closed three

# What a killed process left of the logs is cut: a torn line, a step that was not saved.
cp -r two torn
cp three/results.csv three/train.jsonl torn
truncate -s -9 torn/results.csv
truncate -s -30 torn/train.jsonl
echo x >torn/train.tmp; echo x >torn/next.safetensors; echo x >torn/last.safetensors.123-0.tmp
expect 0 train --out torn --resume --epochs 3
same_run torn three
[ "$(ls torn)" = "$(ls three)" ] || fail "left over: $(ls torn)"

# The pair before the last is a state to go on from.
cp -r three back
cp back/previous.safetensors back/last.safetensors
cp back/previous.state.safetensors back/last.state.safetensors
expect 0 train --out back --resume
same_run back three

# Weights and state of two runs are never paired.
expect 0 $train --epochs 2 --seed 4 --out other
cp -r two stale
cp other/last.safetensors stale/next.safetensors
cp two/last.state.safetensors stale/next.state.safetensors
expect 0 train --out stale --resume --epochs 3; says 'do not belong together' err
same_run stale three

# Best weights that are not what results.csv says are written again, or it is said.
best=best_bbox_mAP.safetensors
mend() { # mend RUN WHERE: the best weights, those of epoch 1, come back from WHERE
    expect 0 train --out "$1" --resume; says "written again from $2" err
    same "$1/$best" three/$best
}
expect 0 $train --epochs 1 --out one
same one/$best three/$best
cp -r one mended && rm mended/$best && mend mended last
cp -r two mended2 && cp two/last.safetensors mended2/$best && mend mended2 previous
cp -r three lost && rm lost/$best
expect 0 train --out lost --resume --epochs 4; says 'missing: it held the weights of epoch 1' err
same lost/$best lost/last.safetensors
expect 0 train --out lost --resume --epochs 5
grep -q 'warning' err && fail "the best weights are called lost twice"

# Before the first save there is nothing to go on from but the settings.
mkdir begun && cp two/config.txt begun && sed -i "s,^out = .*,out = begun," begun/config.txt
expect 0 train --out begun --resume --epochs 3; says 'begins again' err
same_run begun three
cp -r two taken && rm taken/last.* taken/previous.* taken/$best
expect 2 train --out taken --resume; says 'there is no taken/last' err

# What is stopped before the first step leaves the folder as it was, or a run that can begin.
mkdir hollow && : >hollow/config.txt
expect 0 $train --epochs 3 --out hollow --resume; says 'begins again' err
same_run hollow three
awk 'BEGIN {
    n = 20000
    printf "{\"categories\": [{\"id\": 1, \"name\": \"circle\"}], \"images\": ["
    for (i = 1; i <= n; i++)
        printf "{\"id\": %d, \"file_name\": \"0001.png\", \"width\": 160, \"height\": 128}%s", i,
            (i < n ? "," : "], \"annotations\": [")
    for (i = 1; i <= n; i++)
        printf "{\"id\": %d, \"image_id\": %d, \"category_id\": 1, \"bbox\": [9, 9, 9, 9]}%s", i, i,
            (i < n ? "," : "]}\n")
}' >many.json
many="--data many.json --images data/train --threads 1"
for signal in 15 2; do
    "$gfl" train $many --model r18 --out early >out 2>err &
    pid=$!
    while [ ! -e early/config.txt ] && kill -0 $pid 2>/dev/null; do sleep 0.02; done
    kill -$signal $pid
    end $((128 + signal)) "stopped by $signal while it prepares"; says 'before the first step' err
    [ -z "$(ls early)" ] || fail "something is left of a run that never began: $(ls early)"
done
"$gfl" eval $many --weights two/last.safetensors >out 2>err &
pid=$!
while ! grep -q "20000 images" err && kill -0 $pid 2>/dev/null; do sleep 0.02; done
sleep 0.1
kill -2 $pid
end 130 'eval, stopped while it looks at pictures'; says 'again to stop now' err

# A run goes on from another folder, and whatever is in the names.
odd=$(printf ' a #"b\\"\n= data \t')
cp data/train.json "$odd"
expect 0 train --data "$odd" --images data/train $tiny --lr 0.01 --epochs 2 --out odd
cp odd/config.txt config
mkdir -p else && cd else || exit 1
"$gfl" train --out ../odd --resume --epochs 3 >../out 2>../err || fail "resumed elsewhere"
cd .. || exit 1
sed 's/^epochs = 2/epochs = 3/; /^out =/d' config >a
sed '/^out =/d' odd/config.txt >b
same a b
expect 0 train --config odd/config.txt --out odd2
same odd/last.safetensors odd2/last.safetensors

# Configuration files: byte order mark, blanks, CRLF; neither NUL nor pipes.
long=$(head -c 9000 /dev/zero | tr '\0' x)
{
    printf '\357\273\277epochs = 1\r\n  seed  =  3  \r\n# a remark\r\n\r\nout = fromfile\r\n'
    printf 'images = "data/train"\nmap = %s\n' "$long"
} >bom.cfg
expect 2 train --data data/train.json --config bom.cfg; says '--map' err
sed '/^map/d' bom.cfg >bom2.cfg
expect 0 train --data data/train.json --config bom2.cfg $tiny --eval-every 0
says 'seed = 3' fromfile/config.txt
printf 'seed = 5\n' >five.cfg
expect 0 train --data data/train.json --config bom2.cfg --config five.cfg $tiny --eval-every 0 \
    --seed 6 --overwrite
says 'seed = 6' fromfile/config.txt
expect 0 train --data data/train.json --config bom2.cfg --config five.cfg --overwrite --eval-every 0 \
    $(echo $tiny | sed 's/--seed 3//')
says 'seed = 5' fromfile/config.txt
printf 'seed = 3\nout = a\0b\n' >nul.cfg
expect 2 train --data data/train.json --config nul.cfg; says 'is 0' err
mkfifo fifo.cfg
expect 2 train --data data/train.json --config fifo.cfg; says 'not a regular file' err
expect 2 train --data data/train.json --config data; says 'data' err

# Links: the folder may be one, its files may not.
mkdir elsewhere && ln -s elsewhere linked
expect 0 $train --epochs 3 --out linked
same_run elsewhere three
[ -L linked ] || fail "the link to the folder was replaced"
mv elsewhere/last.safetensors moved && ln -s ../moved elsewhere/last.safetensors
expect 1 train --out linked --resume; says 'symbolic link' err
[ -L elsewhere/last.safetensors ] || fail "a link was replaced"
cp -r two linked2 && mv linked2/config.txt c && ln -s ../c linked2/config.txt
expect 1 train --out linked2 --resume; says 'config.txt is a symbolic link' err
ln -s nowhere dangling
expect 1 $train --out dangling; says 'dangling' err

# A rate that is far too high: the files that are named are there.
expect 6 $train --epochs 2 --lr 1e30 --warmup 0 --out nan --eval-every 0
for f in $(grep -o 'nan/[a-z]*.safetensors' err); do [ -s "$f" ] || fail "$f was not written"; done

expect 6 $train --epochs 2 --lr 1e300 --out never; says 'nothing was saved' err
[ ! -e never/last.safetensors ] || fail "weights of no step"
grep -q 'never/last' err && fail "a file is named that was not written"

# A run of version 0.1.0 goes on: what it has is kept, its best weights are mended from its last.
mkdir old && cp -r "$here/data/version_0.1.0/run" old/run && cp -r data old/data && cp "$here/data/version_0.1.0/data/train.json" old/data && cd old || exit 1
cp run/results.csv before
expect 0 train --resume --out run --epochs 4
head -3 run/results.csv >a
same a before
[ "$(wc -l <run/results.csv)" = 5 ] || fail "two more epochs"
same run/$best "$here/data/version_0.1.0/run/last.safetensors"
# Killed between the two renamings of a save, as version 0.1.0 did them.
cp -r "$here/data/version_0.1.0/run" half
mv half/last.state.safetensors half/next.state.safetensors
expect 0 train --resume --out half --epochs 4
same half/last.safetensors run/last.safetensors

[ $failures = 0 ] && echo "all is well"
exit $failures
