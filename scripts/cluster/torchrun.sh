#!/usr/bin/env bash
# One machine, its processes started by torchrun: for clusters whose tools expect it. Where nothing does,
# `gopeft train --nproc 8 …` is the same without Python.
#
#   scripts/cluster/torchrun.sh 8 --method lora --model path/to/model --data rows.csv --out runs/lora
set -euo pipefail
[[ $# -ge 2 ]] || {
    echo "usage: $0 PROCESSES FLAGS-OF-TRAIN…" >&2
    exit 2
}
processes=$1
shift
# --no-python: gopeft is a program, not a script. --resume=auto: after a failure all go on from the last checkpoint.
# torchrun sets OMP_NUM_THREADS to 1 where it is not set; gopeft goes by --threads, or shares the cores out.
exec torchrun --standalone --nproc-per-node "$processes" --max-restarts 2 --no-python \
    gopeft train --resume=auto "$@"
