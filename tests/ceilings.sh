#!/bin/sh
# ceilings.sh ROOT SCRATCH - what the tree has of each kind that tests/data/ceilings.txt limits, one
# a line: "KIND: FILE:LINE: what".
set -u
cd "$1" || exit 1
find src examples tests bench scripts -name '*.[ch]' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' |
    sort > "$2/files" || exit 1
# A definition begins in the first column and ends with a brace there, as clang-format has it.
xargs awk '
FNR == 1 { start = 0 }
length > 100 { print "lines over 100 columns: " FILENAME ":" FNR ": " length }
/^[A-Za-z_]/ { start = FNR; head = $0 }
/^}$/ && start {
    if (FNR - start >= 60) print "functions over 60 lines: " FILENAME ":" start ": " head
    start = 0
}' < "$2/files"
# The contract of a public function is the comment above it, or above the declarations that follow
# each other without an empty line.  It names the function, or, where they share a beginning, its
# end; what can fail says how, what makes an object says whose memory it is.
awk '
function missing(what) {
    print "public names without a contract: " FILENAME ":" FNR ": " name " has no " what
}
function label(name) { return "\n \\* ([A-Z][a-z]*, )*" name "[, ]" }
function judge() {
    name = declaration
    sub(/\(.*/, "", name)
    sub(/.*[ *]/, "", name)
    end = name
    sub(/.*_/, "_", end)
    if (index(comment, name) == 0 && comment !~ (end "[, ]")) missing("comment")
    else if (declaration ~ /gfl_status gfl_/ && comment !~ label("Errors")) missing("Errors")
    else if (declaration ~ /\*\*out\)/ && comment !~ label("Memory")) missing("Memory")
}
# A comment stands at the end of a line, or above it; one above several fields is for all of them up
# to an empty line or the next comment.
function look(what) {
    if (!above && $0 !~ /\/\*/) { name = what; missing("comment") }
    if ($0 ~ /\/\*/) above = 0
}
FNR == 1 || /^$/ { comment = ""; above = 0 }
/^ *\/\*/ { comment = ""; inside = 1 }
inside { comment = comment "\n" $0 }
inside && /\*\// { inside = 0; above = 1; next }
inside { next }
/^(GFL_API|GFL_INLINE|extern) .*\(/ { declaring = 1; declaration = "" }
declaring { declaration = declaration $0 }
declaring && /[;{]/ { declaring = 0; judge() }
/^typedef / { look($3) }
/^typedef (struct|enum) .*\{$/ { fields = 1; above = 0; next }
/^}/ { fields = 0 }
fields && /[;,]|=/ { look($0) }
/\/\*/ && !/\*\// { inside = 1 }
' src/api/*.h
