#!/usr/bin/env bash
# Makes the fixtures anew with the Python implementations, at pinned versions, in an environment of their own under
# GOPEFT_HOME. `goldens.sh NAME...` makes only those. It needs python3.11 (PYTHON=/path names one) and 8 GB of disk.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

# Each script and its arguments, in the order they build on each other.
parts=(
    'distilbert'
    'llama'
    'decoders'
    'quantised_folders'
    'chat'
    'peft_files'
    'peft_targets'
    'adapterhub'
    'reference'
    'classic'
    'boosted'
    'safetensors_file model/hf/files/testdata'
    'torch_files model/hf/files/testdata'
    'gguf_blocks model/hf/files/testdata'
    "tokenizer fixtures model/tokenizer/testdata ${GOPEFT_SHARED:-../shared/data}"
    "tokenizer record $GOPEFT_HOME/demo/minilm model/tokenizer/testdata/minilm.golden.json.gz 110" # as demo-data.sh fetched it
    'tokenizer_folders model/tokenizer/testdata/folders.json.gz'
    'tokenizer_unicode model/tokenizer/unicode_tables.go'
    'quantised'
    'data_parquet train/data/rows/testdata'
)
python=${PYTHON:-python3.11}
command -v "$python" >/dev/null || die "$python is missing: the pinned versions are for Python 3.11 (PYTHON=/path names one)"
venv=$GOPEFT_HOME/goldens-venv
[[ -x $venv/bin/pip ]] || "$python" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --requirement scripts/goldens/requirements.txt \
    gguf==0.19.0 bitsandbytes==0.49.2 compressed-tensors==0.12.2 datasets==4.4.1 pyarrow==26.0.1 sentencepiece==0.2.3 protobuf==6.33.1

"$setup_dir/demo-data.sh" minilm >/dev/null
ran=0
for part in "${parts[@]}"; do
    read -ra words <<<"$part"
    [[ $# -eq 0 || " $* " == *" ${words[0]} "* ]] || continue
    echo "goldens: ${words[0]}" >&2
    "$venv/bin/python" -B "scripts/goldens/${words[0]}.py" "${words[@]:1}"
    ran=$((ran + 1))
done
[[ $ran -gt 0 ]] || die "none of $* is a part: ${parts[*]%% *}"
