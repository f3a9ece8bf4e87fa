#!/usr/bin/env bash
# The cgo settings that build gopeft against libtorch.
#
#   eval "$(scripts/env.sh)"       sets them in a shell
#   scripts/env.sh go test ./...   runs one command under them
#
# LIBTORCH=/path uses a libtorch of one's own: an unpacked libtorch archive, or the torch folder of an
# installed Python torch, 2.11 to 2.15 or 2.1. Other versions need GOPEFT_FORCE_LIBTORCH=1.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# version_of DIR prints the libtorch version found in DIR's files, without its "+cu130" or "+cpu".
version_of() {
    local v='' part
    if [[ -f $1/version.py ]]; then
        v=$(sed -n "s/^__version__ *= *['\"]\([^'\"]*\).*/\1/p" "$1/version.py")
    elif [[ -f $1/build-version ]]; then
        v=$(head -n 1 "$1/build-version")
    fi
    if [[ -z $v ]]; then
        for part in MAJOR MINOR PATCH; do
            v+=.$(sed -n "s/^#define TORCH_VERSION_$part *\([0-9]*\).*/\1/p" \
                "$1"/include/torch/{headeronly,csrc/api/include/torch}/version.h 2>/dev/null | head -n 1)
        done
        v=${v#.}
        [[ $v == [0-9]* ]] || v=
    fi
    echo "${v%%+*}"
}

# cxx11_abi_of DIR prints 1 or 0: which std::string the library's functions take. It is read from the
# symbol of c10::Error's constructor, which ends in the mangled string type.
cxx11_abi_of() {
    if grep -qa '_ZN3c105ErrorC[12]ENS_14SourceLocationENSt7__cxx11' "$1/lib/libc10.so"; then
        echo 1
    elif grep -qa '_ZN3c105ErrorC[12]ENS_14SourceLocationESs' "$1/lib/libc10.so"; then
        echo 0
    fi
}

extra=
if [[ -n ${LIBTORCH:-} ]]; then
    [[ -d $LIBTORCH ]] || die "LIBTORCH=$LIBTORCH: no such folder"
    torch=$(cd "$LIBTORCH" && pwd)
    [[ $torch != *[[:space:],\'\"\\]* ]] || die "LIBTORCH=$torch: the path must not hold blanks, commas, quotes or backslashes"
    for file in lib/libtorch_cpu.so lib/libc10.so include/torch/csrc/api/include/torch/torch.h; do
        [[ -f $torch/$file ]] || die "LIBTORCH=$torch: no $file in it; give the folder that holds lib/ and include/"
    done
    version=$(version_of "$torch")
    abi=$(cxx11_abi_of "$torch")
    case $version in
    "$libtorch_version" | 2.1.* | 2.1[1-5].*) ;;
    *) [[ ${GOPEFT_FORCE_LIBTORCH:-} == 1 ]] ||
        die "LIBTORCH=$torch is libtorch ${version:-of unknown version}; it may be 2.11 to 2.15 or 2.1 (GOPEFT_FORCE_LIBTORCH=1 tries it anyway)" ;;
    esac
    [[ -n $abi ]] || die "LIBTORCH=$torch: cannot tell the C++ ABI of lib/libc10.so: is it a libtorch for this system?"
    [[ $abi == 1 ]] || extra=" -D_GLIBCXX_USE_CXX11_ABI=0"
else
    torch=$libtorch_dir/torch
    version=$libtorch_version
    [[ -f $libtorch_dir/.installed ]] || die "libtorch $libtorch_version is not in $GOPEFT_HOME yet: run 'make setup', or set LIBTORCH to your own"
fi
[[ -f $compat_dir/$compat_header ]] || die "$compat_dir/$compat_header is missing: run 'make setup'"

cxxflags="-I$torch/include -I$torch/include/torch/csrc/api/include$extra"
# libtorch 2.1 is what gotch was written for; later ones lack three of its functions, from 2.13 on more.
header=$compat_header cxx=
case $version in
2.1.*) header= ;;
2.13.*) header=$compat_213_header ;;
2.1[4-9].* | 2.[2-9][0-9].* | [3-9].*) header=$compat_213_header cxx=$compat_dir/cxx20 ;; # its headers ask for C++20
esac
[[ -z $header ]] || cxxflags="-include $compat_dir/$header $cxxflags"
ldflags="-L$compat_dir/stubs -L$torch/lib -Wl,-rpath,$torch/lib -Wl,--allow-shlib-undefined"

if [[ $# -gt 0 ]]; then
    export CGO_ENABLED=1 CGO_CXXFLAGS=$cxxflags CGO_LDFLAGS=$ldflags
    [[ -z $cxx || ${CXX:-} == "$cxx" ]] || export GOPEFT_CXX=${CXX:-g++} CXX=$cxx
    exec "$@"
fi
printf 'export CGO_ENABLED=1\n'
printf 'export CGO_CXXFLAGS="%s"\n' "$cxxflags"
printf 'export CGO_LDFLAGS="%s"\n' "$ldflags"
[[ -z $cxx || ${CXX:-} == "$cxx" ]] || printf 'export GOPEFT_CXX="%s" CXX="%s"\n' "${CXX:-g++}" "$cxx"
