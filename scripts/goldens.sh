#!/usr/bin/env bash
# Makes the fixtures anew with the Python implementations, at pinned versions, in an environment of their own under
# GOPEFT_HOME, some under versions of a library that have an environment of theirs. `goldens.sh NAME...` makes only those. It
# needs python3.11 (PYTHON=/path names one) and 16 GB of disk.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

# Each script and its arguments, in the order they build on each other; behind @ what it runs under, if not the usual
# environment.
parts=(
    'distilbert'
    'encoders'
    'llama'
    'prompted'
    'decoders'
    'quantised_folders'
    'chat'
    'peft_files'
    'loraplus'
    'peft_targets'
    'losses'
    'adapterhub'
    'adapterhub@adapters-0.2'
    'litgpt_files@litgpt-0.5.3' # maps of queries, keys and values fused head by head,
    'litgpt_files@litgpt-0.5.8' # and one after the other
    'reference'
    'classic'
    'boosted'
    'safetensors_file model/hf/files/testdata'
    'torch_files model/hf/files/testdata'
    'gguf_blocks model/hf/files/testdata'
    "tokenizer fixtures model/tokenizer/testdata ${GOPEFT_SHARED:-../shared/data}"
    "tokenizer record $GOPEFT_HOME/demo/minilm model/tokenizer/testdata/minilm.golden.json.gz 110" # as demo-data.sh fetched it
    'tokenizer_folders model/tokenizer/testdata/folders.json.gz'
    'tokenizer_new model/tokenizer/testdata/new_tokens.json'
    'tokenizer_unicode model/tokenizer/unicode_tables.go'
    'quantised'
    'data_parquet train/data/rows/testdata'
)
python=${PYTHON:-python3.11}
command -v "$python" >/dev/null || die "$python is missing: the pinned versions are for Python 3.11 (PYTHON=/path names one)"
pip=(-m pip install --quiet --disable-pip-version-check)

# environment NAME REQUIREMENT... makes a virtual environment, or brings it up to date.
environment() {
    local at=$GOPEFT_HOME/$1
    [[ -x $at/bin/pip ]] || "$python" -m venv "$at"
    "$at/bin/python" "${pip[@]}" "${@:2}"
}

# run_under NAME SCRIPT ARGUMENT... runs a script under the usual environment, or that of a library's version.
run_under() {
    local at=$GOPEFT_HOME/goldens-$1
    case $1 in
    usual)
        "$GOPEFT_HOME/goldens-venv/bin/python" -B "${@:2}"
        ;;
    adapters-0.2)
        environment "goldens-$1" --requirement scripts/goldens/requirements-0.2.txt
        "$at/bin/python" -B "${@:2}"
        ;;
    litgpt-*) # beside what the usual environment has
        "$GOPEFT_HOME/goldens-venv/bin/python" "${pip[@]}" --no-deps --upgrade --target "$at" "litgpt==${1#litgpt-}" \
            lightning==2.5.6 pytorch-lightning==2.5.6 lightning-utilities==0.15.3 torchmetrics==1.9.0 jsonargparse==4.41.0
        PYTHONPATH=$at "$GOPEFT_HOME/goldens-venv/bin/python" -B "${@:2}"
        ;;
    esac
}

environment goldens-venv --requirement scripts/goldens/requirements.txt \
    gguf==0.19.0 bitsandbytes==0.49.2 compressed-tensors==0.12.2 datasets==4.4.1 pyarrow==26.0.1 sentencepiece==0.2.3 protobuf==6.33.1

"$setup_dir/demo-data.sh" minilm >/dev/null
ran=0
for part in "${parts[@]}"; do
    read -ra words <<<"$part"
    IFS=@ read -r name under <<<"${words[0]}"
    [[ $# -eq 0 || " $* " == *" $name "* || " $* " == *" ${words[0]} "* ]] || continue
    echo "goldens: ${words[0]}" >&2
    run_under "${under:-usual}" "scripts/goldens/$name.py" "${words[@]:1}"
    ran=$((ran + 1))
done
[[ $ran -gt 0 ]] || die "none of $* is a part: ${parts[*]%% *}"
