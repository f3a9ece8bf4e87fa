#!/usr/bin/env bash
# demo-data.sh NAME... fetches what the demos need, once, and prints its paths; the names are in demo_data.py.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

"$setup_dir/tools.sh" fetch
PYTHONDONTWRITEBYTECODE=1 exec python3 "$setup_dir/demo_data.py" "$@"
