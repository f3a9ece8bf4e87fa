package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"gopeft/bindings/fault"

	"gopeft/model/fsutil"
)

// ErrNotCached is the error of Cached for what was never fetched.
var ErrNotCached = errors.New("it is not in the cache")

// Cached is the snapshot folder of a repository that is in the cache already, whoever fetched it. need, if not nil, is
// asked whether the files in it (slash-separated names) are enough; ErrNotCached if they are not.
func (c *Client) Cached(r Repo, need func(names []string) bool) (string, error) {
	if err := r.check(); err != nil {
		return "", err
	}
	dir := filepath.Join(c.Cache, r.folder())
	commit := r.revision()
	if !commitID.MatchString(commit) {
		raw, err := os.ReadFile(filepath.Join(dir, "refs", filepath.FromSlash(commit)))
		if errors.Is(err, fs.ErrNotExist) {
			return "", ErrNotCached
		}
		if err != nil {
			return "", err
		}
		if commit = strings.TrimSpace(string(raw)); !commitID.MatchString(commit) {
			return "", fmt.Errorf("%s: refs/%s names no commit: remove the folder to fetch it anew", dir, r.revision())
		}
	}
	snapshot := filepath.Join(dir, "snapshots", commit)
	names, err := filesIn(snapshot)
	if errors.Is(err, fs.ErrNotExist) {
		return "", ErrNotCached
	}
	if err != nil {
		return "", err
	}
	if len(names) == 0 || need != nil && !need(names) {
		return "", ErrNotCached
	}
	return snapshot, nil
}

// filesIn lists the files of a snapshot whose content is there.
func filesIn(dir string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
			return nil // a link to a blob that is gone
		}
		name, err := filepath.Rel(dir, path)
		names = append(names, filepath.ToSlash(name))
		return err
	})
	return names, err
}

// WholeModel reports whether files are enough to load a model or an adapter from.
func WholeModel(names []string) bool {
	has := func(globs ...string) bool { return len(Matching(globs)(names)) > 0 }
	if has("*.gguf") || has("adapter_config.json") && has("adapter_model.safetensors", "adapter_model.bin", "adapter.safetensors", "pytorch_adapter.bin") {
		return true
	}
	return has("config.json") && (has("model.safetensors", "pytorch_model.bin") || allShards(names))
}

var shardName = regexp.MustCompile(`^(model|pytorch_model)-\d{5}-of-(\d{5})\.(safetensors|bin)$`)

// allShards reports whether names hold an index of shards and every shard: "-of-00003" asks for three.
func allShards(names []string) bool {
	found, want := map[string]int{}, map[string]int{}
	for _, name := range names {
		if m := shardName.FindStringSubmatch(name); m != nil {
			kind := m[1] + "." + m[3]
			found[kind]++
			want[kind], _ = strconv.Atoi(m[2])
		}
	}
	for kind, n := range found {
		if n == want[kind] && slices.Contains(names, kind+".index.json") {
			return true
		}
	}
	return false
}

// Pull fetches those files of a repository that choose selects and the cache does not have, and returns the snapshot
// folder.
func (c *Client) Pull(ctx context.Context, r Repo, choose func(names []string) []string) (string, error) {
	if err := r.check(); err != nil {
		return "", err
	}
	if c.Offline {
		folder, err := c.Cached(r, nil)
		if errors.Is(err, ErrNotCached) {
			return "", fmt.Errorf("%s: %w", r.ID, ErrOffline)
		}
		return folder, err
	}
	l, err := c.list(ctx, r)
	if err != nil {
		return "", err
	}
	files := choose(l.files)
	if len(files) == 0 {
		return "", fmt.Errorf("%s holds none of the files wanted; it has %s", r.ID, some(l.files))
	}
	dir := filepath.Join(c.Cache, r.folder())
	for _, sub := range []string{"blobs", "refs", filepath.Join("snapshots", l.commit)} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o777); err != nil {
			return "", err
		}
	}
	if err := c.fetchAll(ctx, &pull{client: c, repo: r, dir: dir, commit: l.commit}, files); err != nil {
		return "", err
	}
	snapshot := filepath.Join(dir, "snapshots", l.commit)
	if commitID.MatchString(r.revision()) {
		return snapshot, nil
	}
	// Last: who finds the reference finds the files.
	ref := filepath.Join(dir, "refs", filepath.FromSlash(r.revision()))
	if err := os.MkdirAll(filepath.Dir(ref), 0o777); err != nil {
		return "", err
	}
	return snapshot, fsutil.WriteFile(ref, func(w io.Writer) error { _, err := io.WriteString(w, l.commit); return err })
}

func some(names []string) string {
	if len(names) > 12 {
		return strings.Join(names[:12], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// workers is how many files are fetched at a time.
const workers = 4

// fetchAll fetches files, several at a time; the first error ends the others.
func (c *Client) fetchAll(ctx context.Context, p *pull, files []string) error {
	group, running := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for _, name := range files {
		if running.Err() != nil {
			break
		}
		group.Go(func() error { return fault.Guard(func() error { return p.fetch(running, name) }) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}
