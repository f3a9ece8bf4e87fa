#!/usr/bin/env bash
# The one gate: every check that must pass, in order of how fast it fails. `check.sh NAME...` runs only those.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

format() {
    local files
    files=$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l)
    [[ -z $files ]] || die "not formatted (gofmt -w them):"$'\n'"$files"
}

layers() { scripts/check-layers.sh; }

words() { scripts/check-words.sh; }

names() { scripts/check-names.sh; }

sizes() { scripts/check-sizes.sh; }

shell() {
    command -v shellcheck >/dev/null || die "shellcheck is missing: apt-get install shellcheck"
    git ls-files -co --exclude-standard 'scripts/*.sh' .ci/run | xargs shellcheck -x
}

setup-scripts() { python3 -B -m unittest discover --quiet --start-directory scripts/setup; }

vet() { scripts/env.sh go vet ./...; }

staticcheck() {
    local version=v0.8.2 bin
    bin=$GOPEFT_HOME/tools/staticcheck-$version-$(go env GOVERSION)
    [[ -x $bin/staticcheck ]] || GOBIN=$bin go install "honnef.co/go/tools/cmd/staticcheck@$version"
    scripts/env.sh "$bin/staticcheck" ./...
}

# The tests assert that no tensor outlives its scope; the race detector watches the Go side of the work.
race() { scripts/env.sh go test -race -p "${TEST_PROCESSES:-2}" -timeout 30m ./...; }

checks=("$@")
[[ $# -gt 0 ]] || checks=(format words layers names sizes shell setup-scripts vet staticcheck race)
for check in "${checks[@]}"; do
    [[ $(type -t "$check") == function ]] || die "no check called $check"
    echo "check: $check" >&2
    "$check"
done
