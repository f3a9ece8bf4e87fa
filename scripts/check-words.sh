#!/usr/bin/env bash
# Looks in every file of the repository for what has no place there: paths of one machine, hosts of package registries
# (pip and go know theirs), notes of unfinished work, merge marks, and files too big to belong here.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

bad=0
# A letter in brackets keeps a pattern from finding itself.
forbid() { # forbid WHAT PATTERN
    if git grep --untracked -nIE -e "$2" -- . ':!LICENSE' ':!go.sum'; then
        echo "words: $1 in the lines above" >&2
        bad=1
    fi
}
forbid 'a path of one machine' '(^|[^[:alnum:]_./-])/(wor[k]|roo[t]|hom[e]|User[s])/[[:alnum:]_.]'
forbid 'the host of a package registry' 'pyp[i]\.org|pythonhoste[d]\.org|proxy\.golan[g]\.org|index\.crate[s]\.io'
forbid 'unfinished work' '\b(TOD[O]|FIXM[E]|XX[X]|HAC[K])\b'
forbid 'a merge mark' '^(<{7}|>{7}|={7})( |$)'

while read -r file; do
    [[ ! -f $file || $(stat -c %s "$file") -le 2000000 ]] || {
        echo "words: $file is larger than 2 MB" >&2
        bad=1
    }
done < <(git ls-files -co --exclude-standard)
exit "$bad"
