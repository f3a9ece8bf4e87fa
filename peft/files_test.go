package peft_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/hf/files"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// copyFolder copies a folder's files.
func copyFolder(t *testing.T, from string) string {
	t.Helper()
	dir := t.TempDir()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, e.Name()), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// rewrite changes the tensors of a safetensors file.
func rewrite(t *testing.T, path string, change func([]files.Tensor) []files.Tensor) {
	t.Helper()
	rewriteAs(t, path, path, change)
}

// rewriteAs writes the tensors of a weights file, changed, to a safetensors file.
func rewriteAs(t *testing.T, path, to string, change func([]files.Tensor) []files.Tensor) {
	t.Helper()
	a, err := files.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var ts []files.Tensor
	for _, e := range a.Entries() {
		ts = append(ts, files.Tensor{Name: e.Name, DType: e.DType, Shape: e.Shape, Data: bytes.Clone(e.Data)})
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := files.WriteSafetensors(to, change(ts), nil); err != nil {
		t.Fatal(err)
	}
}

func edit(t *testing.T, path string, change func(map[string]any)) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]any{}
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	change(m)
	if raw, err = json.Marshal(m); err == nil {
		err = os.WriteFile(path, raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func rename(from, to string) func([]files.Tensor) []files.Tensor {
	return func(ts []files.Tensor) []files.Tensor {
		for i := range ts {
			ts[i].Name = strings.Replace(ts[i].Name, from, to, 1)
		}
		return ts
	}
}

func TestBrokenAdaptersAreNamed(t *testing.T) {
	config := func(change func(map[string]any)) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { edit(t, filepath.Join(dir, "adapter_config.json"), change) }
	}
	set := func(key string, v any) func(t *testing.T, dir string) {
		return config(func(m map[string]any) { m[key] = v })
	}
	inner := func(key string, v any) func(t *testing.T, dir string) {
		return config(func(m map[string]any) { m["config"].(map[string]any)[key] = v })
	}
	weights := func(name string, change func([]files.Tensor) []files.Tensor) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { rewrite(t, filepath.Join(dir, name), change) }
	}
	const peftFile, hubFile = "adapter_model.safetensors", "adapter.safetensors"
	for _, c := range []struct {
		name, fixture string
		change        func(t *testing.T, dir string)
		want          string
	}{
		{"renamed key", "peft/distilbert-seqcls-lora", weights(peftFile, rename("layer.0.attention.q_lin.lora_A", "layer.0.attention.q_lin.lora_X")),
			"1 missing (base_model.model.distilbert.transformer.layer.0.attention.q_lin.lora_A.weight); 1 unexpected (base_model.model.distilbert.transformer.layer.0.attention.q_lin.lora_X.weight)"},
		{"no head", "peft/distilbert-seqcls-lora", weights(peftFile, func(ts []files.Tensor) []files.Tensor {
			return slicesDelete(ts, func(f files.Tensor) bool { return strings.Contains(f.Name, "classifier") })
		}), "missing (base_model.model.pre_classifier.weight, "},
		{"another rank", "peft/distilbert-seqcls-lora", set("r", 3), "of the wrong shape"},
		{"shape", "peft/gqa-causal-prefix", set("num_virtual_tokens", 6), "prompt_embeddings is [5 32], want [6 32]"},
		{"layers", "peft/gqa-causal-prefix", set("num_layers", 5), "trained on a model with 5 layers, this one has 2"},
		{"width", "peft/llama-causal-prompt", set("token_dim", 17), "hidden size 17, this one has 16"},
		{"width of keys", "peft/gqa-causal-prefix", set("token_dim", 16), "keys and values of 16, this one has 8"},
		{"more layers than the model", "peft/llama-causal-adaption", set("adapter_layers", 9), "adapter-layers is 9"},
		{"fewer layers", "peft/llama-causal-adaption", set("adapter_layers", 1), "unexpected"},
		{"unknown type", "peft/llama-causal-lora", set("peft_type", "POLY"), `peft_type "POLY" is not supported`},
		{"wrong type of field", "peft/llama-causal-lora", set("r", "x"), "adapter_config.json"},
		{"huge rank", "peft/llama-causal-lora", set("r", 1<<40), "rank is"},
		{"no such target", "peft/llama-causal-lora", set("target_modules", []string{"c_attn"}), "name no linear map"},
		{"no alpha", "peft/llama-causal-lora", set("lora_alpha", 0), "lora_alpha is 0"},
		{"bad pattern", "peft/llama-causal-lora", set("target_modules", "(("), "target_modules"},
		{"pissa from a random start", "peft/llama-causal-lora", set("init_lora_weights", "pissa_niter_4"), "begins at random"},
		{"loftq", "peft/llama-causal-lora", set("init_lora_weights", "loftq"), "changes the base model's weights"},
		{"bias", "peft/llama-causal-lora", set("bias", "some"), `bias "some" is not supported (none, all, lora_only)`},
		{"replication", "peft/llama-causal-lora", set("layer_replication", []any{[]int{0, 1}}), "layer_replication is not supported"},
		{"a token of no vocabulary", "peft/llama-causal-lora-tokens", set("trainable_token_indices", []int{3, 7, 11, 99}), "token 99 is not in a vocabulary of 48"},
		{"a token twice", "peft/llama-causal-lora-tokens", set("trainable_token_indices", []int{3, 7, 7, 20}), "token 7 is given twice"},
		{"tokens of no table", "peft/llama-causal-lora-tokens", set("trainable_token_indices", map[string]any{"lm_tail": []int{3}}),
			"trainable_token_indices of lm_tail are not supported (model.embed_tokens, lm_head)"},
		{"tokens beside IA3", "peft/llama-causal-ia3", set("trainable_token_indices", []int{3}), "beside LoRA alone"},
		{"another base's table", "peft/llama-causal-lora-embedding", weights(peftFile, func(ts []files.Tensor) []files.Tensor {
			for _, x := range ts {
				if strings.HasSuffix(x.Name, "embed_tokens.base_layer.weight") {
					x.Data[7] ^= 1 // of the second number's sign and exponent
				}
			}
			return ts
		}), "embed_tokens.base_layer.weight is not the base model's"},
		{"tied by peft", "peft/tied-causal-lora-embedding", set("ensure_weight_tying", true), "ensure_weight_tying of model.embed_tokens is not supported"},
		{"VeRA's matrices not saved", "peft/llama-causal-vera", set("save_projection", false), "save_projection is false"},
		{"VeRA's matrices gone", "peft/llama-causal-vera", weights(peftFile, func(ts []files.Tensor) []files.Tensor {
			return slicesDelete(ts, func(f files.Tensor) bool { return strings.HasSuffix(f.Name, "vera_A") })
		}), "1 missing (base_model.vera_A)"},
		{"AdaLoRA of no rank", "peft/llama-causal-adalora", weights(peftFile, func(ts []files.Tensor) []files.Tensor {
			for i, x := range ts {
				if strings.HasSuffix(x.Name, ".lora_A") {
					ts[i].Shape, ts[i].Data = []int64{0, 16}, nil
				}
			}
			return ts
		}), "no map has a rank above 0"},
		{"a type that is known", "peft/llama-causal-lora", set("peft_type", "LOHA"), `peft_type "LOHA" is not supported (Hadamard products of low-rank matrices)`},
		{"OFT with an inverse", "peft/llama-causal-oft", set("use_cayley_neumann", false), "OFT with an exact inverse is not supported"},
		{"OFT held near", "peft/llama-causal-oft", set("coft", true), "coft is not supported"},
		{"norms of no name", "peft/llama-causal-norms", set("target_modules", []string{"q_proj"}), "target_modules name no norm"},
		{"neither dialect", "peft/llama-causal-lora", config(func(m map[string]any) { delete(m, "peft_type") }), "not an adapter"},
		{"broken json", "peft/llama-causal-lora", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "adapter_config.json"), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "adapter_config.json"},
		{"no weights", "peft/llama-causal-lora", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, peftFile)); err != nil {
				t.Fatal(err)
			}
		}, "adapter_model"},
		{"cut weights", "peft/llama-causal-lora", func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, peftFile), 700); err != nil {
				t.Fatal(err)
			}
		}, "adapter_model.safetensors"},
		{"hub key", "adapterhub/distilbert-houlsby", weights(hubFile, rename("layer.1.output_adapters", "layer.7.output_adapters")), "unexpected (distilbert.transformer.layer.7.output_adapters"},
		{"hub width", "adapterhub/distilbert-houlsby", set("hidden_size", 32), "hidden size 32, this one has 16"},
		{"hub parallel", "adapterhub/distilbert-houlsby", inner("is_parallel", true), "is_parallel is not supported"},
		{"hub activation", "adapterhub/distilbert-houlsby", inner("non_linearity", "glu"), `activation "glu"`},
		{"hub nowhere", "adapterhub/distilbert-houlsby", config(func(m map[string]any) {
			m["config"].(map[string]any)["mh_adapter"], m["config"].(map[string]any)["output_adapter"] = false, false
		}), "neither mh_adapter nor output_adapter"},
		{"hub name", "adapterhub/distilbert-houlsby", set("name", ""), "name"},
		{"hub prefix length", "adapterhub/distilbert-prefix", inner("prefix_length", 1<<40), "prefix_length"},
		{"hub head labels", "adapterhub/distilbert-houlsby", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "head_config.json"), func(m map[string]any) { m["label2id"] = map[string]int{"a": 0, "b": 0, "c": 5} })
		}, "label2id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copyFolder(t, modeltest.Testdata(t, c.fixture))
			c.change(t, dir)
			loadFails(t, baseOf(t, c.fixture), dir, c.want)
		})
	}
}

