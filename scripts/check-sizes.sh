#!/usr/bin/env bash
# Holds files and packages to a size at which they tell one story: no source file written by hand over 500 lines, and
# none of train's packages over 20 files, tests aside.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

most_lines=500
most_files=20
bad=0
complain() {
    echo "sizes: $*" >&2
    bad=1
}

is_source() {
    case $1 in
    testdata/* | */testdata/*) return 1 ;;
    *.go | *.c | *.cc | *.cu | *.h | *.py | *.sh) return 0 ;;
    *) [[ $(head -c 2 "$1" | tr -d '\0') == '#!' ]] ;;
    esac
}

# Go's own mark of generated code, in C++'s and Python's comments too.
is_generated() { grep -qE '^(//|#) Code generated .* DO NOT EDIT\.$' "$1"; }

declare -A files
while read -r file; do
    if [[ ! -f $file ]] || ! is_source "$file"; then
        continue
    fi
    lines=$(wc -l <"$file")
    [[ $lines -le $most_lines ]] || is_generated "$file" || complain "$file has $lines lines, more than $most_lines: it may be two"
    if [[ $file == train/*.go && $file != *_test.go ]]; then
        package=${file%/*}
        files[$package]=$((${files[$package]:-0} + 1))
    fi
done < <(git ls-files -co --exclude-standard)
for package in "${!files[@]}"; do
    [[ ${files[$package]} -le $most_files ]] || complain "package $package has ${files[$package]} files, more than $most_files: it may be two"
done
exit "$bad"
