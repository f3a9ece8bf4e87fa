#!/usr/bin/env bash
# tools.sh build|fetch checks that the tools are there and new enough to build, or to fetch packages; says in one
# line what to install.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# older A B: is version A before version B?
older() { [[ $1 != "$2" && $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

[[ $(uname -s) == Linux ]] || die "$(uname -s) is not supported: libtorch and gotch are set up for Linux"

case ${1:-build} in
build)
    need_go=$(sed -n 's/^go \([0-9.]*\).*/\1/p' "$root/go.mod")
    command -v go >/dev/null || die "go is missing: install Go $need_go or newer (https://go.dev/dl) and put it on PATH"
    # In the module's folder an older go of 1.21 or later fetches the toolchain that go.mod asks for, or fails.
    settings=$(cd "$root" && go env GOVERSION CXX CC 2>/dev/null) || die "this go ($(command -v go)) cannot serve for Go $need_go: install Go $need_go or newer (https://go.dev/dl)"
    { read -r have_go && read -ra cxx && read -ra cc; } <<<"$settings" # either may be several words: ccache g++
    have_go=${have_go#go}
    ! older "${have_go%%[!0-9.]*}" "$need_go" || die "Go $have_go is too old: install Go $need_go or newer (https://go.dev/dl)"
    command -v "${cc[0]}" >/dev/null || die "the C compiler ${cc[0]} is missing: apt-get install gcc"
    command -v "${cxx[0]}" >/dev/null || die "the C++ compiler ${cxx[0]} is missing: apt-get install g++"
    version=$("${cxx[@]}" -dumpversion 2>/dev/null) || die "the C++ compiler ${cxx[*]} does not run"
    ! older "$version" 9 || die "${cxx[*]} $version is too old for libtorch's headers: version 9 or newer is needed"
    ;;
fetch)
    command -v python3 >/dev/null || die "python3 is missing (its pip fetches the packages): apt-get install python3 python3-pip"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' || die "$(python3 --version 2>&1) is too old: version 3.9 or newer is needed"
    python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("pip") is None)' ||
        die "pip is missing for $(command -v python3): apt-get install python3-pip"
    ;;
*) die "usage: tools.sh build|fetch" ;;
esac