// TestLoRAWithoutRankAndAlphaHasPeftsDefaults: 8 and 8, a scale of 1.
func TestLoRAWithoutRankAndAlphaHasPeftsDefaults(t *testing.T) {
	f := families[2]
	g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
	dir, bare := filepath.Join(t.TempDir(), "adapter"), ""
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := f.load(t, s)
		defer m.Close()
		method := shaken(t, s, "lora", peft.Options{LoRAOptions: peft.LoRAOptions{Rank: 8, Alpha: 8}}, m, 0.1)
		in := f.input(g, s)
		want := logits(s, m, in)
		if err := method.Save(s, dir, m); err != nil {
			return err
		}
		method.Close()
		bare = copyFolder(t, dir)
		if err := os.Remove(filepath.Join(bare, "gopeft.yaml")); err != nil {
			return err
		}
		edit(t, filepath.Join(bare, "adapter_config.json"), func(m map[string]any) {
			delete(m, "r")
			delete(m, "lora_alpha")
		})
		back, err := peft.Load(s, bare, m)
		if err != nil {
			return err
		}
		defer back.Close()
		modeltest.Close(t, "logits", logits(s, m, in), want, 0)
		return nil
	})
}

// TestWholeModelOverAHeadlessBase: what full saved, head and label names with it, over the checkpoint it began from.
func TestWholeModelOverAHeadlessBase(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "model")
	g := modeltest.OpenGolden(t, families[0].folder+"/golden.safetensors")
	load := func(s *bindings.Scope, labels ...string) (model.Model, error) {
		zero := 0.0
		return model.Load(s, modeltest.Testdata(t, "distilbert/tiny-mlm"), model.Options{Classify: true, Labels: labels, Dropout: &zero})
	}
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m, err := load(s, "bad", "good")
		if err != nil {
			return err
		}
		defer m.Close()
		method := shaken(t, s, "full", peft.Options{}, m, 0.1)
		in := families[0].input(g, s)
		want := logits(s, m, in)
		if err := method.Save(s, dir, m); err != nil {
			return err
		}
		method.Close()
		info, err := peft.Probe(dir)
		if err != nil {
			return err
		}
		if got := strings.Join(info.HeadLabels([]string{"LABEL_0", "LABEL_1"}), " "); got != "bad good" {
			t.Errorf("labels %s", got)
		}
		bare, err := load(s, info.HeadLabels(nil)...)
		if err != nil {
			return err
		}
		defer bare.Close()
		back, err := peft.Load(s, dir, bare)
		if err != nil {
			return err
		}
		defer back.Close()
		modeltest.Close(t, "logits", logits(s, bare, in), want, 0)
		return nil
	})
}

