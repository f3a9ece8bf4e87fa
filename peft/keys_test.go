package peft_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/hf/files"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

var outputWeight = regexp.MustCompile(`(^|\.)(classifier|score|heads\.\w+\.\d+)\.weight$`)

// refusesRenamedKeys checks that an adapter folder is refused when a key of one of its weights files has another
// name, in an error that says which, and that the model is then as it was.
func refusesRenamedKeys(t *testing.T, s *bindings.Scope, dir string, m model.Model) {
	t.Helper()
	before := checksumOf(m)
	for file, keys := range weightsFiles(t, dir) {
		tried := []string{keys[0], keys[len(keys)/2], keys[len(keys)-1]}
		for _, key := range keys {
			if outputWeight.MatchString(key) { // tells how many labels there are
				tried = append(tried, key)
			}
		}
		slices.Sort(tried)
		for _, key := range slices.Compact(tried) {
			broken := copyFolder(t, dir)
			renameKey(t, filepath.Join(broken, file), key)
			method, err := peft.Load(s, broken, m)
			if err == nil {
				method.Close()
				t.Errorf("%s: loaded with another name of %s", file, key)
				continue
			}
			text := err.Error()
			// What a prefix's blocks share has several names, and is found under another one.
			// The base model's own tables, which peft saves beside LoRA on them, may be absent.
			shared := strings.Contains(key, ".prefix_tuning.") || strings.HasSuffix(key, ".base_layer.weight")
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
		ext := filepath.Ext(e.Name())
		if ext != ".safetensors" && ext != ".bin" || e.Name() == "golden.safetensors" || e.Name() == "compat.safetensors" {
			continue // the last two are fixtures' own
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

// TestRenamedKeysOfOthersFoldersAreNamed: also those of heads, which tell how many labels there are.
func TestRenamedKeysOfOthersFoldersAreNamed(t *testing.T) {
	for _, fixture := range append(fixtures(t, "peft"), fixtures(t, "adapterhub")...) {
		if strings.HasSuffix(fixture, "-bin") || strings.Contains(fixture, "-bias") {
			continue // .bin: as the safetensors file beside it; biases beside LoRA may be absent
		}
		t.Run(fixture, func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := baseOf(t, fixture).load(t, s)
				defer m.Close()
				refusesRenamedKeys(t, s, modeltest.Testdata(t, fixture), m)
				return nil
			})
		})
	}
}

// TestMissingHeadsAreNamed: a folder that says it classifies, whose head is gone, is refused by a model with and
// without a head.
func TestMissingHeadsAreNamed(t *testing.T) {
	noHead := func(ts []files.Tensor) []files.Tensor {
		return slicesDelete(ts, func(x files.Tensor) bool { return outputWeight.MatchString(x.Name) })
	}
	for _, c := range []struct{ fixture, file, want, headless string }{
		{"peft/llama-seqcls-lora", "adapter_model.safetensors", "1 missing (base_model.model.score.weight)", "no classification head (classifier.weight or score.weight)"},
		{"adapterhub/distilbert-houlsby", "model_head.safetensors", "1 missing (classifier.weight)", "loaded without a classification head"},
		{"adapterhub/distilbert-houlsby-flexible-head", "model_head.safetensors", "2 missing (heads.imdb.1.weight, heads.imdb.4.weight)", "loaded without a classification head"},
	} {
		dir := copyFolder(t, modeltest.Testdata(t, c.fixture))
		rewrite(t, filepath.Join(dir, c.file), noHead)
		f := baseOf(t, c.fixture)
		loadFails(t, f, dir, c.want)
		f.classify = false
		loadFails(t, f, dir, c.headless)
	}
	dir := copyFolder(t, modeltest.Testdata(t, "adapterhub/distilbert-houlsby"))
	rewrite(t, filepath.Join(dir, "model_head.safetensors"), rename("classifier.weight", "classifier.weights"))
	edit(t, filepath.Join(dir, "head_config.json"), func(m map[string]any) { delete(m, "label2id") })
	loadFails(t, families[0], dir, "no classification head (classifier.weight or score.weight) is in its weights file: it holds ")
}
