package corpus

import (
	"fmt"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/model/fsutil"
	"gopeft/train/data"
	"gopeft/train/data/tokens"
)

// Files are named as they are called now, also where a name begins with another, or has become another's.
func TestNotesNameFilesAsTheyAreNow(t *testing.T) {
	for _, c := range []struct {
		now        data.Settings
		was        []string
		note, want string
	}{
		{data.Settings{Train: "new/a.csv", Val: "new/b.csv"}, []string{"a.csv", "a.csv.2"}, "a.csv.2: 1 empty text; a.csv: none", "new/b.csv: 1 empty text; new/a.csv: none"},
		{data.Settings{Train: "b", Val: "a"}, []string{"a", "b"}, "a, b", "b, a"},
		{data.Settings{Train: "x", Val: "y"}, []string{"x.z", "x"}, "x.z and x", "x and y"},
		{data.Settings{Train: "other", Val: "x.csv.gz"}, []string{"x.csv", "x.csv.gz"}, "x.csv.gz: 2 rows", "x.csv.gz: 2 rows"},
	} {
		got := Source{Settings: c.now}.notes(tokens.Info{Notes: []string{c.note}, Files: c.was})
		if diff := cmp.Diff([]string{c.want}, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

func TestDataStaysInMemoryWhereItsFolderCannotHoldTokens(t *testing.T) {
	noLocks := fmt.Errorf("lock x: %w", fsutil.ErrNoLocks)
	for _, c := range []struct {
		dir  string
		err  error
		want bool
	}{
		{"", noLocks, true}, {"x", noLocks, true},
		{"", fs.ErrPermission, true}, {"x", fs.ErrPermission, false},
		{"", fs.ErrInvalid, false},
	} {
		if got := (Source{Settings: data.Settings{CacheDir: c.dir}}).memoryWill(c.err); got != c.want {
			t.Errorf("--cache-dir %q, %v: %v", c.dir, c.err, got)
		}
	}
}
