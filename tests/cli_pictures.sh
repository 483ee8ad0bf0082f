#!/bin/sh
# cli_pictures.sh GFL SCRATCH MAKE_SHAPES - what the command says of pictures that do not fit or
# cannot be read.
gfl=$1 scratch=$2 make_shapes=$3
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$scratch" && mkdir -p "$scratch" && cd "$scratch" || exit 1
. "$here/expect.sh"
for v in $(env | sed -n 's/^\(GFL_[A-Z_]*\)=.*/\1/p'); do unset "$v"; done

"$make_shapes" data 8 4 || exit 1
narrow='--model r18 --base-channels 8 --fpn-channels 32 --head-channels 32 --stacked-convs 1
    --scale 96x96 --batch 4 --lr 0.01 --warmup 4 --seed 3 --epochs 1'
train="train --data data/train.json --images data/train $narrow"
eval="eval --weights run/last.safetensors --images data/val --scale 96x96"
expect 0 $train --val data/val.json --val-images data/val --out run

# Pictures of another size than annotated are an error of every command that reads them.
sed 's/"width": [0-9]*/"width": 40/' data/val.json >small.json
expect 3 $eval --data small.json; says '0001.png' err; says 'another size' err
expect 3 check --data small.json --images data/val; says 'another size' out
expect 3 $train --val small.json --val-images data/val --out bad; says 'another size' err
expect 0 $eval --data small.json --trust-boxes; says 'Average Precision' out

[ $failures = 0 ] || exit 1
