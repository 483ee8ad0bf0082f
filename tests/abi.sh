#!/bin/sh
# abi.sh ROOT SCRATCH - the public interface as this machine's compiler lays it out, on stdout:
# GFL_ABI, the size of each struct, offset and size of each of its fields, the value of each
# enumerator and limit, each prototype.  The names come from the header, so none can be forgotten.
set -eu
root=$1 scratch=$2
mkdir -p "$scratch"
# Without comments and directives: one declaration a line, enumerators in one line of their own.
cat "$root"/src/api/*.h | cc -fpreprocessed -E -P - 2> "$scratch/warnings" |
    grep -v '^ *#' | tr -s '\n\t ' '   ' | sed 's/^ *//; s/\([;{}]\) */\1\n/g' > "$scratch/declarations"
{
    printf '#include "%s/gfl.h"\n#include <stdio.h>\n#define W(x) (long)sizeof(x)\n' "$root"
    echo 'int main(void) {'
    printf '%s\n' 'printf("GFL_ABI %d of %d.%d\n", GFL_ABI, GFL_VERSION_MAJOR, GFL_VERSION_MINOR);'
    sed -n 's/^#define \(GFL_MAX_[A-Z]*\|GFL_LEVELS\) .*/printf("limit \1 %d\\n", \1);/p' \
        "$root/src/api/config.h"
    awk '
    # The name that one declarator declares.
    function declared(text) {
        if (match(text, /\(\*[a-z_0-9]+\)/)) return substr(text, RSTART + 2, RLENGTH - 3)
        sub(/\[.*/, "", text)
        match(text, /[A-Za-z_0-9]+ *;?$/)
        return substr(text, RSTART)
    }
    function field(name) {
        gsub(/[ ;]/, "", name)
        printf "printf(\"    %s at %%ld of %%ld\\n\", (long)offsetof(%s, %s), W(((%s *)0)->%s));\n",
               name, type, name, type, name
    }
    function text(kind) {
        gsub(/^ +| *[;{]$/, "")
        printf "puts(\"%s %s\");\n", kind, $0
    }
    /^typedef struct [a-z_0-9]+ \{$/ {
        type = $3
        printf "printf(\"struct %s %%ld\\n\", W(%s));\n", type, type
        next
    }
    /enum .*\{$/ { listed = 1; next }
    listed {
        n = split($0, items, ",")
        for (i = 1; i <= n; i++) {
            gsub(/[ }]|=.*/, "", items[i])
            if (items[i] != "") printf "printf(\"value %s %%d\\n\", %s);\n", items[i], items[i]
        }
        listed = 0
        next
    }
    /^\}/ { type = ""; next }
    type != "" {
        n = /\(\*/ ? 1 : split($0, items, ",")
        if (n == 1) field(declared($0))
        else for (i = 1; i <= n; i++) field(declared(items[i]))
        next
    }
    /^(GFL_API|GFL_INLINE|extern) [a-z].*/ { text("call") }
    /^typedef .*\(\*/ { text("type") }
    ' "$scratch/declarations"
    echo 'return 0; }'
} > "$scratch/abi.c"
cc -std=c11 "$scratch/abi.c" -o "$scratch/abi"
"$scratch/abi"
