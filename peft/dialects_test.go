package peft_test

import (
	"encoding/json"
	"os"
	"path/filepath"
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

// settings reads a folder's adapter_config.json.
func settings(t *testing.T, dir string) map[string]any {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "adapter_config.json"))
	c := map[string]any{}
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestAdaptionPromptsAreNamedAsPeftsOnlyWherePeftComputesThem, and folders that were all named so are read.
func TestAdaptionPromptsAreNamedAsPeftsOnlyWherePeftComputesThem(t *testing.T) {
	for _, c := range []struct {
		f    family
		o    peft.Options
		want string
	}{
		{families[2], peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{Gate: "layer"}}, "ADAPTION_PROMPT"},
		{families[3], peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{Gate: "layer"}}, "ADAPTION_PROMPT"},
		{families[1], peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{Gate: "layer"}}, "ADAPTION_PROMPT"},
		{families[2], peft.Options{}, "LLAMA_ADAPTER"},
		{families[2], peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{Gate: "layer", GateTanh: true}}, "LLAMA_ADAPTER"},
		{families[2], peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{Gate: "layer"}, Unfreeze: []string{"lm_head"}}, "LLAMA_ADAPTER"},
		{families[4], peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{Gate: "layer"}}, "LLAMA_ADAPTER"},
		{family{folder: "llama/qwen2", batch: "right"}, peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{Gate: "layer"}}, "LLAMA_ADAPTER"},
		{family{folder: "llama/head-dim", batch: "right"}, peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{Gate: "layer"}}, "LLAMA_ADAPTER"},
		{families[0], peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{Gate: "layer"}}, "LLAMA_ADAPTER"},
	} {
		g := modeltest.OpenGolden(t, c.f.folder+"/golden.safetensors")
		dir := filepath.Join(t.TempDir(), "adapter")
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := c.f.load(t, s)
			defer m.Close()
			method := shaken(t, s, "llama-adapter", c.o, m, 0.3)
			in := c.f.input(g, s)
			want := logits(s, m, in)
			if err := method.Save(s, dir, m); err != nil {
				return err
			}
			method.Close()
			if got := settings(t, dir)["peft_type"]; got != c.want {
				t.Errorf("%s %+v: saved as %v, want %s", c.f.folder, c.o, got, c.want)
			}
			for _, kind := range []string{c.want, "ADAPTION_PROMPT"} {
				edit(t, filepath.Join(dir, "adapter_config.json"), func(m map[string]any) { m["peft_type"] = kind })
				back, err := peft.Load(s, dir, m)
				if err != nil {
					return err
				}
				modeltest.Close(t, c.f.folder+" read as "+kind, logits(s, m, in), want, 2e-6)
				back.Close()
			}
			return nil
		})
	}
}

// TestModelsOfOneLayer: there a slot names one map only, and is written by the map's name all the same.
func TestModelsOfOneLayer(t *testing.T) {
	for _, f := range []family{families[0], families[2]} {
		raw, err := os.ReadFile(modeltest.Testdata(t, f.folder+"/config.json"))
		if err != nil {
			t.Fatal(err)
		}
		config := map[string]any{}
		if err := json.Unmarshal(raw, &config); err != nil {
			t.Fatal(err)
		}
		config["n_layers"], config["num_hidden_layers"] = 1, 1
		if raw, err = json.Marshal(config); err != nil {
			t.Fatal(err)
		}
		g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
		for _, c := range []struct {
			method string
			o      peft.Options
			want   string // the targets
		}{
			{"lora", peft.Options{}, map[bool]string{true: "q_lin v_lin", false: "q_proj v_proj"}[f.classify]},
			{"dora", peft.Options{TargetOptions: peft.TargetOptions{Targets: []string{"all"}}}, map[bool]string{true: "k_lin lin1 lin2 out_lin q_lin v_lin", false: "down_proj gate_proj k_proj o_proj q_proj up_proj v_proj"}[f.classify]},
			{"ia3", peft.Options{}, map[bool]string{true: "k_lin lin2 v_lin", false: "down_proj k_proj v_proj"}[f.classify]},
		} {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				s.Seed(3)
				m, err := model.New(s, raw, model.Options{Classify: f.classify})
				if err != nil {
					return err
				}
				defer m.Close()
				method := shaken(t, s, c.method, c.o, m, 0.3)
				in := f.input(g, s)
				want := logits(s, m, in)
				dir := filepath.Join(t.TempDir(), "adapter")
				if err := method.Save(s, dir, m); err != nil {
					return err
				}
				method.Close()
				var targets []string
				for _, name := range settings(t, dir)["target_modules"].([]any) {
					targets = append(targets, name.(string))
				}
				if got := strings.Join(targets, " "); got != c.want {
					t.Errorf("%s %s: targets are written as %s, want %s", f.name, c.method, got, c.want)
				}
				if method, err = peft.Load(s, dir, m); err != nil {
					return err
				}
				defer method.Close()
				modeltest.Close(t, f.name+" "+c.method, logits(s, m, in), want, 1e-6)
				return nil
			})
		}
	}
}

