#!/bin/sh
# cli.sh GFL SCRATCH MAKE_SHAPES - the command as a user meets it.
gfl=$1 scratch=$2 make_shapes=$3
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$scratch" && mkdir -p "$scratch" && cd "$scratch" || exit 1
. "$here/expect.sh"
fixtures=$GFL_FIXTURES/checkpoints
for v in $(env | sed -n 's/^\(GFL_[A-Z_]*\)=.*/\1/p'); do unset "$v"; done

same() { cmp -s "$1" "$2" || fail "$1 and $2 differ"; }

narrow='--model r18 --base-channels 8 --fpn-channels 32 --head-channels 32 --stacked-convs 1
    --scale 96x96 --batch 4 --lr 0.01 --warmup 4 --seed 3'
data='--data data/train.json --images data/train --val data/val.json --val-images data/val'
train="train $data $narrow"

"$make_shapes" data 12 4 || exit 1

# Wrong use, and help.
expect 2
expect 2 trian; says 'did you mean "train"' err; [ ! -s out ] || fail "stdout is for data"
expect 2 train --epohcs 3; says 'did you mean "epochs"' err
expect 2 train --epochs three --data x; says 'whole number' err
expect 2 train; says '--data' err
expect 2 eval --data data/val.json; says '--weights' err
expect 2 train --data data/train.json --model r19; says 'r19' err
expect 2 train --data data/train.json --epochs 0; says 'epochs' err
expect 2 train --data data/train.json --scale big; says 'LONGxSHORT' err
expect 2 detect; expect 2 info
for c in train eval detect check info convert export bench selftest; do
    expect 0 $c --help; says 'usage: gfl' out; [ ! -s err ] || fail "$c --help talks to stderr"
done
expect 0 --version; says 'gfl [0-9]' out
expect 0 detect --help; cp out help.txt
expect 0 help detect; same help.txt out; expect 0 help; says 'COMMAND' out
expect 2 help detetc; says 'did you mean "detect"' err
expect 2 train --bogusoption 3; says 'gfl train --help lists them' err
expect 2 eval --bogusoption 3; says 'gfl eval --help lists them' err

# A flag is negated in one way in each place; a variable that is nearly an option is told of.
printf 'no-flip = true\n' >negated.cfg
expect 2 train --config negated.cfg; says 'negated.cfg:1: .*a flag is written flip = false in a file' err
expect 2 train --no-flip=true; says '--no-flip takes no value; --flip=false is the same' err
GFL_NO_FLIP=1 GFL_EPOCH=3 GFL_EPOCHS=3 GFL_DATAS=x GFL_ROOT=y GFL_NO_EPOCHS=2 expect 2 train
says 'GFL_NO_FLIP names no option: write GFL_FLIP=false$' err
says 'GFL_EPOCH names no option; did you mean GFL_EPOCHS?$' err
says 'GFL_DATAS names no option; did you mean GFL_DATA?$' err
[ "$(grep -c warning err)" = 3 ] || fail "a variable of others is warned of"

# What could only fail later is said at once.
expect 2 detect --weights x --score 1 data/val; says 'score' err
expect 2 detect --weights x --nms 2 data/val; says 'nms' err
expect 2 detect --weights x --max 0 data/val; says 'max' err
expect 2 detect --weights x --distributions data/val; says '--distributions goes with --json' err
expect 2 detect --weights x --tune data/val; says '--tune is for GPUs' err
expect 2 detect --weights x --kernel best data/val; says 'kernel "best" is none of .*portable' err
expect 1 check --data data/val.json --images nowhere; says 'nowhere' err
[ -s out ] && fail "a line for each picture of a folder that is not there"
expect 1 eval --weights x --data data/val.json --results nowhere/r.json; says 'nowhere' err
expect 2 train --data data/train.json --lr -1; says 'lr' err
expect 2 train --data data/train.json --steps x; says 'steps' err
for s in 2,1 3,3 0,3; do
    expect 2 train --data data/train.json --steps $s; says '--steps must ascend' err
done
for n in 9 -2; do
    expect 2 train --data data/train.json --frozen-stages $n
    says "--frozen-stages must be from 0 to 4, not $n\$" err
done
expect 2 train --data data/train.json --val-images data/val; says '--val-images goes with --val FILE' err

