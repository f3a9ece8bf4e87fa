package peft_test

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/hf/files"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// TestModulesThatSettingsName reads settings in every form that target_modules, its narrowings and the patterns of
// ranks and alphas take, against the modules, ranks and alphas that peft itself gave (scripts/goldens/peft_targets.py).
// A and B are ones: files of other modules or ranks are refused, and merging adds alpha to every weight.
func TestModulesThatSettingsName(t *testing.T) {
	raw, err := os.ReadFile(modeltest.Testdata(t, "peft_targets.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name, Base string
		Config     json.RawMessage // as it is: the order of names counts
		Modules    map[string][2]int64
	}
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Base+"/"+c.Name, func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := family{folder: c.Base, classify: strings.HasPrefix(c.Base, "distilbert")}.load(t, s)
				defer m.Close()
				var ts []files.Tensor
				add := func(name string, shape ...int64) {
					ts = append(ts, files.Tensor{Name: "base_model.model." + name, DType: files.F32, Shape: shape, Data: ones(shape)})
				}
				before := map[string]bindings.Tensor{}
				for _, p := range m.Params().All() {
					module := strings.TrimSuffix(p.Name, ".weight")
					if x, ok := c.Modules[module]; ok && module != p.Name {
						add(module+".lora_A.weight", x[0], p.T.Size(1))
						add(module+".lora_B.weight", p.T.Size(0), x[0])
					}
					if saved(m, c.Config, p.Name) {
						add(p.Name, p.T.Shape()...)
						continue
					}
					before[p.Name] = s.Clone(p.T)
				}
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "adapter_config.json"), c.Config, 0o600); err != nil {
					return err
				}
				if err := files.WriteSafetensors(filepath.Join(dir, "adapter_model.safetensors"), ts, nil); err != nil {
					return err
				}
				method, err := peft.Load(s, dir, m)
				if err != nil {
					return err
				}
				if err := peft.Merge(s, method, m); err != nil {
					return err
				}
				for _, p := range m.Params().All() {
					want, ok := before[p.Name]
					if !ok {
						continue
					}
					if x, ok := c.Modules[strings.TrimSuffix(p.Name, ".weight")]; ok && strings.HasSuffix(p.Name, ".weight") {
						want = s.AddScalar(want, float64(x[1])) // alpha/r · r
					}
					modeltest.Close(t, p.Name, p.T, want, 1e-5)
				}
				return nil
			})
		})
	}
}

// saved reports whether a file has a parameter whole: of the head, or in modules_to_save.
func saved(m model.Model, config []byte, name string) bool {
	var c struct {
		Task string   `json:"task_type"`
		Save []string `json:"modules_to_save"`
	}
	if err := json.Unmarshal(config, &c); err != nil || c.Task != "SEQ_CLS" {
		return false
	}
	for _, module := range append(c.Save, m.HeadNames()...) {
		if strings.Contains("."+name, "."+module+".") {
			return true
		}
	}
	return false
}

func ones(shape []int64) []byte {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	var out []byte
	for range n {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(1))
	}
	return out
}

// TestPatternsAreReadWithoutChance: the first that fits decides, every time the file is read, and a name given twice has its last value.
func TestPatternsAreReadWithoutChance(t *testing.T) {
	const config = `{"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 16, "target_modules": ["q_proj"],
		"rank_pattern": {"q_proj": 9, "1.self_attn.q_proj": 5, ".*": 6, "q_proj": 2}}`
	f := families[2]
	var ts []files.Tensor
	for _, layer := range []string{"0", "1", "2"} {
		for name, shape := range map[string][]int64{"lora_A": {2, 16}, "lora_B": {16, 2}} {
			ts = append(ts, files.Tensor{Name: "base_model.model.model.layers." + layer + ".self_attn.q_proj." + name + ".weight", DType: files.F32, Shape: shape, Data: ones(shape)})
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "adapter_config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := files.WriteSafetensors(filepath.Join(dir, "adapter_model.safetensors"), ts, nil); err != nil {
		t.Fatal(err)
	}
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := f.load(t, s)
		defer m.Close()
		for range 20 {
			method, err := peft.Load(s, dir, m)
			if err != nil {
				return err
			}
			method.Close()
		}
		return nil
	})
}

// TestBiasesThatAFileLacksAreSaid: peft 0.11 wrote none for lora_only; the base's then serve, and it is said.
func TestBiasesThatAFileLacksAreSaid(t *testing.T) {
	const fixture = "peft/distilbert-seqcls-lora-bias-few"
	dir := copyFolder(t, modeltest.Testdata(t, fixture))
	rewrite(t, filepath.Join(dir, "adapter_model.safetensors"), func(ts []files.Tensor) []files.Tensor {
		return slicesDelete(ts, func(f files.Tensor) bool { return strings.HasSuffix(f.Name, "base_layer.bias") })
	})
	f := baseOf(t, fixture)
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := f.load(t, s)
		defer m.Close()
		method, err := peft.Load(s, dir, m)
		if err != nil {
			return err
		}
		defer method.Close()
		if n := method.Notes(); len(n) != 1 || !strings.Contains(n[0], `bias is "lora_only", but 6 biases are not in the file`) {
			t.Errorf("notes: %q", n)
		}
		return nil
	})
}

// TestTunedBiasesAreKept: a folder of peft with biases, saved and converted by us, is as it was.
func TestTunedBiasesAreKept(t *testing.T) {
	for _, fixture := range []string{"peft/distilbert-seqcls-lora-bias", "peft/distilbert-seqcls-lora-bias-few"} {
		g := modeltest.OpenGolden(t, fixture+"/golden.safetensors")
		f := baseOf(t, fixture)
		f.batch = "padded"
		dir := filepath.Join(t.TempDir(), "adapter")
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := f.load(t, s)
			defer m.Close()
			src := modeltest.Testdata(t, fixture)
			method, err := peft.Load(s, src, m)
			if err != nil {
				return err
			}
			if err := method.Save(s, dir, m); err != nil {
				return err
			}
			method.Close()
			if method, err = peft.Load(s, dir, m); err != nil {
				return err
			}
			closeTo(t, s, 1e-5, fixture, logits(s, m, f.input(g, s)), g.Tensor(s, "padded.logits"))
			method.Close()
			if err := peft.Convert(s, src, dir+"-peft", peft.DialectPeft, m); err != nil {
				return err
			}
			theirs, ours := settings(t, src), settings(t, dir+"-peft")
			if ours["bias"] != theirs["bias"] || !cmp.Equal(ours["modules_to_save"], []any{"pre_classifier", "classifier"}) {
				t.Errorf("bias %v, modules_to_save %v", ours["bias"], ours["modules_to_save"])
			}
			keys := func(dir string) (names []string) {
				a, err := files.OpenSafetensors(filepath.Join(dir, "adapter_model.safetensors"))
				if err != nil {
					t.Fatal(err)
				}
				defer a.Close()
				for _, e := range a.Entries() {
					if !strings.Contains(e.Name, ".original_module.") && !strings.Contains(e.Name, ".modules_to_save.") {
						names = append(names, e.Name)
					}
				}
				slices.Sort(names)
				return names
			}
			if diff := cmp.Diff(keys(src), keys(dir+"-peft")); diff != "" {
				t.Errorf("keys (-peft's +ours):\n%s", diff)
			}
			return nil
		})
	}
}
