package hub

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Kind is what a repository holds.
type Kind string

// The kinds. The zero value is a model.
const (
	Model   Kind = "model"
	Dataset Kind = "dataset"
)

// Repo names a repository of the hub.
type Repo struct {
	Kind     Kind
	ID       string // "org/name", or "name" alone for the oldest ones
	Revision string // branch, tag or commit; "" is main
}

var (
	idPart   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}$`)
	commitID = regexp.MustCompile(`^[0-9a-f]{40}$`)
	etagText = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
)

// ValidID reports whether a name can be that of a repository: name, or org/name.
func ValidID(id string) bool {
	parts := strings.Split(id, "/")
	if len(parts) > 2 {
		return false
	}
	for _, p := range parts {
		if !idPart.MatchString(p) || strings.Contains(p, "..") || strings.Contains(p, "--") || strings.HasSuffix(p, ".") || strings.HasSuffix(p, "-") {
			return false
		}
	}
	return true
}

func (r Repo) revision() string {
	if r.Revision == "" {
		return "main"
	}
	return r.Revision
}

func (r Repo) check() error {
	switch {
	case !ValidID(r.ID):
		return fmt.Errorf("%q is not a name on the hub: want org/name", r.ID)
	case r.Kind != "" && r.Kind != Model && r.Kind != Dataset:
		return fmt.Errorf("%s: kind %q is not known (model, dataset)", r.ID, r.Kind)
	case !localName(r.revision()):
		return fmt.Errorf("%s: %q is not a revision", r.ID, r.Revision)
	}
	return nil
}

// folder is the repository's in the cache, e.g. models--org--name.
func (r Repo) folder() string {
	kind := "models"
	if r.Kind == Dataset {
		kind = "datasets"
	}
	return kind + "--" + strings.ReplaceAll(r.ID, "/", "--")
}

// localName reports whether a slash-separated name stays inside the folder it is put in.
func localName(name string) bool {
	return name != "" && len(name) < 1024 && name == path.Clean(name) && name != "." && filepath.IsLocal(filepath.FromSlash(name)) &&
		!strings.ContainsAny(name, "\\\x00\n\r")
}

// AllFiles selects every file of a repository.
func AllFiles(names []string) []string { return names }

// settings are the files beside the weights that gopeft reads, or hands on with a model's tokenizer.
var settings = []string{"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
	"added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json",
	"adapter_config.json", "head_config.json", "gopeft.yaml"}

// weights are the ways a repository can hold weights, the best first; one is taken.
var weights = [][]string{
	{"model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"},
	{"adapter_model.safetensors", "adapter.safetensors", "model_head.safetensors"},
	{"pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json"},
	{"adapter_model.bin", "pytorch_adapter.bin", "pytorch_model_head.bin"},
}

// ModelFiles selects what gopeft reads of a model or an adapter: settings, tokenizer, and the weights in one
// format, safetensors where there are such; of GGUF the only file.
func ModelFiles(names []string) []string {
	out := Matching(settings)(names)
	for _, globs := range weights {
		if found := Matching(globs)(names); len(found) > 0 {
			return append(out, found...)
		}
	}
	if gguf := Matching([]string{"*.gguf"})(names); len(gguf) == 1 {
		out = append(out, gguf...)
	}
	return out
}

// Matching selects the files whose whole names match one of some globs, as [path.Match] reads them.
func Matching(globs []string) func(names []string) []string {
	return func(names []string) []string {
		var out []string
		for _, name := range names {
			if slices.ContainsFunc(globs, func(g string) bool { ok, err := path.Match(g, name); return ok && err == nil }) {
				out = append(out, name)
			}
		}
		return out
	}
}
