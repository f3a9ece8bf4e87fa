#!/usr/bin/env bash
# xgboost.sh fetches XGBoost's library, for --classifier xgboost, once, and prints its path.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

"$setup_dir/tools.sh" fetch
PYTHONDONTWRITEBYTECODE=1 exec python3 "$setup_dir/xgboost_library.py"
