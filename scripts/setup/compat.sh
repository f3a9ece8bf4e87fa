#!/usr/bin/env bash
# compat.sh DIR puts into DIR what gotch needs to build against an unpatched libtorch: the header that
# bridges the versions, and empty archives for the CUDA libraries that its cgo line asks for by name.
# They live outside the checkout so that all checkouts share one entry in Go's build cache.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

dir=$1
mkdir -p "$dir/stubs"
put() { # put FILE: standard input becomes FILE, whole or not at all, untouched if it is the same
    local tmp
    tmp=$(mktemp "$1.XXXXXX")
    cat >"$tmp"
    if cmp -s "$tmp" "$1"; then
        rm "$tmp"
    else
        chmod 644 "$tmp"
        mv "$tmp" "$1"
    fi
}
cmp -s "$setup_dir/$compat_header" "$dir/$compat_header" || put "$dir/$compat_header" <"$setup_dir/$compat_header"
for name in cuda cudart cublas cudnn caffe2_nvrtc nvrtc-builtins nvrtc nvToolsExt c10_cuda torch_cuda; do
    [[ -s $dir/stubs/lib$name.a ]] || printf '!<arch>\n' | put "$dir/stubs/lib$name.a"
done