func slicesDelete(ts []files.Tensor, drop func(files.Tensor) bool) []files.Tensor {
	var out []files.Tensor
	for _, x := range ts {
		if !drop(x) {
			out = append(out, x)
		}
	}
	return out
}

// loadFails checks that an adapter is refused in one line, that the model is as it was, and that nothing leaks.
func loadFails(t *testing.T, f family, path, want string) {
	t.Helper()
	base := bindings.Live()
	var before, after uint64
	err := bindings.Do(context.Background(), func(s *bindings.Scope) error {
		m := f.load(t, s)
		defer m.Close()
		before = checksumOf(m)
		_, err := peft.Load(s, path, m)
		after = checksumOf(m)
		if m.Hooks().Method != "" || len(m.Params().Trainable()) > 0 {
			t.Error("something is attached after a failed load")
		}
		return err
	})
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want one line with %q", err, want)
	}
	if before != after {
		t.Error("a failed load changed the model")
	}
	if n := bindings.Live() - base; n != 0 {
		t.Errorf("%d tensors left alive", n)
	}
}

func checksumOf(m model.Model) uint64 {
	var ts []bindings.Tensor
	for _, p := range m.Params().All() {
		ts = append(ts, p.T)
	}
	return checksum(ts...)
}

func TestAnotherBaseIsSaid(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "adapter")
	save := func(f family) {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := f.load(t, s)
			defer m.Close()
			method := shaken(t, s, "lora", peft.Options{Base: "some/base"}, m, 0.1)
			defer method.Close()
			return method.Save(s, dir, m)
		})
	}
	save(families[2])
	loadFails(t, families[3], dir, "number of layers 3, this one has 2")
	loadFails(t, families[0], dir, "architecture llama, this one has distilbert")
	// The same shape with other weights is allowed, with a remark.
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := families[2].load(t, s)
		defer m.Close()
		s.NoGrad(func() { s.MulScalarInPlace(m.Hooks().Words.T, 1.1) })
		method, err := peft.Load(s, dir, m)
		if err != nil {
			return err
		}
		defer method.Close()
		if n := method.Notes(); len(n) != 1 || !strings.Contains(n[0], "some/base") {
			t.Errorf("notes: %v", n)
		}
		return nil
	})
	// A bf16 copy of the same weights is the same base.
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m, err := model.Load(s, modeltest.Testdata(t, "llama/base"), model.Options{DType: bindings.BFloat16})
		if err != nil {
			return err
		}
		defer m.Close()
		method, err := peft.Load(s, dir, m)
		if err != nil {
			return err
		}
		defer method.Close()
		if n := method.Notes(); len(n) != 0 {
			t.Errorf("notes: %v", n)
		}
		return nil
	})
}