// TestFeedForwardModulesOfSomeLayers: IA3's settings of peft may scale the input of one layer's map and the output
// of another's; written again, they still do, by names that peft accepts.
func TestFeedForwardModulesOfSomeLayers(t *testing.T) {
	const one = "model.layers.1.mlp.down_proj"
	src := copyFolder(t, modeltest.Testdata(t, "peft/llama-causal-ia3"))
	edit(t, filepath.Join(src, "adapter_config.json"), func(m map[string]any) { m["feedforward_modules"] = ".*1.mlp.down_proj" })
	rewrite(t, filepath.Join(src, "adapter_model.safetensors"), func(ts []files.Tensor) []files.Tensor {
		for i, x := range ts {
			if strings.Contains(x.Name, "down_proj") && !strings.Contains(x.Name, ".1.") {
				ts[i].Shape, ts[i].Data = []int64{16, 1}, x.Data[:64]
			}
		}
		return ts
	})
	f := family{folder: "llama/base", batch: "right"}
	g := modeltest.OpenGolden(t, "llama/base/golden.safetensors")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := f.load(t, s)
		defer m.Close()
		method, err := peft.Load(s, src, m)
		if err != nil {
			return err
		}
		want := logits(s, m, f.input(g, s))
		dir := filepath.Join(t.TempDir(), "adapter")
		if err := method.Save(s, dir, m); err != nil {
			return err
		}
		method.Close()
		c := settings(t, dir)
		feed, targets := c["feedforward_modules"].([]any), c["target_modules"].([]any)
		if len(feed) != 1 || feed[0] != one || !slices.Contains(targets, any(one)) || slices.Contains(targets, any("down_proj")) {
			t.Errorf("of %v the inputs of %v are scaled", targets, feed)
		}
		if method, err = peft.Load(s, dir, m); err != nil {
			return err
		}
		defer method.Close()
		modeltest.Close(t, "logits", logits(s, m, f.input(g, s)), want, 1e-6)
		return nil
	})
}

// TestPromptsPooledAsPeftDoesConvert: what peft computes from them is what was trained.
func TestPromptsPooledAsPeftDoesConvert(t *testing.T) {
	for _, f := range families[:2] {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := f.load(t, s)
			defer m.Close()
			method := shaken(t, s, "prompt", peft.Options{PoolOptions: peft.PoolOptions{PeftCompat: true}}, m, 0.1)
			dir := filepath.Join(t.TempDir(), "adapter")
			if err := method.Save(s, dir, m); err != nil {
				return err
			}
			method.Close()
			if saved, ok := settings(t, dir)["modules_to_save"]; ok {
				t.Errorf("modules_to_save is %v: peft 0.11 takes none for prompts", saved)
			}
			return peft.Convert(s, dir, dir+"-peft", peft.DialectPeft, m)
		})
	}
}

// TestWhatWroteAFolderTellsHowItComputes: peft's prompts stay pooled as peft pools when gopeft saves them again, and its
// adaption prompts keep the bias that peft adds twice; what gopeft trains is refused where peft would compute otherwise.
func TestWhatWroteAFolderTellsHowItComputes(t *testing.T) {
	for fixture, kind := range map[string]string{"distilbert-seqcls-prompt": "PROMPT_TUNING", "llama-seqcls-prompt": "PROMPT_TUNING", "biased-causal-adaption": "ADAPTION_PROMPT"} {
		src := modeltest.Testdata(t, "peft/"+fixture)
		f := baseOf(t, src)
		f.batch = map[bool]string{true: "padded", false: "right"}[strings.HasPrefix(fixture, "distilbert")]
		g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := f.load(t, s)
			defer m.Close()
			in := f.input(g, s)
			dir := filepath.Join(t.TempDir(), "saved")
			method, err := peft.Load(s, src, m)
			if err != nil {
				return err
			}
			want := logits(s, m, in)
			if err := method.Save(s, dir, m); err != nil {
				return err
			}
			o := method.Options()
			method.Close()
			if got := settings(t, dir)["peft_type"]; got != kind {
				t.Errorf("%s: saved as %v", fixture, got)
			}
			if err := peft.Convert(s, dir, dir+"-peft", peft.DialectPeft, m); err != nil {
				return err
			}
			for _, again := range []string{dir, dir + "-peft"} {
				if method, err = peft.Load(s, again, m); err != nil {
					return err
				}
				modeltest.Close(t, again, logits(s, m, in), want, 0)
				method.Close()
			}
			o.PeftCompat, o.OutputBiasTwice = false, false
			name := map[string]string{"PROMPT_TUNING": "prompt", "ADAPTION_PROMPT": "llama-adapter"}[kind]
			method = shaken(t, s, name, o, m, 0.1)
			if err := method.Save(s, dir+"-own", m); err != nil {
				return err
			}
			method.Close()
			if err := peft.Convert(s, dir+"-own", dir+"-own-peft", peft.DialectPeft, m); err == nil || !strings.Contains(err.Error(), "peft") {
				t.Errorf("%s: our own in peft: %v", fixture, err)
			}
			if kind == "ADAPTION_PROMPT" {
				if err := peft.Convert(s, dir, dir+".bin", peft.DialectLitLLaMA, m); err == nil || !strings.Contains(err.Error(), "adds the bias of the output map twice") {
					t.Errorf("in lit-llama: %v", err)
				}
			}
			return nil
		})
	}
}
