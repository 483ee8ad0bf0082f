#!/bin/sh
# gpu_cli.sh GFL SCRATCH MAKE_SHAPES - the command on a GPU, or on the emulator of one
gfl=$1 scratch=$2 make_shapes=$3
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$scratch" && mkdir -p "$scratch" && cd "$scratch" || exit 1
. "$here/expect.sh"

"$gfl" info --devices >out 2>err
if ! grep -q '^cuda:0' out || grep -q 'cannot be used' out; then
    cat out
    [ -n "$GFL_REQUIRE_GPU" ] && exit 1
    exit 77
fi
says '^CPU, ' out
expect 0 info --devices --json; says '"device": "cuda:0", "usable": true' out

"$make_shapes" data 12 2 || exit 1
expect 0 train --data data/train.json --images data/train --model r18 --base-channels 16 \
    --fpn-channels 32 --head-channels 32 --stacked-convs 1 --scale 96x96 --batch 4 --lr 0.01 \
    --warmup 4 --epochs 10 --steps 9 --seed 3 --out run
model=run/last.safetensors
eval="eval --weights $model --data data/val.json --images data/val --json"

# The same detections as the CPU's, in order of score.
scores() { grep -o '"score": *[0-9.e-]*' "$1" | sed 's/.*: *//' | sort -rg; }
expect 0 $eval --results cpu.bbox.json
expect 0 $eval --results gpu.bbox.json --device cuda --precision fp32
scores cpu.bbox.json >cpu.scores
scores gpu.bbox.json >gpu.scores
[ "$(wc -l <cpu.scores)" -gt 10 ] || fail "the CPU finds next to nothing"
paste cpu.scores gpu.scores | awk '{ d = $1 - $2; if (d < 0) d = -d; if (!(d < 1e-4)) exit 1 }' ||
    fail "other scores than the CPU's"
for precision in bf16 ${GFL_REQUIRE_GPU:+tf32 fp16}; do
    expect 0 $eval --device cuda:0 --precision $precision --results low.bbox.json
    [ -s low.bbox.json ] || fail "$precision finds nothing"
    [ $precision != bf16 ] || cp low.bbox.json bf16.bbox.json
done
# On a GPU that is what the command takes if nothing is said.
expect 0 $eval --device cuda --results default.bbox.json
cmp bf16.bbox.json default.bbox.json || fail "the default on a GPU is not bf16"
! cmp -s gpu.bbox.json default.bbox.json || fail "fp32 and bf16 find the same to the last digit"
expect 0 selftest --device cuda; says 'sm_[0-9]*, .*, bf16$' out
expect 0 detect --weights $model --device cuda --score 0.1 --results found.json data/val; says 'score' found.json
expect 0 info $model --device cuda --precision bf16 --plan --scale 96x96; says '64x64' out

# The numbers of small networks, in every precision.
for precision in fp32 bf16 ${GFL_REQUIRE_GPU:+tf32 fp16}; do
    expect 0 selftest --device cuda --precision $precision; says '^all numbers are right' out
done
expect 1 selftest --device cuda --precision fp32 --disturb 0.01; says 'WRONG: the mean score' out

# What cannot be is said.
expect 2 $eval --device gpu; says 'gpu' err
expect 2 $eval --precision bf16; says 'fp32' err
expect 2 $eval --device cuda --precision int4; says 'int4' err
expect 2 $eval --device cuda --precision bf16 --kernel best; says 'best' err
expect 5 $eval --device cuda:63; says 'there is no GPU 63' err
[ $failures = 0 ]
