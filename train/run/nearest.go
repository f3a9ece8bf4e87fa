package run

import (
	"strings"

	"github.com/xrash/smetrics"
)

// likeness is how alike two words must be, from 0 to 1, for one to be taken for the other mistyped.
const likeness = 0.84

// Nearest is the word of those known that is most like what was typed, by the similarity of Jaro and Winkler, which
// weighs the beginning of words; "" if none is alike.
func Nearest(typed string, known []string) string {
	best, nearest := likeness, ""
	for _, word := range known {
		if s := smetrics.JaroWinkler(strings.ToLower(typed), strings.ToLower(word), 0.7, 4); s > best {
			best, nearest = s, word
		}
	}
	return nearest
}
