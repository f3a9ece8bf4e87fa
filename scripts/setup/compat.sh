#!/usr/bin/env bash
# compat.sh DIR puts into DIR what gotch needs to build against an unpatched libtorch: the headers that
# bridge the versions, a compiler for headers in C++20, and empty archives for the CUDA libraries that its cgo line asks for by name.
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
for header in "$compat_header" "$compat_213_header"; do
    cmp -s "$setup_dir/$header" "$dir/$header" || put "$dir/$header" <"$setup_dir/$header"
done
# A package's own -std=c++17 comes after CGO_CXXFLAGS, so that only the compiler itself can ask for more.
put "$dir/cxx20" <<'END'
#!/usr/bin/env bash
exec ${GOPEFT_CXX:-g++} "${@/-std=c++17/-std=c++20}"
END
chmod 755 "$dir/cxx20"
for name in cuda cudart cublas cudnn caffe2_nvrtc nvrtc-builtins nvrtc nvToolsExt c10_cuda torch_cuda; do
    [[ -s $dir/stubs/lib$name.a ]] || printf '!<arch>\n' | put "$dir/stubs/lib$name.a"
done
