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

# Pictures that cannot be read are found before the first step and before an evaluation.
sed 's/0002.png/absent.png/' data/val.json >absent.json
cp -r data/train damaged && head -c 300 data/train/0003.png >damaged/0003.png
train_damaged="train --data data/train.json --images damaged $narrow --val data/val.json --val-images data/val"
expect 3 $train_damaged --out late; says '0003.png: truncated PNG' err; says '1 of 8' err
[ ! -f late/last.safetensors ] || fail "it trained first"
expect 3 $train --val absent.json --val-images data/val --out late; says 'absent.png' err
[ ! -f late/last.safetensors ] || fail "it trained first"
expect 3 $eval --data absent.json; says 'absent.png' err; says '1 of 4 pictures' err
expect 0 $eval --data absent.json --skip-unreadable; says 'not used: .*absent.png' err
says 'Average Precision' out
expect 0 $train_damaged --skip-unreadable --out skips; says '8 used' err; says '0003.png' err
# One that goes bad between two epochs: the run goes on as it began.
cp -r data/train fading
fading="train --data data/train.json --images fading $narrow --skip-unreadable"
expect 0 $fading --out fades; head -c 300 data/train/0005.png >fading/0005.png
expect 0 train --resume --out fades --epochs 2; says '0005.png' err
expect 3 check --data absent.json --images data/val; says 'absent.png' out; says '^1 finding$' out

# What a name should have been, and names that lead elsewhere.
sed 's#0002.png#..\\\\val\\\\0002.png#' data/val.json >windows.json
expect 3 check --data windows.json --images data/val; says 'there is a file "../val/0002.png"' out
says 'leads out of the folder' out
sed 's#0002.png#../val/0002.png#' data/val.json >above.json
expect 3 check --data above.json --images data/val; says '^1 finding$' out
expect 0 $eval --data above.json

# Fine steps that 8 bits do not have.
mkdir deep && cp "$here/data/images/rgb16.png" "$here/data/images/rgb.png" deep || exit 1
printf '{"images": [{"id": 1, "file_name": "rgb16.png"}, {"id": 2, "file_name": "rgb.png"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}],
    "categories": [{"id": 1, "name": "a"}]}' >deep.json
expect 3 check --data deep.json --images deep; says 'rgb16.png: it has 16 bits per sample' out
grep -q 'rgb.png: 16' out && fail "8 bits are taken for 16"

# Lack of memory is not a finding.
if (ulimit -v 500000 && "$gfl" --version) >/dev/null 2>&1; then # not under AddressSanitizer
    printf 'P6 10000 10000 255 ' >huge.ppm # and nothing else: a file with a hole
    dd if=/dev/zero of=huge.ppm bs=1 count=1 seek=300000020 conv=notrunc 2>dd.txt
    printf '{"images": [{"id": 1, "file_name": "huge.ppm"}], "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": 1, "name": "a"}]}' >huge.json
    (ulimit -v 500000; exec "$gfl" check --data huge.json --threads 1) >out 2>err
    [ $? = 4 ] || fail "lack of memory is told as something else"
    says 'out of memory' err; [ -z "$(grep huge.ppm out)" ] || fail "a finding for lack of memory"
    rm huge.ppm
fi

[ $failures = 0 ] || exit 1
