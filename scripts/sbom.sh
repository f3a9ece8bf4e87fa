#!/usr/bin/env bash
# sbom.sh FILE writes what the program is made of, as CycloneDX reads it: the Go modules that are linked, Go's own library,
# and libtorch, each with its version, hash and licence. sbom.sh --licences prints their licences, as LICENSES.csv has them.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

[[ $# == 1 ]] || die "usage: sbom.sh FILE, or sbom.sh --licences"
version=v1.10.0
bin=$GOPEFT_HOME/tools/cyclonedx-gomod-$version-$(go env GOVERSION)
[[ -x $bin/cyclonedx-gomod ]] || GOBIN=$bin GOFLAGS='' go install "github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$version"

# The tool reads the version from git and knows plain checkouts only, no worktrees. What is not committed is laid over it.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git clone --quiet --depth 1 "file://$root" "$work/gopeft" 2>/dev/null || die "an SBOM names the commit it is of: $root is no git checkout"
git ls-files -co --exclude-standard -z -- '*.go' go.mod go.sum bindings | while IFS= read -r -d '' file; do
    [[ ! -e $file ]] || printf '%s\0' "$file"
done | tar --null -T - -cf - | tar -xf - -C "$work/gopeft"
(cd "$work/gopeft" && "$root/scripts/env.sh" "$bin/cyclonedx-gomod" app -json -std -licenses -assert-licenses -noserial \
    -main cmd/gopeft -output "$work/sbom.json" . 2>"$work/log") || die "cyclonedx-gomod: $(tail -n 1 "$work/log")"
python3 -B scripts/sbom.py "$work/sbom.json" "$libtorch_version" "$setup_dir/wheels.lock" "$1"
