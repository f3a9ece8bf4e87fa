#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (LLaMA architecture, quantised GGUF) and movie-review sentences; lets the model answer and
# write, fine-tunes it on the sentences with LoRA for about a minute, and shows loss and text before and after. Arguments go
# to `gopeft train`.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

fetched=$("$setup_dir/demo-data.sh" smollm2 reviews)
{ read -r model && read -r reviews; } <<<"$fetched"
run=runs/demo-llama data=runs/demo-llama-data

say() { printf '\n== %s\n' "$*"; }
write() { # write MODEL: two beginnings continued
    local begin
    for begin in 'This movie is' 'The acting'; do
        bin/gopeft generate --model "$1" --prompt "$begin" --echo --max-new-tokens 32 --repetition-penalty 1.1 --quiet
    done
}
loss() { bin/gopeft eval --task causal --model "$1" --data "$data/test.csv" --text-column text --max-length 64 --limit 48 --quiet; }

bin/gopeft prepare --format vader --data "$reviews" --split 0.8,0.1,0.1 --seed 42 --out "$data" --overwrite --quiet >/dev/null

say 'a question'
bin/gopeft generate --model "$model" --chat --prompt 'What are the three states of matter?' --max-new-tokens 48
say 'before: 48 held-out review sentences, and two beginnings'
loss "$model"
write "$model"

say 'fine-tuning with LoRA'
bin/gopeft train --task causal --method lora --targets all --model "$model" --train "$data/train.csv" --text-column text \
    --max-length 64 --sample 320 --batch-size 8 --epochs 1 --lr 1e-3 --no-train-eval --schedule cosine --seed 42 --out "$run" --overwrite "$@"

say 'after'
loss "$run"
write "$run"