// TestAnotherBaseOfOthersAdaptersIsSaid: they record a name only, which is compared with what the model is called.
func TestAnotherBaseOfOthersAdaptersIsSaid(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "models--Some--Base-7B", "snapshots", "0123abcd")
	plain := filepath.Join(t.TempDir(), "base-7b")
	for _, dir := range []string{cache, plain} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(dir, os.DirFS(modeltest.Testdata(t, "llama/base"))); err != nil {
			t.Fatal(err)
		}
	}
	called := func(name string) string {
		dir := filepath.Join(t.TempDir(), "finetune")
		if err := os.CopyFS(dir, os.DirFS(plain)); err != nil {
			t.Fatal(err)
		}
		edit(t, filepath.Join(dir, "config.json"), func(c map[string]any) { c["_name_or_path"] = name })
		return dir
	}
	for _, c := range []struct {
		model, recorded string
		said            bool
	}{
		{plain, "Some/Base-7B", false}, {plain, "base-7B", false}, {plain, "/models/Base-7B/", false}, {plain, "", false},
		{plain, "Some/Base-13B", true}, {plain, "base-7b/other", true},
		{cache, "Some/Base-7B", false}, {cache, "Else/Base-7B", false}, {cache, "Some/Base", true},
		{called("Some/Base-7B"), "Some/Base-7B", false}, {called("Some/Base-7B"), "some/finetune", false}, {called("Some/Base-7B"), "Some/Base-13B", true},
		{plain, cache, false},
	} {
		adapter := copyFolder(t, modeltest.Testdata(t, "peft/llama-causal-lora"))
		edit(t, filepath.Join(adapter, "adapter_config.json"), func(m map[string]any) { m["base_model_name_or_path"] = c.recorded })
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m, err := model.Load(s, c.model, model.Options{})
			if err != nil {
				return err
			}
			defer m.Close()
			method, err := peft.Load(s, adapter, m)
			if err != nil {
				return err
			}
			defer method.Close()
			n := method.Notes()
			if c.said != (len(n) == 1) || c.said && !strings.Contains(n[0], "was trained on the base model "+c.recorded+"; this one is "+c.model) {
				t.Errorf("trained on %q, used on %s: %q", c.recorded, c.model, n)
			}
			return nil
		})
	}
	// AdapterHub's folders name it elsewhere.
	hub := copyFolder(t, modeltest.Testdata(t, "adapterhub/distilbert-houlsby"))
	edit(t, filepath.Join(hub, "adapter_config.json"), func(m map[string]any) { m["model_name"] = "distilbert-base-uncased" })
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := families[0].load(t, s)
		defer m.Close()
		method, err := peft.Load(s, hub, m)
		if err != nil {
			return err
		}
		defer method.Close()
		if n := method.Notes(); len(n) != 1 || !strings.Contains(n[0], "distilbert-base-uncased") {
			t.Errorf("notes: %q", n)
		}
		return nil
	})
}

