package model_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/hf/files"
	"gopeft/model/modeltest"
)

const mappedConfig = `{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 300, "hidden_size": 128, "intermediate_size": 256,
	"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.05}`

// savedModel writes a random model, and opens it with its weights in the file.
func savedModel(t *testing.T, s *bindings.Scope) model.Model {
	t.Helper()
	dir := t.TempDir()
	m, err := model.New(s, []byte(mappedConfig), model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := model.Save(s, dir, m); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if m, err = model.Load(s, dir, model.Options{}); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestReleasedWeightsAreReadAgain(t *testing.T) {
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := savedModel(t, s)
		p := m.Params().Get("model.layers.0.mlp.up_proj.weight")
		if !p.Mapped() || p.Aside() != 0 {
			t.Fatal("the weight does not lie in its file")
		}
		was := p.T.Float32s()
		p.Cast(m.Scope(), bindings.BFloat16)
		if d := p.Value().DType(); d != bindings.BFloat16 || !slices.Equal(p.T.Float32s(), was) {
			t.Errorf("%v, or the stored values changed", d)
		}
		q := m.Params().Get("model.layers.0.mlp.gate_proj.weight")
		was = q.T.Float32s()
		other := s.Zeros(q.T.Shape(), bindings.Float, bindings.CPU)
		restore := q.Replace(other)
		if q.Mapped() || q.Aside() != 0 {
			t.Error("what was put aside takes memory")
		}
		if restore(); !q.Mapped() || !slices.Equal(q.T.Float32s(), was) {
			t.Error("restored with other values")
		}
		return m.Close()
	})
}

// Once a weight may have been written to, its pages are all there is of it.
func TestTrainedWeightsAreKept(t *testing.T) {
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := savedModel(t, s)
		p := m.Params().Get("model.layers.0.mlp.up_proj.weight")
		p.SetTrainable(s, true)
		s.NoGrad(func() { s.Fill(p.T, 3) })
		p.SetTrainable(s, false)
		restore := p.Replace(s.Zeros(p.T.Shape(), bindings.Float, bindings.CPU))
		if p.Aside() != p.T.Bytes() {
			t.Errorf("%d bytes put aside, want %d", p.Aside(), p.T.Bytes())
		}
		restore()
		p.Cast(m.Scope(), bindings.BFloat16)
		if slices.ContainsFunc(p.T.Float32s(), func(v float32) bool { return v != 3 }) {
			t.Error("what was trained is gone")
		}
		return m.Close()
	})
}

// A copied weight does not lie in its file, which is closed.
func TestCopiedWeightsNeedNoFile(t *testing.T) {
	bindingstest.Do(t, func(s *bindings.Scope) error {
		for _, name := range []string{"distilbert/tiny", "distilbert/bert", "distilbert/tiny-bin", "distilbert/tiny-sharded", "llama/base", "llama/base-bf16"} {
			path := modeltest.Testdata(t, name)
			for _, dtype := range []bindings.DType{bindings.Float, bindings.BFloat16} {
				m, err := model.Load(s, path, model.Options{DType: dtype})
				if err != nil {
					return err
				}
				copied, err := model.Load(s, path, model.Options{DType: dtype, Copy: true})
				if err != nil {
					return err
				}
				for i, p := range copied.Params().All() {
					q := m.Params().All()[i]
					if p.Mapped() || inFile(t, p.T, path) {
						t.Errorf("%s: %s lies in the file", name, p.Name)
					}
					if q.Mapped() && !inFile(t, q.T, path) {
						t.Errorf("%s: %s does not lie in the file", name, q.Name)
					}
					if p.T.DType() != dtype || !slices.Equal(p.T.Float32s(), q.T.Float32s()) {
						t.Errorf("%s: %s differs", name, p.Name)
					}
				}
				if err := errors.Join(m.Close(), copied.Close()); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// inFile reports whether a tensor's memory is a mapping of a file in the folder.
func inFile(t *testing.T, x bindings.Tensor, folder string) bool {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	if err := x.View(func(raw []byte) error {
		at := uintptr(unsafe.Pointer(unsafe.SliceData(raw)))
		for line := range strings.Lines(string(maps)) {
			var first, end uintptr
			if _, err := fmt.Sscanf(line, "%x-%x", &first, &end); err != nil {
				return err
			}
			found = found || first <= at && at < end && strings.Contains(line, folder)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestDescribeSaysWhatLoadMakes(t *testing.T) {
	for _, c := range []struct {
		name     string
		classify bool
	}{{"distilbert/tiny", true}, {"llama/base", false}, {"llama/base-bf16", true}, {"llama/tied", false}} {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			path, o := modeltest.Testdata(t, c.name), model.Options{Classify: c.classify}
			m, err := model.Load(s, path, o)
			if err != nil {
				return err
			}
			d, err := model.Describe(s, path, o)
			if err != nil {
				return err
			}
			var fresh []string
			for i, p := range m.Params().All() {
				if x := d.Params[i]; x.Name != p.Name || !slices.Equal(x.Shape, p.T.Shape()) {
					t.Errorf("%s: %v, want %s %v", c.name, x, p.Name, p.T.Shape())
				} else if x.DType == "" {
					fresh = append(fresh, x.Name)
				}
			}
			if d.Info != m.Info() || !slices.Equal(d.Labels, m.Labels()) || len(d.Params) != len(m.Params().All()) || !slices.Equal(fresh, m.Fresh()) {
				t.Errorf("%s: %+v", c.name, d)
			}
			return m.Close()
		})
	}
}

func TestSaveAsCastsOnce(t *testing.T) {
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := savedModel(t, s)
		dir := t.TempDir()
		if err := model.SaveAs(s, dir, m, bindings.BFloat16); err != nil {
			return err
		}
		a, err := files.Open(filepath.Join(dir, "model.safetensors"))
		if err != nil {
			return err
		}
		defer a.Close()
		for _, e := range a.Entries() {
			if e.DType != files.BF16 {
				t.Errorf("%s is %v", e.Name, e.DType)
			}
		}
		raw, err := os.ReadFile(filepath.Join(dir, "config.json"))
		if err != nil || configOf(t, raw) != "bfloat16" || m.Config()["torch_dtype"] != "float32" {
			t.Errorf("%v: %s, the model's own %v", err, raw, m.Config()["torch_dtype"])
		}
		return m.Close()
	})
}
