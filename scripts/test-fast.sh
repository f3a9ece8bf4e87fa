#!/usr/bin/env bash
# Tests the packages that need no libtorch, so no set-up either. Arguments go to `go test`.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

# Of each package with tests, what the test program is made of.
programs=$(go list -e -test -f '{{.ImportPath}} {{join .Deps " "}}' ./... | sed -n 's/^\([^ ]*\)\.test /\1 /p')
mapfile -t packages < <(grep -vE ' [^ ]*(/bindings/csrc|/sugarme/gotch)( |/|$)' <<<"$programs" | cut -d ' ' -f 1)
[[ ${#packages[@]} -gt 0 ]] || die "go list finds no package without libtorch"
# Vetting takes as long as the tests, and is what `make check` does.
go test -vet=off "$@" "${packages[@]}"
