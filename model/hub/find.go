package hub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"gopeft/model/fsutil"
)

// UI is told what a fetch does.
type UI interface {
	// Note is a line for people.
	Note(format string, args ...any)
	// Progress reports how far a phase is; done == total ends it.
	Progress(phase string, done, total int, detail string)
}

// Find tells where the model called name is: at name itself where there is such a file or folder, else in the hub's
// cache, into which it is fetched if need be.
func Find(ctx context.Context, name string, ui UI) (string, error) {
	if name == "" || fsutil.Exists(name) {
		return name, nil
	}
	if !ValidID(name) {
		return "", fmt.Errorf("model %s: no such folder or file", name)
	}
	client, err := FromEnv(os.Getenv)
	if err != nil {
		return "", err
	}
	repo := Repo{ID: name}
	folder, err := client.Cached(repo, WholeModel)
	if errors.Is(err, ErrNotCached) {
		if client.Offline {
			return "", fmt.Errorf("model %s: no such folder or file here; on the hub: %w", name, ErrOffline)
		}
		ui.Note("%s is no folder here and not in the cache: fetching it from %s", name, client.Endpoint)
		folder, err = Fetch(ctx, client, repo, ModelFiles, ui)
	}
	if err != nil {
		return "", fmt.Errorf("model %s: no such folder or file here; on the hub: %w", name, err)
	}
	return soleGGUF(folder), nil
}

// Fetch pulls a repository, showing how far it is.
func Fetch(ctx context.Context, client *Client, repo Repo, choose func(names []string) []string, ui UI) (string, error) {
	const mib = 1 << 20
	client.Progress = func(done, total int64) {
		ui.Progress("fetch "+repo.ID, int((done+mib-1)/mib), int(max((total+mib-1)/mib, 1)), "MiB")
	}
	return client.Pull(ctx, repo, choose)
}

// soleGGUF is the GGUF file of a snapshot that holds nothing else to load, or the folder.
func soleGGUF(folder string) string {
	found, err := filepath.Glob(filepath.Join(folder, "*.gguf"))
	if err != nil || len(found) != 1 || fsutil.Exists(filepath.Join(folder, "config.json")) {
		return folder
	}
	return found[0]
}
