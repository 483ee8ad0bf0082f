#!/bin/sh
# What weight files say of themselves, and what is said where they do not:
#     cli_weights.sh GFL SCRATCH MAKE_SHAPES
here=$(cd "$(dirname "$0")" && pwd)
gfl=$1
rm -rf "$2" && mkdir -p "$2" && cd "$2" || exit 1
. "$here/expect.sh"
"$3" data 2 1 >/dev/null || exit 1
same() { cmp -s "$1" "$2" || fail "$1 and $2 differ"; }
knows=$here/data/version_0.1.0/run/last.safetensors

# The same file with other keys in its metadata, so that nobody says what its input is.
LC_ALL=C sed 's/"mean"/"meaX"/; s/"std"/"stX"/; s/"scale"/"scalX"/; s/"classes"/"classeX"/; s/"class_ids"/"class_idX"/' \
    "$knows" >quiet.safetensors

# Every command that uses the weights says what it assumes.
says_all() {
    for what in 'what input it was trained on' 'at which scale' 'name its classes'; do
        says "quiet.* does not .*$what" err
    done
}
eval_on() { expect 0 eval --weights "$1" --data data/val.json --images data/val --json; }
eval_on quiet.safetensors; says_all
expect 0 detect --weights quiet.safetensors data/val/0001.png; says_all
expect 0 export quiet.safetensors quiet.onnx --to onnx; says_all
expect 0 train --data data/train.json --images data/train --from quiet.safetensors --batch 2 \
    --epochs 1 --eval-every 0 --out tuned
says_all
expect 0 info quiet.safetensors; says '(assumed: the file does not say), fits 1333x800 (assumed' out
expect 0 info quiet.safetensors --json
says '"input": "assumed", "scale": "assumed", "classes": "assumed"' out
expect 0 train --data data/train.json --images data/train --weights quiet.safetensors --model r18 \
    --base-channels 1 --batch 2 --epochs 1 --eval-every 0 --out begun
says 'quiet.* does not say what input' err

# To write an assumption down does not make it known; to be told does.
expect 0 convert quiet.safetensors quiet2.safetensors; says 'assumed' out
eval_on quiet2.safetensors; says 'quiet2.* does not say what input' err
expect 0 convert quiet2.safetensors told.safetensors --mean 123.675,116.28,103.53 \
    --std 58.395,57.12,57.375 --scale 96x64 --classes circle,square,triangle,star
grep -q assumed out && fail "what was given is not assumed"
for file in told.safetensors "$knows"; do
    eval_on "$file"
    grep -q 'does not' err && fail "$file says everything"
done
eval_on "$knows"; cp out known; eval_on told.safetensors; same out known

# The text of mmdetection's configuration is read, whichever container it is in.
for file in legacy zip; do
    expect 7 info "$here/data/fuzz_import/$file.pth"; says 'dialect' err
    expect 0 convert --dialect mmdet "$here/data/fuzz_import/$file.pth" tiny.safetensors
    says 'BGR, mean 1 2 3, std 4 5 6, fits 64x32$' out; says ': a (1)$' out
    grep -q assumed out && fail "the configuration says everything"
    expect 0 info tiny.safetensors --json; says '"input": "file", "scale": "file", "classes": "file"' out
done

# Files that are not what they look like.
cp "$knows" model-00001-of-00002.safetensors
expect 7 info model-00001-of-00002.safetensors; says 'part 1 of 2 of a sharded model: join' err
printf '{"weight_map": {}}' >model.safetensors.index.json
expect 1 info model.safetensors.index.json; says 'model.safetensors.index.json' err

[ $failures = 0 ] && echo "all is well"
exit $failures
