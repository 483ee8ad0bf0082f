# expect.sh - read by tests of the command, which set $gfl to it, in the folder where they may write
failures=0

fail() {
    failures=$((failures + 1))
    echo "FAIL: $*"
    sed 's/^/    /' err | head -5
}

# expect CODE ARGUMENTS...: run, keep out and err, compare the exit code.
expect() {
    want=$1
    shift
    "$gfl" "$@" >out 2>err
    got=$?
    [ $got = "$want" ] || fail "exit $got, wanted $want: gfl $*"
}

says() { grep -q -- "$1" "$2" || fail "no \"$1\" in $2"; }
