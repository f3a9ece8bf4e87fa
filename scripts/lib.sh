# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is read by the scripts that source this one
# Sourced by the other scripts: where things live, and how an error is printed.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
setup_dir=$root/scripts/setup

die() {
    printf 'gopeft: %s\n' "$*" >&2
    exit 1
}

if [[ -z ${GOPEFT_HOME:-} && -z ${XDG_CACHE_HOME:-} && -z ${HOME:-} ]]; then
    die "neither HOME nor GOPEFT_HOME is set: set GOPEFT_HOME to a folder for libtorch and the models"
fi
GOPEFT_HOME=${GOPEFT_HOME:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/gopeft}
[[ $GOPEFT_HOME == /* ]] || GOPEFT_HOME=$PWD/$GOPEFT_HOME
# The path becomes part of compiler flags, where blanks, commas (-Wl,) and quotes have a meaning.
[[ $GOPEFT_HOME != *[[:space:],\'\"\\]* ]] ||
    die "GOPEFT_HOME ($GOPEFT_HOME) must not hold blanks, commas, quotes or backslashes: choose another folder"
export GOPEFT_HOME

libtorch_version=$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' "$setup_dir/wheels.lock")
libtorch_dir=$GOPEFT_HOME/libtorch-$libtorch_version
compat_header=$(cd "$setup_dir" && echo gotch-compat-v*.h)
compat_213_header=$(cd "$setup_dir" && echo gotch-compat-213-v*.h)

# The headers and the stub archives gotch needs to build; beside our libtorch, apart from a user's own.
if [[ -n ${LIBTORCH:-} ]]; then
    compat_dir=$GOPEFT_HOME/compat
else
    compat_dir=$libtorch_dir
fi
