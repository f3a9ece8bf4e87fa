#!/usr/bin/env bash
# Runs every fuzz target of the module, each for FUZZTIME (30s). What one finds stays in its package's testdata/fuzz.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort -u | while IFS=: read -r file func; do
    name=${func#func }
    echo "${file%/*} $name"
    go test -run '^$' -fuzz "^$name\$" -fuzztime "${FUZZTIME:-30s}" "${file%/*}" </dev/null
done
