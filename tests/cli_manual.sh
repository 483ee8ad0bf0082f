#!/bin/sh
# cli_manual.sh GFL SCRATCH - what the help texts say: whole, in eighty columns, and the same in the
# manual page and in what is told of options elsewhere.
gfl=$1 scratch=$2
here=$(cd "$(dirname "$0")" && pwd) && root=$here/..
rm -rf "$scratch" && mkdir -p "$scratch" && cd "$scratch" || exit 1
. "$here/expect.sh"
: >err

# The committed page is the one that the help texts make.
sh "$root/scripts/manual.sh" "$gfl" >gfl.1 || fail "scripts/manual.sh"
cmp gfl.1 "$root/examples/gfl.1" || fail "run make man: examples/gfl.1 is not what the options say"

# It is a good page for whatever formatter is here.
if command -v mandoc >/dev/null 2>&1; then
    mandoc -Tlint -Wwarning gfl.1 >lint || fail "mandoc: $(cat lint)"
fi
if command -v groff >/dev/null 2>&1; then
    groff -man -ww -z gfl.1 2>lint
    [ ! -s lint ] || fail "groff: $(cat lint)"
    if groff -man -Tutf8 gfl.1 >page 2>lint; then # there is a formatter without its macros
        grep -q 'skip-unreadable' page || fail "the formatted page lacks options"
    fi
fi

# Every line fits; every text is of sentences.
commands=$(sed -n 's/^@options //p' "$root/examples/gfl.1.in")
for c in $("$gfl" help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
    echo "$commands" | grep -qx "$c" || fail "gfl.1.in has no @options $c"
    expect 0 "$c" --help
    awk 'length > 80 { exit 1 }' out || fail "a line of gfl $c --help is longer than 80 columns"
    sed '1,/^$/d' out | awk '/^  --|^$/ { if (text != "" && text !~ /[.]$/) exit 1; text = "" }
        { text = text $0 }' || fail "a text of gfl $c --help does not end as a sentence"
    sed -n 's/^  --\([a-z-]*\).*/\1/p' out >>options
done

# What is written about options names options that are there; --x and --key stand for any.
sed 's/\\-/-/g' "$root/README.md" "$root"/docs/*.md "$root/examples/gfl.1.in" |
    grep -o -- '--[a-z][a-z-]*' | sed 's/^--//; s/^no-//' | sort -u >named
printf '%s\n' version x key >>options
left=$(grep -vxFf options named)
[ -z "$left" ] || fail "there is no option $left"
[ "$failures" = 0 ]