# Broken input.
expect 1 train --data missing.json --out x; says 'missing.json' err
printf '{"images": [' >cut.json
expect 3 train --data cut.json --out x; says 'cut.json:1' err
sed 's/"category_id": 1/"category_id": 99/' data/train.json >unknown.json
expect 3 train --data unknown.json --images data/train --out x; says '99' err
printf '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}' >empty.json
expect 3 train --data empty.json --out x $narrow
printf '{"images": [{"id": 1, "file_name": "train/0001.png"}], "annotations": [],
    "categories": [{"id": 1, "name": "a"}]}' >data/bare.json
expect 3 train --data data/bare.json --out x $narrow; says 'no box' err
expect 3 check --data data/bare.json; says 'no image has a box' out; says '^1 finding$' out
expect 1 eval --weights missing.safetensors --data data/val.json --images data/val
says 'missing.safetensors' err

# A run writes what the README lists; stdout has the twelve numbers.
expect 0 $train --epochs 2 --out whole
for f in last.safetensors last.state.safetensors best_bbox_mAP.safetensors train.jsonl results.csv \
    config.txt; do
    [ -s "whole/$f" ] || fail "no whole/$f"
done
says 'Average Precision' out
[ "$(grep -c loss_dfl whole/train.jsonl)" = 6 ] || fail "train.jsonl has a line a step"
for key in '"config": {"data": ' fingerprint decoder; do head -1 whole/train.jsonl | grep -q "$key" ||
    fail "train.jsonl begins with $key"; done
for key in epoch iter lr loss loss_cls loss_bbox loss_dfl grad_norm time data_time memory eta; do
    [ "$(grep loss_dfl whole/train.jsonl | grep -c "\"$key\": [0-9]")" = 6 ] || fail "no $key in train.jsonl"
done
[ "$(wc -l <whole/results.csv)" = 3 ] || fail "results.csv has a line an epoch"
grep -q 'without --val' err && fail "it is evaluated"
says 'after epoch 1$' err
grep -q "$(printf '\033')" err && fail "escape codes where there is no terminal"

# The configuration reads back as it is; options win over the environment, that over the file.
expect 0 train --config whole/config.txt --out again --eval-every 0
sed "s,^out = .*,out = $PWD/whole,; s/^eval-every = .*/eval-every = 1/" again/config.txt >again.txt
same again.txt whole/config.txt
same again/last.safetensors whole/last.safetensors
GFL_EPOCHS=1 GFL_SEED=9 expect 0 train --config whole/config.txt --seed 3 --out env --eval-every 0
says 'epochs = 1' env/config.txt; says 'seed = 3' env/config.txt

# Fewer pictures than the batch: what is there counts, for the rate too.
expect 0 train $data --model r18 --base-channels 8 --fpn-channels 32 --head-channels 32 \
    --scale 96x96 --batch 24 --accumulate 2 --epochs 1 --eval-every 0 --out few
says 'schedule: 1 epoch of 1 step of 12 images; learning rate 0.0075 (0.01 x images / 16)' err
says 'a batch is all 12 images: there are fewer than --batch 24' err
says '"batch": 12' few/train.jsonl

# Threads and loaders change nothing; neither does stopping and going on.
expect 0 $train --epochs 2 --out single --threads 1 --loaders 0 --eval-every 0
same single/last.safetensors whole/last.safetensors
expect 0 $train --epochs 1 --out parts --eval-every 0 --steps 1
expect 2 train --out parts --lr 0.5 --resume
says 'the run was trained with --lr 0.01, not --lr 0.5: leave that out' err
expect 2 train --out parts --no-flip --resume; says 'trained with --flip, not --no-flip' err
expect 2 train --out parts --scale 96x95 --resume; says 'with --scale 96x96, not --scale 96x95' err
expect 2 train --out parts --from x --resume; says 'trained without --from' err
expect 0 train --out parts --epochs 2 --resume
expect 0 $train --epochs 2 --out longer --eval-every 0 --steps 1
same parts/last.safetensors longer/last.safetensors
expect 7 train --out parts --epochs 1 --resume; says '6 steps are done' err
rm -rf parts

