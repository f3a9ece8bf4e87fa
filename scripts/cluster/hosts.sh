#!/usr/bin/env bash
# Several machines that ssh reaches, with gopeft, the model and the data under the same paths on each. The first keeps the
# store where the processes meet and writes the run's folder; no file system has to be shared.
#
#   PROCESSES=8 PORT=29400 scripts/cluster/hosts.sh 'node1 node2' --method lora --model path/to/model --data rows.csv --out runs/lora
#
# Ctrl-C ends each ssh, and with it the terminal that its processes have: they write a checkpoint, and end too.
set -euo pipefail
[[ $# -ge 2 ]] || {
    echo "usage: $0 'HOST…' FLAGS-OF-TRAIN…" >&2
    exit 2
}
read -ra hosts <<<"$1"
shift
processes=${PROCESSES:-auto} port=${PORT:?set PORT to a port of the first machine that is free}

# The remote shell takes the words apart again, so they are quoted for it.
train=$(printf '%q ' "$@")
where=$(printf '%q' "$PWD")
machines=()
for rank in "${!hosts[@]}"; do
    ssh -tt -o BatchMode=yes "${hosts[rank]}" \
        "cd $where && exec gopeft launch --nproc $processes --nnodes ${#hosts[@]} --node-rank $rank" \
        "--master-addr ${hosts[0]#*@} --master-port $port -- train $train" </dev/null &
    machines+=($!)
done
trap 'kill "${machines[@]}" 2>/dev/null || true' INT TERM

status=0
for machine in "${machines[@]}"; do
    failed=0
    wait "$machine" || failed=$?
    while kill -0 "$machine" 2>/dev/null; do # a signal has only ended the waiting
        failed=0
        wait "$machine" || failed=$?
    done
    [[ $status != 0 ]] || status=$failed
done
exit "$status"
