#!/usr/bin/env bash
# Makes the fixtures under testdata/ anew: the Python implementations, at pinned versions, in an environment of
# their own under GOPEFT_HOME. It needs python3.11 (PYTHON=/path names another) and some 8 GB of disk.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

python=${PYTHON:-python3.11}
command -v "$python" >/dev/null || die "$python is missing: the fixtures' pinned versions are for Python 3.11 (PYTHON=/path names one)"
venv=$GOPEFT_HOME/goldens-venv
[[ -x $venv/bin/pip ]] || "$python" -m venv "$venv"
"$venv/bin/pip" install --quiet --requirement scripts/goldens/requirements.txt
mapfile -t scripts < <(grep -l '__main__' scripts/goldens/*.py)
for script in "${scripts[@]}"; do
    echo "$script"
    "$venv/bin/python" -B "$script"
done
