#!/bin/sh
# shown.sh ROOT - print the C that the README and the guide show, as one file.
set -eu
printf '#include "gfl.h"\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n'
for f in README.md docs/guide.md; do
    awk -v name="$f" '
    /^```/ { shown = $0 == "```c"; if (shown) printf "#line %d \"%s\"\n", NR + 1, name; next }
    shown { print }' "$1/$f"
done
