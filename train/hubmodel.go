package train

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"gopeft/model/hub"
)

// ResolveModel tells where the model called name is: at name itself where there is such a file or folder, else
// in the hub's cache, into which it is fetched if need be.
func ResolveModel(ctx context.Context, name string, ui UI) (string, error) {
	if name == "" || exists(name) {
		return name, nil
	}
	if !hub.ValidID(name) {
		return "", fmt.Errorf("model %s: no such folder or file", name)
	}
	client, err := hub.FromEnv(os.Getenv)
	if err != nil {
		return "", err
	}
	repo := hub.Repo{ID: name}
	folder, err := client.Cached(repo, hub.WholeModel)
	if errors.Is(err, hub.ErrNotCached) {
		if client.Offline {
			return "", fmt.Errorf("model %s: no such folder or file here; on the hub: %w", name, hub.ErrOffline)
		}
		ui.Note("%s is no folder here and not in the cache: fetching it from %s", name, client.Endpoint)
		folder, err = Pull(ctx, client, repo, hub.ModelFiles, ui)
	}
	if err != nil {
		return "", fmt.Errorf("model %s: no such folder or file here; on the hub: %w", name, err)
	}
	return soleGGUF(folder), nil
}

// Pull fetches a repository, showing how far it is.
func Pull(ctx context.Context, client *hub.Client, repo hub.Repo, choose func(names []string) []string, ui UI) (string, error) {
	const mib = 1 << 20
	client.Progress = func(done, total int64) {
		ui.Progress("fetch "+repo.ID, int((done+mib-1)/mib), int(max((total+mib-1)/mib, 1)), "MiB")
	}
	return client.Pull(ctx, repo, choose)
}

// soleGGUF is the GGUF file of a snapshot that holds nothing else to load, or the folder.
func soleGGUF(folder string) string {
	found, err := filepath.Glob(filepath.Join(folder, "*.gguf"))
	if err != nil || len(found) != 1 || exists(filepath.Join(folder, "config.json")) {
		return folder
	}
	return found[0]
}

// resolveAdapter is ResolveModel for the adapters of ResolveAdapters, their names kept.
func resolveAdapter(ctx context.Context, text string, ui UI) (NamedAdapter, error) {
	a := nameAdapter(text)
	path, err := ResolveModel(ctx, a.Path, ui)
	if err != nil {
		return a, fmt.Errorf("--adapter: %w", err)
	}
	a.Path = path
	return a, nil
}

// folder is where the run's model is: Model, or the hub's model of that name.
func (c Config) folder() string {
	if c.found != "" {
		return c.found
	}
	return c.Model
}
