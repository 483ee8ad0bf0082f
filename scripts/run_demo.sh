#!/bin/sh
# run_demo.sh BUILD - called by `make demo`: from nothing to drawn detections, in demo/.
set -eu
build=$1
gfl=$build/gfl
rm -rf demo && mkdir -p demo
echo "1. Drawing 300 pictures to learn from and 60 to be tested with: demo/data"
"$build/make_shapes" demo/data 300 60
echo "2. Training a narrow GFL detector on them (a few minutes): demo/run"
"$gfl" train --data demo/data/train.json --images demo/data/train \
    --val demo/data/val.json --val-images demo/data/val \
    --model r18 --base-channels 16 --fpn-channels 64 --head-channels 64 --stacked-convs 2 \
    --scale 160x128 --batch 8 --epochs 24 --steps 17,22 --lr 0.02 --warmup 100 --clip 10 \
    --eval-every 4 --seed 1 --out demo/run >demo/training.txt
echo "3. Evaluating the best weights"
"$gfl" eval --weights demo/run/best_bbox_mAP.safetensors --data demo/data/val.json \
    --images demo/data/val --results demo/val.bbox.json
echo "4. Drawing what it finds: demo/drawn"
"$gfl" detect --weights demo/run/best_bbox_mAP.safetensors --out demo/drawn demo/data/val
cat <<EOF

Done.  Look at the pictures in demo/drawn.  What to try next:
  $gfl detect --weights demo/run/best_bbox_mAP.safetensors --json --distributions demo/data/val/0001.png
  $gfl info demo/run/best_bbox_mAP.safetensors
  $gfl check --data YOUR.json --images YOUR_PICTURES
  $gfl train --data YOUR.json --images YOUR_PICTURES --val VAL.json --val-images VAL_PICTURES \\
      --model r18 --weights BACKBONE.safetensors --out run
EOF
