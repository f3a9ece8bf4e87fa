#!/usr/bin/env bash
# Proves with `go list` that imports point one way, in tests too, and that the top level holds only its folders.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

# The layers, lowest first. A package belongs to the longest name here that its path begins with (model/hf is part of
# model). It may import its own layer and what stands in earlier lines; not another name of its own line.
layers=(
    'bindings'
    'model'
    'peft'
    'train/data/rows'
    'train/data train/metrics train/report train/classic train/launch'
    'train/dist train/neftune'
    'train'
    'train/run train/infer train/bench'
    'cmd'
    'scripts'
)
# Imports within a line that are right all the same, as 'IMPORTER IMPORTED'.
siblings=('train/run train/infer') # a run is used by its tests
# Names that only some packages may write: a pattern of git grep, and where it may stand. A run's whole configuration
# goes no further than train/run: all that lies below takes its group of settings.
whole_configuration='\brun\.Config\b'
whole_configuration_in=(train/run cmd)

bad=0
complain() {
    echo "layers: $*" >&2
    bad=1
}

# layer_of PATH prints the layer of a package, and its place in the order; nothing for what is in none.
layer_of() {
    local i name best='' place=''
    for i in "${!layers[@]}"; do
        for name in ${layers[i]}; do
            if [[ $1/ == "$name"/* && ${#name} -gt ${#best} ]]; then
                best=$name place=$i
            fi
        done
    done
    [[ -z $best ]] || echo "$best $place"
}

module=$(go list -m)
# One line per import: importer, imported. Test files count as their package.
# shellcheck disable=SC2016 # the $ are the template's
template='{{$from := .ImportPath}}{{range .Imports}}{{$from}} {{.}}{{"\n"}}{{end}}
{{range .TestImports}}{{$from}} {{.}}{{"\n"}}{{end}}{{range .XTestImports}}{{$from}} {{.}}{{"\n"}}{{end}}'
imports=$(go list -e -f "$template" ./... | sed '/^$/d' | sort -u)
[[ -n $imports ]] || die "go list finds no packages"

declare -A layer
while read -r package; do
    layer[$package]=$(layer_of "${package#"$module"/}")
    [[ -n ${layer[$package]} ]] || complain "package $package is in no layer (${layers[*]})"
done < <(go list -e ./...)

while read -r importer imported; do
    read -r from from_place <<<"${layer[$importer]}"
    case $imported in
    github.com/sugarme/gotch | github.com/sugarme/gotch/*)
        [[ $from == bindings ]] || complain "$importer imports $imported: only bindings may"
        ;;
    "$module"/*)
        read -r to to_place <<<"${layer[$imported]:-}"
        if [[ -z $from || -z $to || $from == "$to" ]]; then
            :
        elif [[ $to_place -gt $from_place ]]; then
            complain "$importer imports $imported: $from lies below $to"
        elif [[ $to_place -eq $from_place && " ${siblings[*]/%/,} " != *" $from $to, "* ]]; then
            complain "$importer imports $imported: $from and $to stand side by side"
        fi
        ;;
    esac
done <<<"$imports"

if git grep --untracked -nE "$whole_configuration" -- '*.go' "${whole_configuration_in[@]/#/:!}"; then
    complain "a run's whole configuration in the lines above: only ${whole_configuration_in[*]} may know it"
fi

allowed=" bindings model peft train cmd scripts testdata "
while read -r entry; do
    [[ $entry == .* || $allowed == *" $entry "* ]] || complain "folder $entry at the top level; allowed are$allowed"
done < <(git ls-files -co --exclude-standard | sed -n 's|/.*||p' | sort -u)
exit "$bad"
