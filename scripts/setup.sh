#!/usr/bin/env bash
# Gets a machine ready to build gopeft: checks the tools, installs libtorch into GOPEFT_HOME. Running it
# again does nothing when all is there, and goes on where an interrupted run stopped.
#
#   CUDA=1           fetch what libtorch needs on an NVIDIA GPU too (the binary stays the same)
#   LIBTORCH=/path   use that libtorch, fetch nothing
#   GOPEFT_HOME=DIR  where libtorch and the demo's model and data go (default: the user's cache folder)
#   GOPEFT_WHEELS=D  take wheels from folder D where they are there (a machine without network)
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

"$setup_dir/tools.sh" build
if [[ -z ${LIBTORCH:-} ]]; then
    installed() { cmp -s "$setup_dir/$1" "$libtorch_dir/$2" && [[ -f $libtorch_dir/torch/lib/$3 ]]; }
    parts=()
    installed wheels.lock .installed libtorch_cpu.so || parts=(base)
    if [[ ${CUDA:-} == 1 || -e $libtorch_dir/.installed-cuda ]]; then
        installed wheels-cuda.lock .installed-cuda libtorch_cuda.so || parts+=(cuda)
    fi
    if [[ ${#parts[@]} -gt 0 ]]; then
        "$setup_dir/tools.sh" fetch
        PYTHONDONTWRITEBYTECODE=1 python3 "$setup_dir/libtorch.py" "$libtorch_dir" "${parts[@]}"
    fi
fi
"$setup_dir/compat.sh" "$compat_dir"
"$root/scripts/env.sh" true # LIBTORCH's version and ABI are judged there