func TestLabelsOfAnAdapterMayDiffer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "adapter")
	f := families[0]
	g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
	for _, name := range []string{"lora", "houlsby"} {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m, err := model.Load(s, modeltest.Testdata(t, f.folder), model.Options{Classify: true, Labels: []string{"bad", "so-so", "good", "great"}})
			if err != nil {
				return err
			}
			defer m.Close()
			method := shaken(t, s, name, peft.Options{}, m, 0.1)
			defer method.Close()
			in := f.input(g, s)
			want := logits(s, m, in)
			if err := method.Save(s, dir, m); err != nil {
				return err
			}
			info, err := peft.Probe(dir)
			if err != nil {
				return err
			}
			if info.NumLabels != 4 || strings.Join(info.HeadLabels(nil), " ") != "bad so-so good great" {
				t.Errorf("%s: %d labels, %v", name, info.NumLabels, info.Labels)
			}
			three := f.load(t, s)
			defer three.Close()
			before := logits(s, three, in)
			back, err := peft.Load(s, dir, three)
			if err != nil {
				return err
			}
			modeltest.Close(t, name, logits(s, three, in), want, 2e-6)
			if strings.Join(back.Labels(), " ") != "bad so-so good great" {
				t.Errorf("labels: %v", back.Labels())
			}
			back.Close()
			modeltest.Close(t, "three labels again", logits(s, three, in), before, 0)
			return nil
		})
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}
