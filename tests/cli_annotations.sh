#!/bin/sh
# cli_annotations.sh GFL SCRATCH MAKE_SHAPES - what the command says of annotations and results as
# exporters and people write them.
gfl=$1 scratch=$2 make_shapes=$3
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$scratch" && mkdir -p "$scratch" && cd "$scratch" || exit 1
. "$here/expect.sh"
for v in $(env | sed -n 's/^\(GFL_[A-Z_]*\)=.*/\1/p'); do unset "$v"; done

"$make_shapes" data 8 4 || exit 1
narrow='--model r18 --base-channels 8 --fpn-channels 32 --head-channels 32 --stacked-convs 1
    --scale 96x96 --batch 4 --lr 0.01 --warmup 4 --seed 3 --epochs 1 --threads 1'
train="train --images data/train $narrow"

# check names each mistake and goes on to the pictures; others stop at the first.
sed 's/"bbox": \[[^]]*\]/"bbox": null/' data/val.json >null.json
expect 3 check --data null.json --images data/val
says 'null.json:[0-9]*:[0-9]*: annotation 1 of image 1: its bbox is null: \[x, y, width, height\]' out
[ "$(grep -c 'its bbox is null' out)" -gt 1 ] || fail 'check stops at the first mistake'
says '^[0-9]* findings' out
expect 3 $train --data null.json --images data/val --out x; says 'its bbox is null' err
expect 3 eval --weights w --data null.json; says 'its bbox is null' err
awk 'BEGIN { printf "{\"images\":["; for (i = 0; i < 90; i++) printf "%s{\"id\":%d.5}", i ? "," : "", i
             print "],\"categories\":[{\"id\":1}]}" }' >many.json
expect 3 check --data many.json
[ "$(grep -c 'whole number of 64 bits' out)" = 50 ] || fail 'not 50 mistakes are listed'
says 'these are the first 50 mistakes' out
gzip -c data/val.json >packed.json
expect 3 check --data packed.json; says 'packed.json:1:1: this is not JSON: the file is compressed by gzip' out
printf '{"images": [{"id": 1, "file_name": None}]}' >python.json
expect 3 check --data python.json; says 'not None, as Python prints it' out

# Polygons are boxes on request.
sed 's/"bbox": \[[^]]*\]/"segmentation": [[2,3,20,3,20,30]]/' data/val.json >polygons.json
expect 3 check --data polygons.json --images data/val; says '(--boxes-from-polygons) makes boxes' out
expect 0 check --data polygons.json --images data/val --boxes-from-polygons; says 'boxes are those of polygons' out
expect 3 $train --data polygons.json --images data/val --out x; says 'makes boxes' err
expect 0 $train --data polygons.json --images data/val --boxes-from-polygons --out polygons
says 'boxes are those of polygons' err
expect 3 eval --data polygons.json --weights polygons/last.safetensors --images data/val; says 'makes boxes' err
expect 0 eval --data polygons.json --weights polygons/last.safetensors --images data/val --boxes-from-polygons

# A name twice cannot be trained; a root category is not a class; empty ones are, unless dropped.
categories() { sed "s/\"categories\": *\[/&$2,/" data/$1.json; }
categories train "{\"id\":91,\"name\":\"circle\"}" >twice.json
expect 3 check --data twice.json --images data/train; says "are both named \"circle\"" out
expect 3 $train --data twice.json --out x; says "are both named \"circle\"" err
expect 0 $train --data twice.json --drop-empty-classes --out dropped; says "classes are left out.*\"circle\"" err
root='{"id":0,"name":"shapes"},{"id":92,"name":"never","supercategory":"shapes"}'
categories train "$root" >root.json
categories val "$root" >root_val.json
expect 0 $train --data root.json --val root_val.json --val-images data/val --out run
says 'only the supercategory of others: "shapes"' err
says 'root.json: 1 classes that no annotation has' err
expect 0 $train --data root.json --val root_val.json --val-images data/val --drop-empty-classes --out run2
says 'no annotation has them: "shapes", "never"' err
categories val '{"id":93,"name":"other"}' | sed 's/"category_id": *[0-9]*/"category_id": 93/' >other.json
expect 7 eval --weights run2/last.safetensors --data other.json --images data/val --scale 96x96
says 'a class "other" that the model does not know (1 such in all)' err
echo '{"images":[],"categories":[{"id":1,"name":"nothing"}]}' >nothing.json
expect 7 eval --weights run2/last.safetensors --data nothing.json; says 'no class in common' err

# Results name a picture by its id, its file or the end of its path; what fits nothing is refused.
perfect() { # IMAGE_ID, where \\1 is the number: the annotations as results
    printf '['
    sed -n "s/.*\"image_id\": \([0-9]*\), \(\"category_id\": [0-9]*\), .*\(\"bbox\": \[[^]]*\]\).*/{\"image_id\": $1, \2, \3, \"score\": 0.9}/p" \
        data/val.json | paste -sd, -
    echo ']'
}
for id in '\1' '"000\1.png"' '"far\/away\/000\1.png"' '"C:\\\\data\\\\000\1.png"'; do
    perfect "$id" >names.json
    expect 0 eval --detections names.json --data data/val.json; says 'maxDets=100 ] = 1.000' out
    [ "$id" = '\1' ] || says 'name their picture by its file' err
done
weights='--weights run/last.safetensors --scale 96x96 --score 0.001'
expect 0 detect $weights --results found.json data/val
expect 0 eval --detections found.json --data data/val.json; says 'name their picture by its file' err
sed 's/\.png"/.bmp"/' found.json >foreign.json
expect 3 eval --detections foreign.json --data data/val.json
says 'not one of the [0-9]* results fits the data set data/val.json; image_id "[0-9]*.bmp" is not among' err
sed 's/"category_id": *[0-9]*/"category_id": 77/' found.json >foreign.json
expect 3 eval --detections foreign.json --data data/val.json; says 'category_id 77 is not among its ids' err

[ $failures = 0 ] || exit 1
