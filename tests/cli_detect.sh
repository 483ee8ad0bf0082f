#!/bin/sh
# cli_detect.sh GFL SCRATCH MAKE_SHAPES - gfl detect and the pictures, names and files people have.
gfl=$1 scratch=$2 make_shapes=$3
here=$(cd "$(dirname "$0")" && pwd)
rm -rf "$scratch" && mkdir -p "$scratch" && cd "$scratch" || exit 1
. "$here/expect.sh"
for v in $(env | sed -n 's/^\(GFL_[A-Z_]*\)=.*/\1/p'); do unset "$v"; done
LC_ALL=C
export LC_ALL

same() { cmp -s "$1" "$2" || fail "$1 and $2 differ"; }
escape=$(printf '\033')
reversed=$(printf '\342\200\256')
# Nothing that a terminal would obey, in a text for people.
plain() {
    grep -q "$escape" "$1" && fail "an escape in $1 of: $2"
    grep -q "$reversed" "$1" && fail "a mark that turns the direction in $1 of: $2"
}

"$make_shapes" data 4 2 || exit 1
sed 's/"circle"/"\\u001b]0;owned\\u0007\\nfake\\t1.0\\u202e"/' data/train.json >foreign.json
cp foreign.json data/foreign.json
narrow='--model r18 --base-channels 8 --fpn-channels 32 --head-channels 32 --stacked-convs 1
    --scale 96x96 --batch 4 --lr 0.01 --warmup 4 --seed 3 --epochs 1'
expect 0 train --data data/foreign.json --images data/train --val data/foreign.json \
    --val-images data/train $narrow --out run
w=run/last.safetensors
[ -s $w ] || exit 1
plain err train; plain out train
says 'x1b\]0;owned.x07.nfake.t1.0.u202e' err
expect 0 info $w; plain out info; says 'nfake' out
expect 0 eval --weights $w --data data/foreign.json --images data/train; plain out eval
expect 0 check --data data/foreign.json --images data/train; plain out check
expect 0 train --from $w --data data/train.json --images data/train --batch 4 --lr 0.01 --epochs 1 --out run2
plain err 'train --from'
sed 's/"id": 1,/"id": 1, "x": 0,/' data/foreign.json | sed 's/"square"/"sq\\u001bare"/' >other.json
expect 7 eval --weights $w --data other.json --images data/train; plain err eval

# A picture is known by its content; what is left out is counted and named.
mkdir folder folder/sub empty
for f in a.jpg b.jfif c.jpe sub/e.JPG noending; do cp "$here/data/images/rgb.jpg" "folder/$f"; done
cp data/train/0001.png folder/zoo.dat
printf 'P6\n2 2\n255\nabcdefghijkl' >folder/d.pnm
printf 'RIFF\052\0\0\0WEBPVP8 ' >folder/e.webp
printf 'II*\0\010\0\0\0' >folder/f.tif
echo '{}' >folder/labels.json
echo hidden >folder/.DS_Store
mkfifo folder/pipe
ln -s ../folder folder/self; ln -s .. folder/up; ln -s sub folder/again; ln -s c.jpe folder/link.jpg
score='--score 0.0001 --max 3'
expect 0 detect --weights $w $score folder
cut -f1 out | uniq >list
printf 'folder/%s\n' a.jpg b.jfif c.jpe d.pnm link.jpg noending sub/e.JPG zoo.dat >wanted
same list wanted
plain out detect
[ "$(awk -F'\t' 'NF != 7' out | wc -l)" = 0 ] || fail "a class name makes fields or lines"
says 'folder: 2 left out, of a kind that this program does not read: e.webp (WebP), f.tif (TIFF)' err
says '1 left out, not pictures: labels.json' err
says '1 left out, not regular files: pipe' err
says '1 left out, hidden: .DS_Store' err
says '2 left out, folders that were looked at already.*: again, self' err
says '1 left out, links to a folder that holds this one: up' err
cp out first
expect 0 detect --weights $w $score folder; same out first
expect 1 detect --weights $w empty; says 'no picture' err
rm folder/self folder/up folder/pipe
printf 'RIFF\052\0\0\0WEBPVP8 ' >folder/really.jpg
expect 1 detect --weights $w folder; says 'really.jpg: it is not a JPEG.* but WebP' err
rm folder/really.jpg

# Names are bytes: JSON stays UTF-8, and each name can be found again.
mkdir names
cp data/train/0001.png "names/$(printf 'a\377%%.png')"
cp data/train/0002.png "names/$(printf 'b\033[2J\nc\342\200\256.png')"
expect 0 detect --weights $w $score names; plain out 'detect names'
[ "$(wc -l <out)" = 6 ] || fail "a name makes lines"
expect 0 detect --weights $w $score --json --results names.json names
iconv -f UTF-8 -t UTF-8 out >/dev/null 2>&1 || fail "--json is not UTF-8"
iconv -f UTF-8 -t UTF-8 names.json >/dev/null 2>&1 || fail "--results is not UTF-8"
says '"file": "names/a%FF%25.png", "percent_encoded": true' out
says '"image_id": "a%FF%25.png", "percent_encoded": true' names.json
says '"b.u001b\[2J.u000ac' names.json
says '"complete": true' out
mkdir clash && cp "names/$(printf 'a\377%%.png')" clash && cp data/train/0001.png 'clash/a%FF%25.png'
expect 0 detect --weights $w $score --json clash
[ "$(grep -c '"file": "clash/a%FF%25.png"' out)" = 2 ] || fail "two pictures"
[ "$(grep -c percent_encoded out)" = 1 ] || fail "one of them is encoded"