# What a run that died had logged after it was saved is not there twice.
cp -r longer died
tail -1 died/train.jsonl | sed 's/"iter": 6/"iter": 7/' >line && cat line >>died/train.jsonl
expect 0 train --out died --epochs 3 --resume
[ "$(grep -c '"iter": 7,' died/train.jsonl)" = 1 ] || fail "step 7 is logged once"

# Without a word on the warm-up it fits the data.
expect 0 train --data data/train.json --images data/train --base-channels 8 --fpn-channels 32 \
    --head-channels 32 --stacked-convs 1 --model r18 --scale 96x96 --batch 4 --epochs 1 --out warm
says 'warm-up 3 steps' err; says 'warmup = 3' warm/config.txt
says '^  the warm-up lasts as long as the training' err; says 'without --val, nothing is evaluated' err
grep -q 'after epoch' err && fail "one epoch has no other after it"
expect 0 $train --epochs 1 --warmup 3 --out warm --overwrite
says 'warning: the warm-up lasts as long as the training' err
expect 0 $train --epochs 1 --warmup 9 --out warm --overwrite
says 'warning: the warm-up lasts longer than the training' err
expect 0 train --out warm --resume; says 'the 1 epoch is done; --epochs N trains longer' err
"$gfl" $train --epochs 200 --out stopped --eval-every 0 >out 2>err &
pid=$!
while [ "$(cat stopped/train.jsonl 2>/dev/null | wc -l)" -lt 5 ]; do
    kill -0 $pid 2>/dev/null || break
    sleep 0.05
done
kill -INT $pid
wait $pid
[ $? = 130 ] || fail "SIGINT: exit code"
says 'resume' err
steps=$(grep -c loss_dfl stopped/train.jsonl)
"$gfl" $train --epochs 200 --out stopped --eval-every 0 --resume >out 2>err &
pid=$!
while [ "$(grep -c loss_dfl stopped/train.jsonl)" -lt $((steps + 4)) ]; do
    kill -0 $pid 2>/dev/null || break
    sleep 0.05
done
kill -TERM $pid
wait $pid
[ $? = 143 ] || fail "SIGTERM: exit code"
"$gfl" $train --epochs 200 --out straight --eval-every 0 >out 2>err &
pid=$!
while [ "$(cat straight/train.jsonl 2>/dev/null | wc -l)" -lt $((steps + 8)) ]; do
    kill -0 $pid 2>/dev/null || break
    sleep 0.05
done
kill -INT $pid
wait $pid
strip() { grep loss_dfl "$1" | sed 's/, "time".*//' | head -$((steps + 4)); }
strip stopped/train.jsonl >a
strip straight/train.jsonl >b
same a b

# A loss that is not finite.
expect 6 $train --epochs 2 --lr 1e30 --warmup 0 --out nan --eval-every 0
says '.png' err; [ -s nan/last.safetensors ] || fail "the last good state is kept"

# Evaluation: of a model, of its results, for people and for programs.
expect 0 eval --weights whole/last.safetensors --data data/val.json --images data/val \
    --results whole.bbox.json
says 'Average Recall' out; says 'circle' out
expect 0 eval --weights whole/last.safetensors --data data/val.json --images data/val --json
cp out model.json
for key in bbox_mAP bbox_mAP_50 bbox_mAP_75 bbox_mAP_s bbox_mAP_m bbox_mAP_l AR_1 AR_10 AR_100 AR_s \
    AR_m AR_l per_class; do says "\"$key\"" out; done
expect 0 eval --detections whole.bbox.json --data data/val.json --json
same out model.json
"$gfl" eval --detections - --data data/val.json --json <whole.bbox.json >out 2>err || fail "from a pipe"
same out model.json
expect 0 eval --weights whole/last.safetensors --data data/val.json --images data/val --results -
same out whole.bbox.json; says 'Average Recall' err; [ ! -e - ] || fail "there is a file named -"
expect 2 eval --weights whole/last.safetensors --data data/val.json --results - --json
says 'both want standard output' err
sed 's/"square"/"sqare"/' data/val.json >misspelt.json
expect 7 eval --weights whole/last.safetensors --data misspelt.json --images data/val
says 'sqare' err
head -c 3000 whole/last.safetensors >cut.safetensors
expect 1 eval --weights cut.safetensors --data data/val.json --images data/val
says 'cut.safetensors' err

