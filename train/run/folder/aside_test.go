package folder

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A run that --overwrite replaces is back, or gone, wherever a process was killed.
func TestAsideSurvivesAKillAnywhere(t *testing.T) {
	oldRun := []string{"config.yaml=old", "metrics.csv=old", "best/a=old", "last/a=old"}
	for _, c := range []struct {
		name   string
		files  []string
		stands bool
		want   []string
	}{
		{"nothing aside", oldRun, true, oldRun},
		{"while it moved out", []string{"config.yaml=old", "metrics.csv=old", ".replaced.moving/best/a=old", ".replaced.moving/last/a=old"}, false, oldRun},
		{"while it moved out, the first file", []string{"config.yaml=old", "metrics.csv=old", "best/a=old", ".replaced.moving/last/a=old"}, false, oldRun},
		{"while it moved out, checkpoint last", []string{"config.yaml=old", "last/a=old", ".replaced.moving/metrics.csv=old", ".replaced.moving/best/a=old"}, true, oldRun},
		{"once it was aside", []string{".replaced/config.yaml=old", ".replaced/metrics.csv=old", ".replaced/best/a=old", ".replaced/last/a=old"}, false, oldRun},
		{"before the new run's first checkpoint", []string{"config.yaml=new", "metrics.csv=new", "best/a=new", "curves.png=new",
			".replaced/config.yaml=old", ".replaced/metrics.csv=old", ".replaced/best/a=old", ".replaced/last/a=old"}, false, oldRun},
		{"after it", []string{"config.yaml=new", "last/a=new", ".replaced/config.yaml=old", ".replaced/last/a=old", ".replaced/best/a=old"}, true,
			[]string{"config.yaml=new", "last/a=new"}},
		{"while it moved back", []string{"config.yaml=old", "metrics.csv=old", ".replaced.moving/best/a=old", ".replaced.moving/last/a=old"}, false, oldRun},
		{"a person's files stay", []string{"notes.txt=mine", "config.yaml=new", ".replaced/config.yaml=old", ".replaced/metrics.csv=old", ".replaced/best/a=old", ".replaced/last/a=old"}, false,
			append(slices.Clone(oldRun), "notes.txt=mine")},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, c.files)
			for range 2 {
				if err := of(dir).Recover(c.stands); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(slices.Sorted(slices.Values(c.want)), read(t, dir)); diff != "" {
					t.Fatalf("(-want +got):\n%s", diff)
				}
			}
		})
	}
	t.Run("and moves as a whole", func(t *testing.T) {
		dir := t.TempDir()
		write(t, dir, oldRun)
		if err := of(dir).Move(); err != nil {
			t.Fatal(err)
		}
		if names, err := Visible(dir); err != nil || len(names) > 0 {
			t.Errorf("%v, %v", names, err)
		}
		write(t, dir, []string{"config.yaml=new"})
		if err := of(dir).restore(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(slices.Sorted(slices.Values(oldRun)), read(t, dir)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func of(dir string) Aside {
	return Aside{dir, []string{"config.yaml", "metrics.csv", "curves.png", "best", "last"}}
}

// write makes files of lines path=content.
func write(t *testing.T, dir string, files []string) {
	t.Helper()
	for _, f := range files {
		path, content, _ := strings.Cut(f, "=")
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// read lists files as write takes them.
func read(t *testing.T, dir string) []string {
	t.Helper()
	got := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		got[name+"="+string(raw)] = true
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(got))
}
