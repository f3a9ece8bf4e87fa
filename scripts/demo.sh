#!/usr/bin/env bash
# The main job on public data: fetches a pretrained model and rated movie-review sentences, splits them 70/10/20 by
# a fixed seed, and compares every way to fine-tune. Arguments go to `gopeft compare`.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

fetched=$("$setup_dir/demo-data.sh" minilm reviews)
{ read -r model && read -r reviews; } <<<"$fetched"

bin/gopeft prepare --format vader --data "$reviews" --split 0.7,0.1,0.2 --seed 42 --sample 2000 --out runs/demo-data --overwrite
bin/gopeft compare --model "$model" --train runs/demo-data/train.csv --val runs/demo-data/val.csv --test runs/demo-data/test.csv \
    --read-as distilbert --methods all --epochs 2 --seed 42 --out runs/demo --overwrite "$@"