# A pipe stays one, a link too; drawings do not replace pictures.  Values out of range are wrong use.
ln -s linked.json link.json && echo old >linked.json
expect 0 detect --weights whole/last.safetensors --results link.json data/val/0001.png
[ -L link.json ] || fail "a link was replaced"; says '^\[' linked.json
mkfifo pipe && cat pipe >piped.json &
while [ ! -p pipe ]; do sleep 0.05; done
expect 0 detect --weights whole/last.safetensors --results pipe data/val/0001.png
wait $!
[ -p pipe ] || fail "a pipe was replaced"; same piped.json linked.json
cp -r data/val originals
expect 1 detect --weights whole/last.safetensors --out originals originals; says 'replace' err
same originals/0001.png data/val/0001.png
expect 2 detect --weights whole/last.safetensors --score 2 data/val/0001.png
expect 3 eval --detections data/val.json --data data/val.json
grep -q '"map": \[\]' whole/train.jsonl || fail "a list in train.jsonl"

# Detection draws, lists, and goes on after a file that is no picture.
mkdir pictures && cp data/val/0001.png data/val/0002.png pictures
expect 0 detect --weights whole/last.safetensors --score 0.01 --out drawn --results found.json pictures
[ "$(ls drawn | wc -l)" = 2 ] || fail "two pictures are drawn"
says '^\[' found.json
printf 'not a picture' >pictures/broken.png
expect 1 detect --weights whole/last.safetensors --out drawn2 pictures
says 'broken.png' err
[ "$(ls drawn2 | wc -l)" = 2 ] || fail "the others are drawn all the same"
expect 0 detect --weights whole/last.safetensors --json data/val/0001.png
says '"detections"' out

# The numbers of a small model, on every instruction set; with another weight they are others.
expect 0 selftest --threads 1; says '^all numbers are right' out; says ', plain C, 1 thread' out
[ $(grep -c ' detection and training: right' out) -ge 2 ] || fail "selftest says what it has checked"
expect 0 selftest --kernel portable --threads 2; says 'plain C, 2 threads, fp32' out
expect 1 selftest --kernel portable --disturb 0.01
says 'WRONG: the mean score' out; says 'WRONG: the first loss' out; grep -q "all numbers are right" out && fail "a wrong number is right"
expect 2 selftest x; says '"x" is not one' err

# Some of the classes, by name and by label, and one box for an object whatever its classes.
one="detect --weights whole/last.safetensors --score 0.001 --max 1000 data/val/0001.png"
expect 0 $one; cp out all.txt
for class in circle square triangle star; do says "	$class	" out; done
expect 0 $one --classes circle,square; says '	circle	' out; says '	square	' out
grep '	circle	\|	square	' all.txt >some.txt; same out some.txt
expect 0 $one --classes 1,0; same out some.txt
printf 'circle\n' >wanted.txt
expect 0 $one --classes wanted.txt; grep '	circle	' all.txt >some.txt; same out some.txt
expect 0 $one --agnostic; [ $(wc -l <out) -lt $(wc -l <all.txt) ] || fail "--agnostic removes nothing"
expect 2 $one --classes sqare; says 'no class "sqare"; did you mean "square"' err; [ ! -s out ] || fail out
expect 2 $one --classes circle,aeroplane; says '^  2 triangle' err; says 'labels 0..3' err
expect 2 $one --classes 4; says 'no class "4"' err

# Information and checks.
expect 0 info --list; says 'r50' out
expect 0 info --devices; says '^CPU, kernels: .*portable$' out; says '^CPU, .* threads' out; says '^cuda:0' out
expect 0 info --devices --json; says '"device": "cuda:0"' out; says '"kernels": \[.*"portable"\]' out
expect 0 info whole/last.safetensors; says 'circle' out
sed 's/0001.png/none.png/' data/train.json >holes.json
expect 3 check --data holes.json --images data/train
grep -q 'none.png' out err || fail "check names the missing file"

# Weight files: a detector, its backbone, demands that the file does not meet.
expect 0 convert whole/last.safetensors copy.safetensors
says 'ResNet-18' out; says 'dialect *mmdet' out; says 'circle' out; says '131 loaded, 0 left over' out
same copy.safetensors whole/last.safetensors
expect 0 convert --json whole/last.safetensors copy.safetensors
for key in from to kind depth deform_stages dialect style channel_order origins classes loaded \
    left_over tensors; do says "\"$key\":" out; done
