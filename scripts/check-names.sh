#!/usr/bin/env bash
# Proves that packages peft and train know no architecture: none of the model_types that package model loads, and none of
# its parameters' names, stands in their code. Free to name them are tests, the dialects of adapter files (peft/dialect*),
# comments, help texts, and the names of methods and dialects that hold such a word (llama-adapter, lit-llama).
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

# What the families' files say: the model_types, and the last parts of the names of the blocks' maps.
types=$({
    sed -n 's/^\t*types: *\[\]string{\(.*\)},$/\1/p' model/*.go | tr -d '" ' | tr , '\n'
    sed -n 's/.*classes: map\[string\]string{\([^}]*\)}.*/\1/p' model/*.go | tr , '\n' | sed 's/^ *"\([^"]*\)".*/\1/'
} | sort -u)
maps=$(sed -n 's/.*{Slot: [A-Za-z]*, Name: "\([^"]*\)".*/\1/p' model/*.go | sed -e 's/\.$//' -e 's/.*\.//' | sort -u)
# Those of encoders stand in calls; a last part that is an everyday word counts with what is before it.
maps+=$'\n'$(grep -h -A2 'encoderMaps(i' model/*.go | grep -o '"[a-z0-9_.]*"' | tr -d '"' | sed 's/.*\.\([a-z0-9]*_[a-z_]*\)$/\1/' | sort -u)
[[ -n $types && -n $maps ]] || die "the families' files in model name no model_types or no maps: adapt this script to them"
# The other parameters' names.
others='self_attn
qkv_proj
gate_up_proj
embed_tokens
lm_head
\bword_embeddings
\bposition_embeddings
LayerNorm\.(weight|bias)
"LayerNorm"
_layer_?norm
pre_classifier
(classifier|score)\.(weight|bias)'
names=$(printf '%s\n%s\n%s\n' "$types" "$maps" "$others" | paste -sd '|')

bad=0
while read -r file; do
    [[ -f $file ]] || continue
    found=$(sed -E -e 's,(^|[[:space:]])//.*,\1,' -e 's/usage:"[^"]*"//g' -e 's/(lit-?llama|llama[-_]?adapter|DialectLLaMA[a-z]*)//gI' "$file" |
        grep -niE -e "$names" | cut -d: -f1) || continue
    bad=1
    for line in $found; do
        printf 'names: %s:%s: %s\n' "$file" "$line" "$(sed -n "${line}p" "$file" | sed 's/^[[:space:]]*//')" >&2
    done
done < <(git ls-files -co --exclude-standard 'peft/*.go' 'train/*.go' | grep -vE '_test\.go$|^peft/dialect')
[[ $bad == 0 ]] || echo "names: what a family of models is like is model.Info's and model.Param's to tell" >&2
exit "$bad"
