package hf_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model/hf"
)

// saved loads a folder as it is and saves it again.
func saved(t *testing.T, s *bindings.Scope, from, to string, spoil func([]hf.Named)) error {
	t.Helper()
	c := open(t, from)
	r := request(c, hf.Keep)
	ts := make([]hf.Named, len(r.Wants))
	r.Quantised = func(i int, q *bindings.Quantised) { ts[i].Quantised = q }
	tensors, err := c.Load(s, r)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range r.Wants {
		ts[i].Name, ts[i].Tensor = w.Name, tensors[i]
	}
	if spoil != nil {
		spoil(ts)
	}
	var config map[string]any
	if err := json.Unmarshal(c.Config, &config); err != nil {
		t.Fatal(err)
	}
	delete(config, "quantization_config")
	return hf.SaveQuantised(s, to, config, ts)
}

func TestSaveQuantisedWritesWhatBitsandbytesWrites(t *testing.T) {
	for _, name := range []string{"nf4", "nf4-double", "fp4", "int8"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			bindingstest.Do(t, func(s *bindings.Scope) error { return saved(t, s, folder(t, name), dir, nil) })
			got, want := read(t, dir, "model.safetensors"), read(t, folder(t, name), "model.safetensors")
			if got != want {
				t.Error("model.safetensors differs")
			}
			var ours, theirs map[string]any
			for text, c := range map[string]*map[string]any{read(t, dir, "config.json"): &ours, read(t, folder(t, name), "config.json"): &theirs} {
				if err := json.Unmarshal([]byte(text), c); err != nil {
					t.Fatal(err)
				}
			}
			q := ours["quantization_config"].(map[string]any)
			if skipped := fmt.Sprint(q["llm_int8_skip_modules"]); skipped != "[model.embed_tokens lm_head]" {
				t.Errorf("skipped are %s", skipped)
			}
			q["llm_int8_skip_modules"] = nil // which transformers leaves to itself
			if got, want := fmt.Sprint(ours), fmt.Sprint(theirs); got != want {
				t.Errorf("config.json is %s, want %s", got, want)
			}
		})
	}
}

func TestSaveQuantisedRefusesWhatBitsandbytesCannotHold(t *testing.T) {
	for _, c := range []struct {
		folder string
		spoil  func([]hf.Named)
		want   []string
	}{
		{"gptq", nil, []string{"save", "proj.weight", "bitsandbytes"}},
		{"nf4", func(ts []hf.Named) {
			for i := range ts {
				ts[i].Quantised = nil
			}
		}, []string{"none of the 20"}},
		{"nf4", func(ts []hf.Named) {
			other := *ts[len(ts)-1].Quantised
			other.Kind = bindings.FP4
			ts[len(ts)-1].Quantised = &other
		}, []string{"another way"}},
		{"nf4", func(ts []hf.Named) { ts[len(ts)-1].Name = "table" }, []string{"save table"}},
	} {
		t.Run(c.folder+" "+strings.Join(c.want, " "), func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				dir := t.TempDir()
				refused(t, saved(t, s, folder(t, c.folder), dir, c.spoil), c.want...)
				if _, err := os.Stat(filepath.Join(dir, "model.safetensors")); !os.IsNotExist(err) {
					t.Errorf("weights were written: %v", err)
				}
				return nil
			})
		})
	}
}

func read(t testing.TB, dir, name string) string {
	t.Helper()
	raw, err := fs.ReadFile(os.DirFS(dir), name)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