says '"fate": "loaded", "shape": \[8, 3, 7, 7\]' out
expect 0 convert --classes a,b,c,d --mean 1,2,3 --std 4,5,6 --bgr --scale 64x48 \
    whole/last.safetensors copy.safetensors
says 'a (1), b (2), c (3), d (4)' out; says 'BGR, mean 1 2 3, std 4 5 6, fits 64x48' out
expect 0 convert --classes data/train.json copy.safetensors copy2.safetensors; says 'circle (1)' out
printf 'one\ntwo\nthree\nfour\n' >names.txt
expect 0 convert --classes names.txt copy.safetensors copy2.safetensors; says 'four (4)' out
printf '\357\273\277 one \r\ntwo\t\n\n three\nfour' >bom.txt
expect 0 convert --classes bom.txt copy.safetensors copy2.safetensors
says ': one (1), two (2), three (3), four (4)$' out
expect 2 convert --classes nome.txt copy.safetensors copy2.safetensors; says 'no such file' err
expect 2 convert --classes lists/names copy.safetensors copy2.safetensors; says 'no such file' err
mkfifo names.fifo 2>/dev/null && {
    expect 1 convert --classes names.fifo copy.safetensors copy2.safetensors
    says 'not a regular file' err
}
expect 7 convert --dialect gfocal whole/last.safetensors copy.safetensors; says 'mmdet' err
expect 7 convert --style caffe whole/last.safetensors copy.safetensors; says 'style' err
expect 7 convert --classes a,b whole/last.safetensors copy.safetensors; says '4 classes' err
expect 2 convert --classes a,a whole/last.safetensors copy.safetensors; says 'twice' err
expect 2 convert whole/last.safetensors; expect 2 convert --dialect yolo a b; says 'gfocal' err
expect 2 convert --mean 1,2 --std 1,2,3 a b; expect 2 convert --bgr a b
expect 1 convert names.txt copy.safetensors; says 'names.txt' err
expect 0 convert --backbone whole/last.safetensors backbone.safetensors; says 'ResNet-18' out
expect 7 convert backbone.safetensors copy.safetensors; says 'backbone' err
expect 0 $train --epochs 1 --eval-every 0 --out started --weights backbone.safetensors
says '100 tensors loaded, 0 re-initialised' err

# Fine-tuning: rows of the classifier go over by name; the run resumes as any other.
sed 's/"square"/"box"/; s/"circle"/"disc"/' data/train.json >renamed.json
tune='train --data renamed.json --images data/train --batch 4 --epochs 1'
expect 0 $tune --from whole/last.safetensors --map square=box --out tuned
says 'taken over: box (was square), triangle, star' err
says 'afresh: disc' err; says 'dropped: circle' err; says 'fit 96x96' err
says 'map = square=box' tuned/config.txt
expect 0 info tuned/last.safetensors; says 'disc (1), box (2)' out
expect 0 train --config tuned/config.txt --resume
expect 7 $tune --from whole/last.safetensors --map suare=box --out x; says 'suare' err
expect 2 $tune --from whole/last.safetensors --map square --out x; says 'OLD=NEW' err
expect 2 $tune --from whole/last.safetensors --model r18 --out x; says 'leave out' err
expect 2 $tune --map square=box --out x; says '--from' err
expect 7 $tune --from backbone.safetensors --out x; says 'backbone' err

