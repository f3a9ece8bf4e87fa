#!/usr/bin/env bash
# Proves with `go list` that imports point one way, cmd → train → peft → model → bindings → gotch, in tests too, and
# that the top level holds only the folders it should.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

layers=(bindings model peft train cmd) # lowest first
module=$(go list -m)
bad=0
complain() {
    echo "layers: $*" >&2
    bad=1
}

# rank LAYER prints its place in the order; nothing for what is no layer.
rank() {
    local i
    for i in "${!layers[@]}"; do
        [[ ${layers[i]} != "$1" ]] || echo "$i"
    done
}

# One line per import: importer, imported. Test files count as their package.
# shellcheck disable=SC2016 # the $ are the template's
template='{{$from := .ImportPath}}{{range .Imports}}{{$from}} {{.}}{{"\n"}}{{end}}
{{range .TestImports}}{{$from}} {{.}}{{"\n"}}{{end}}{{range .XTestImports}}{{$from}} {{.}}{{"\n"}}{{end}}'
imports=$(go list -e -f "$template" ./... | sed '/^$/d' | sort -u)
[[ -n $imports ]] || die "go list finds no packages"
while read -r importer imported; do
    from=${importer#"$module"/}
    from=${from%%/*}
    [[ -n $(rank "$from") ]] || complain "package $importer is in no layer (${layers[*]})"
    case $imported in
    github.com/sugarme/gotch | github.com/sugarme/gotch/*)
        [[ $from == bindings ]] || complain "$importer imports $imported: only bindings may"
        ;;
    "$module"/*)
        to=${imported#"$module"/}
        to=${to%%/*}
        [[ $(rank "$to") -le $(rank "$from") ]] || complain "$importer imports $imported: $from lies below $to"
        [[ $to != cmd || $from == cmd ]] || complain "$importer imports $imported: nothing imports cmd"
        ;;
    esac
done <<<"$imports"

allowed=" bindings model peft train cmd scripts testdata "
while read -r entry; do
    [[ $entry == .* || $allowed == *" $entry "* ]] || complain "folder $entry at the top level; allowed are$allowed"
done < <(git ls-files -co --exclude-standard | sed -n 's|/.*||p' | sort -u)
exit "$bad"