# No two pictures share a drawing, and no drawing replaces a picture.
mkdir -p p/one p/two
cp folder/d.pnm p/a.bmp; cp folder/d.pnm p/a.ppm; cp data/train/0001.png p/a.png
cp data/train/0001.png p/one/x.png; cp data/train/0002.png p/two/x.png
cp data/train/0003.png p/x-2.png
expect 0 detect --weights $w $score --out drawn p/a.bmp p/a.ppm p/a.png p/one p/two/x.png p/x-2.png
ls drawn >list
printf '%s\n' a.bmp.png a.png a.ppm.png x-2.png x-3.png x.png >wanted
same list wanted
says 'p/two/x.png is drawn as x-3.png' err
mkdir again
for f in drawn/*; do cp "$f" again; done
expect 0 detect --weights $w $score --out drawn p/a.bmp p/a.ppm p/a.png p/one p/two/x.png p/x-2.png
for f in drawn/*; do same "$f" "again/${f#drawn/}"; done
cp p/a.png p/a.bmp.png && cp -r p kept
expect 1 detect --weights $w --out p p/a.bmp p/a.bmp.png; says 'p/a.bmp.png: .* replace a picture' err
diff -r p kept >/dev/null || fail "a picture was replaced"
expect 0 detect --weights $w --out p/drawn p/a.png p/one
expect 0 detect --weights $w --out p/drawn p; says '1 left out, the folder of the drawings' err
expect 1 detect --weights $w --out $w p/a.png; says 'last.safetensors' err

# A picture may come through a pipe.
cat p/a.png | "$gfl" detect --weights $w $score - >piped 2>err || fail "a picture from a pipe"
expect 0 detect --weights $w $score p/a.png
cut -f2- piped >a; cut -f2- out >b; same a b
[ "$(cut -f1 piped | uniq)" = - ] || fail "a picture from a pipe is called $(cut -f1 piped | uniq)"
"$gfl" detect --weights $w $score --json - <p/a.png >out 2>err || fail "a picture from a pipe"
says '{"file": "-", "width"' out

# Results: early errors, stdout, equal names.
expect 1 detect --weights missing --results nowhere/r.json p/a.png; says 'nowhere/r.json' err
expect 1 detect --weights missing --results r.json p/a.png; [ -e r.json ] && fail "r.json of nothing"
expect 0 detect --weights $w $score --results r.json p/one
expect 0 detect --weights $w $score --results - p/one; same out r.json
expect 2 detect --weights $w --json --results - p/one
expect 2 detect --weights $w --results r.json p/one p/two; says 'same name' err
expect 2 detect --weights $w --results p/a.png p; says 'p/a.png would replace' err
expect 2 detect --weights $w --results $w p/one
cp data/train.json kept.json
expect 2 eval --weights $w --data data/train.json --images data/train --results data/train.json
expect 2 check --data data/train.json --images data/train --out data/train.json
says 'data/train.json would replace data/train.json' err; same data/train.json kept.json
[ "$(ls | grep -c tmp)" = 0 ] || fail "temporary files stay"

# In the middle of the run something happens: --json stays JSON and tells it.
mkdir many && cp p/one/x.png many/1.png && echo none >many/2.png && cp p/one/x.png many/3.png
expect 1 detect --weights $w --json many
says '"file": "many/2.png", "error": "many/2.png: it is not a JPEG' out
says '"file": "many/3.png", "width"' out; says '"complete": true' out

# An interrupted run leaves complete results as they were.
i=0
rm many/2.png
while [ $i -lt 2000 ]; do ln data/train/0001.png many/$((i += 1))x.png; done
cp r.json before.json
"$gfl" detect --weights $w $score --json --results r.json --threads 1 many >streamed 2>err &
pid=$!
until [ "$(grep -c '"file"' streamed 2>/dev/null)" -ge 2 ] 2>/dev/null; do
    kill -0 $pid 2>/dev/null || break
    sleep 0.01
done
kill -INT $pid
wait $pid
[ $? = 130 ] || fail "SIGINT: exit code"
same r.json before.json
says 'r.json.partial; r.json is as it was' err
says '"complete": false' streamed; tail -c 3 streamed | grep -q '}' || fail "--json is not closed"
says '^\]\|\]$' r.json.partial; says '"image_id": "1' r.json.partial
[ "$(ls | grep -c tmp)" = 0 ] || fail "temporary files stay"

# Standard output that takes nothing is a failure, whoever writes.
if [ -c /dev/full ]; then
    for c in --version --help 'info --list' "info $w" "info $w --json" 'detect --help' \
        "detect --weights $w $score p/one" "detect --weights $w --json many" \
        "detect --weights $w --results - p/one" "eval --weights $w --data data/foreign.json
        --images data/train" 'check --data data/train.json --images data/train'; do
        "$gfl" $c >/dev/full 2>err
        [ $? = 1 ] || fail "a full device: $c"
        says 'standard output\|- cannot be written' err
    done
fi

# Too little memory for a picture is no finding about the picture.
printf 'P6\n12000 12000\n255\n' >huge.ppm && truncate -s 432000017 huge.ppm
if (ulimit -v 300000 && "$gfl" --version) >/dev/null 2>&1; then
    (ulimit -v 300000 && "$gfl" detect --weights $w --threads 1 huge.ppm p/a.png) >out 2>err
    [ $? = 4 ] || fail "no memory for a picture: exit code"
    says 'huge.ppm' err; says 'memory' err
fi
rm -f huge.ppm

[ $failures = 0 ] && echo "all is well"
exit $failures