# For other programs: what is written reads back as it was, and options have their format.
expect 0 export whole/last.safetensors mm.safetensors --to mmdet; says 'mm.safetensors' err
grep -aq 'integral.project' mm.safetensors || fail "mmdetection's constants are there"
expect 0 convert mm.safetensors copy.safetensors; same copy.safetensors whole/last.safetensors
expect 0 export whole/last.safetensors model.pth --to pth
expect 0 convert model.pth copy.safetensors; same copy.safetensors whole/last.safetensors
expect 0 convert model.pth back.safetensors; same back.safetensors whole/last.safetensors
expect 0 convert mm.safetensors back.safetensors; same back.safetensors whole/last.safetensors
expect 0 info model.pth; says 'circle' out
expect 0 eval --weights model.pth --data data/val.json --images data/val --json
same out model.json
expect 2 $tune --from model.pth --out tuned; says '--overwrite' err
expect 0 $tune --from model.pth --out tuned --overwrite; says '129 of 131 tensors taken over' err
expect 0 export whole/last.safetensors logits.onnx --to onnx
grep -aq 'bbox_pred.4' logits.onnx || fail "a graph without decoding gives logits"
expect 0 export whole/last.safetensors boxes.onnx --to onnx --decode --pixels --batch 2 --size 95x64
grep -aq 'boxes' boxes.onnx || fail "a graph with decoding gives boxes"
expect 2 export whole/last.safetensors --to pth; says 'a file to write' err
expect 2 export whole/last.safetensors x.out; says '--to' err
expect 2 export whole/last.safetensors x.out --to onx; says 'did you mean onnx' err
expect 2 export whole/last.safetensors x.out --to pth --decode; says '--decode' err
expect 2 export whole/last.safetensors x.out --to onnx --size big; says 'WIDTHxHEIGHT' err
expect 2 export whole/last.safetensors x.out --to onnx --size 95x64; says '--size 95x64: without --pixels both sides must be multiples of 32; leave --size out' err
expect 1 export missing.safetensors x.out --to pth; says 'missing.safetensors' err
expect 1 export whole/last.safetensors no/such/folder/x.pth --to pth; says 'no/such/folder' err
[ ! -e x.out ] || fail "nothing is left of an export that failed"

# The original's dialect: trained, resumed, exported under its own names and recognised by them.
expect 2 $train --dialect yolo --out x; says 'gfocal' err
expect 0 $train --dialect gfocal --epochs 1 --out original
expect 0 $train --dialect gfocal --epochs 1 --out original --resume
expect 7 $train --dialect mmdet --epochs 1 --out original --resume; says 'gfocal' err
expect 0 info original/last.safetensors; says 'dialect *gfocal' out
expect 0 eval --weights original/last.safetensors --data data/val.json --images data/val --json
cp out original.json
expect 0 export original/last.safetensors original.pth --to pth
expect 0 eval --weights original.pth --data data/val.json --images data/val --json
same out original.json
expect 1 export original/last.safetensors x.safetensors --to mmdet; says 'gfocal' err
expect 7 convert --dialect mmdet original.pth x.safetensors; says 'gfocal' err
expect 7 train --data data/train.json --images data/train --from original.pth --dialect mmdet --out x

# Checkpoints of PyTorch, where the fixtures are.
if [ -d "$fixtures" ]; then
    expect 0 convert "$fixtures/micro_full_zip.pth" micro.safetensors
    says 'base 8, FPN 32, head 32' out; says 'Platelets (3)' out
    expect 0 convert --json "$fixtures/nano50dcn_old_names.pth" dcn.safetensors
    says '"deform": 2, "deform_stages": \["C3", "C4", "C5"\]' out
    expect 0 convert --backbone "$fixtures/torchvision_r18_w8.pth" r18.safetensors
    says 'left over *fc.weight' out
    expect 0 $train --epochs 1 --eval-every 0 --out r18 --weights "$fixtures/torchvision_r18_w8.pth"
    says '100 tensors loaded, 0 re-initialised, 2 left over' err
    expect 7 convert "$fixtures/bad_missing.pth" x.safetensors; says 'fpn_convs.1.conv.weight' err
    expect 1 convert "$fixtures/bad_code_in_state.pth" x.safetensors; says 'posix.system' err
    [ ! -e gfl-fixture-code-was-executed ] || fail "a checkpoint was executed"
    [ ! -e x.safetensors ] || fail "nothing is written of a file that is refused"
fi

# What cannot be written is said, and what was there stays.
expect 1 $train --epochs 1 --out data/train.json/run
cp whole/last.safetensors before.safetensors
(
    ulimit -f 8
    "$gfl" $train --epochs 3 --out whole --overwrite --eval-every 0 --save-every 1 >out 2>err
    echo $? >code
)
[ "$(cat code)" = 1 ] || fail "a full disk: exit $(cat code)"
same before.safetensors whole/previous.safetensors

[ $failures = 0 ] && echo "all is well"
exit $failures
