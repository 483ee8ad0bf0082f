#!/bin/sh
# manual.sh GFL - print the manual page: examples/gfl.1.in, whose lines "@usage COMMAND", "@options
# COMMAND" and "@common COMMAND" are replaced with what "GFL COMMAND --help" says.
set -eu
awk -v gfl="$1" '
function roff(text) {
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    return text
}
function usage(line) {
    sub(/^usage: +| +/, "", line)
    line = roff(line)
    gsub(/[A-Z]+([.][a-z]+)?/, "\\fI&\\fR", line)
    sub(/^gfl [a-z]+/, "\\fB&\\fR", line)
    print (lines++ ? ".br\n" : "") line
}
# "  --name ARGUMENT   Text", or more of the text, indented.
function option(line,    words, head, n) {
    if (line ~ /^  --/) {
        n = match(line, / [A-Z][^ ]*( |$)/) && RSTART < 24 ? 2 : 1
        split(line, words)
        head = roff(words[1])
        print n == 2 ? ".TP\n.BI \"" head " \" " roff(words[2]) : ".TP\n.B " head
        for (sub(/^ +/, "", line); n; n--) sub(/^[^ ]+ */, "", line)
    }
    sub(/^ +/, "", line)
    if (line != "") print (line ~ /^[.\047]/ ? "\\&" : "") roff(line)
}
/^@/ {
    block = 0
    help = "\"" gfl "\" " $2 " --help"
    while ((help | getline line) > 0) {
        if (line == "") block++
        else if ($1 == "@usage" && block == 0) usage(line)
        else if ($1 == "@options" && block == 1 || $1 == "@common" && block == 2) option(line)
    }
    if (close(help) != 0 || block == 0) exit 1
    next
}
{ print }' "$(dirname "$0")/../examples/gfl.1.in"
