package peft_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf/files"
	"gopeft/peft"
)

// refusesRenamedKeys checks that an adapter folder is refused when a key of one of its weights files has another
// name, in an error that says which, and that the model is then as it was.
func refusesRenamedKeys(t *testing.T, s *bindings.Scope, dir string, m model.Model) {
	t.Helper()
	before := checksumOf(m)
	for file, keys := range weightsFiles(t, dir) {
		for _, i := range slices.Compact([]int{0, len(keys) / 2, len(keys) - 1}) {
			key := keys[i]
			broken := copyFolder(t, dir)
			renameKey(t, filepath.Join(broken, file), key)
			method, err := peft.Load(s, broken, m)
			if err == nil {
				method.Close()
				t.Errorf("%s: loaded with another name of %s", file, key)
				continue
			}
			text := err.Error()
			if output := regexp.MustCompile(`(^|\.)(classifier|score)\.weight$`); output.MatchString(key) && strings.Contains(text, "head") {
				continue // that names how many labels there are, and is looked for first
			}
			// What a prefix's blocks share has several names, and is found under another one.
			shared := strings.Contains(key, ".prefix_tuning.")
			if !strings.Contains(text, "unexpected ("+key+"s)") || !shared && !strings.Contains(text, "missing ("+key+")") || strings.Contains(text, "\n") {
				t.Errorf("%s: with another name of %s the error is %v", file, key, err)
			}
		}
	}
	if checksumOf(m) != before || m.Hooks().Method != "" {
		t.Error("a failed load changed the model")
	}
}

// weightsFiles are a folder's files of weights with their keys.
func weightsFiles(t *testing.T, dir string) map[string][]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext != ".safetensors" && ext != ".bin" {
			continue
		}
		a, err := files.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range a.Entries() {
			out[e.Name()] = append(out[e.Name()], k.Name)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(out) == 0 {
		t.Fatalf("no weights among %v", entries)
	}
	return out
}

// renameKey appends an s to a key of a weights file. A .bin file gives way to the safetensors file that is
// looked for first.
func renameKey(t *testing.T, path, key string) {
	t.Helper()
	to := path
	switch filepath.Base(path) {
	case "pytorch_adapter.bin":
		to = filepath.Join(filepath.Dir(path), "adapter.safetensors")
	case "pytorch_model_head.bin":
		to = filepath.Join(filepath.Dir(path), "model_head.safetensors")
	}
	rewriteAs(t, path, to, func(ts []files.Tensor) []files.Tensor {
		for i := range ts {
			if ts[i].Name == key {
				ts[i].Name += "s"
			}
		}
		return ts
	})
	if to != path {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
