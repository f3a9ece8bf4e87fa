#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (LLaMA architecture, quantised GGUF) and lets it write. Arguments go to `gopeft generate`.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

model=$("$setup_dir/demo-data.sh" smollm2)
bin/gopeft generate --model "$model" --prompt 'The three states of matter are' --max-new-tokens 48 "$@"
