package peft_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/fsutil"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// bases are the models that fixtures' adapters belong to.
var bases = map[string]string{
	"llama-seqcls": "llama/seqcls", "llama-causal": "llama/base", "gqa-causal": "llama/gqa", "biased-causal": "llama/biases", "tied-causal": "llama/tied",
	"gpt2-causal": "gpt2/base", "gpt2-seqcls": "gpt2/seqcls", "qwen3-causal": "qwen3/base", "phi3-causal": "phi3/base",
	"distilbert-": "distilbert/tiny", "bert-": "bert/tiny", "roberta-": "roberta/tiny",
}

func baseOf(t *testing.T, fixture string) family {
	t.Helper()
	name := filepath.Base(fixture)
	for prefix, folder := range bases {
		if strings.HasPrefix(name, prefix) {
			return family{folder: folder, classify: !strings.Contains(name, "causal")}
		}
	}
	t.Fatalf("no base for %s", fixture)
	return family{}
}

func fixtures(t *testing.T, top string) []string {
	t.Helper()
	entries, err := os.ReadDir(modeltest.Testdata(t, top))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, top+"/"+e.Name())
		}
	}
	return out
}

// fileKeys gives the names that fixtures may know a parameter by.
func fileKeys(fixture, name string) []string {
	if strings.HasPrefix(fixture, "adapterhub") {
		out := []string{name}
		for _, sites := range [][2]string{{".attention_adapters.", ".output_adapters."}, {".attention.output.", ".output."}} {
			renamed := strings.Replace(name, ".attention_adapters.", sites[0]+"adapters.imdb.", 1)
			out = append(out, strings.Replace(renamed, ".output_adapters.", sites[1]+"adapters.imdb.", 1))
		}
		family, _, _ := strings.Cut(filepath.Base(fixture), "-")
		pool, ok := map[string]string{"distilbert": "distilbert.transformer.layer.0.attention.prefix_tuning.pool.prefix_tunings.imdb.self.",
			"bert":    "bert.encoder.layer.0.attention.self.prefix_tuning.pool.prefix_tunings.imdb.self_prefix.",
			"roberta": "roberta.encoder.layer.0.attention.self.prefix_tuning.pool.prefix_tunings.imdb.self_prefix.",
			"gpt2":    "transformer.h.0.attn.prefix_tuning.pool.prefix_tunings.imdb.self_prefix."}[family]
		if !ok {
			pool = "model.layers.0.self_attn.prefix_tuning.pool.prefix_tunings.imdb.self_prefix."
		}
		for from, to := range map[string]string{"prompt_embeddings": "control_trans", "embedding.": "wte.", "transform.": "control_trans."} {
			if strings.HasPrefix(name, from) {
				out = append(out, pool+to+strings.TrimPrefix(name, from))
			}
		}
		return out
	}
	i := strings.LastIndex(name, ".") + 1
	return []string{name, "base_model.model." + name, "base_model." + name, "base_model.model." + name[:i] + "ln_tuning_layers." + name[i:]}
}

// golden finds what a fixture stores of a parameter ("grad", "step3" or "init"), in the parameter's shape.
func golden(t *testing.T, s *bindings.Scope, g *modeltest.Golden, fixture, what string, p *model.Param) bindings.Tensor {
	t.Helper()
	name, block := p.Name, int64(-1)
	// A projection's last layer is one tensor there and a tensor per block here.
	if rest, ok := strings.CutPrefix(name, "transform.2."); ok {
		var part string
		if _, err := fmt.Sscanf(rest, "%d.%s", &block, &part); err != nil {
			t.Fatal(err)
		}
		name = "transform.2." + part
	}
	// Parts of a map that files hold as one have vectors of their own here.
	if at := regexp.MustCompile(`\.(q|k|v)\.ia3_l$`).FindStringSubmatchIndex(name); at != nil {
		first := map[string][2]int64{"q": {0, 16}, "k": {16, 16}, "v": {32, 16}}
		if strings.HasPrefix(fixture, "peft/phi3") { // with 2 heads of keys and values
			first = map[string][2]int64{"q": {0, 16}, "k": {16, 8}, "v": {24, 8}}
		}
		rows := first[name[at[2]:at[3]]]
		v := g.Tensor(s, what+".base_model.model."+name[:at[0]]+".ia3_l")
		return s.Narrow(v, 0, rows[0], rows[1])
	}
	for _, key := range fileKeys(fixture, name) {
		if !g.Has(what + "." + key) {
			continue
		}
		v := g.Tensor(s, what+"."+key)
		if block >= 0 {
			n := p.T.Size(0)
			v = s.Narrow(v, 0, block*n, n)
		}
		return s.Reshape(v, p.T.Shape()...)
	}
	t.Fatalf("%s: no %s of %s", fixture, what, p.Name)
	return bindings.Tensor{}
}

// TestAdaptersOfPythonLibraries loads adapters that peft and adapters saved, and compares logits, losses,
// gradients and three optimizer steps with theirs.
func TestAdaptersOfPythonLibraries(t *testing.T) {
	for _, fixture := range slices.Concat(fixtures(t, "peft"), fixtures(t, "adapterhub"), fixtures(t, "adapterhub-0.2")) {
		t.Run(fixture, func(t *testing.T) {
			files := []string{"golden.safetensors"}
			if _, err := os.Stat(modeltest.Testdata(t, fixture+"/compat.safetensors")); err == nil {
				files = append(files, "compat.safetensors")
			}
			for _, file := range files {
				compareWithPython(t, fixture, file)
			}
		})
	}
}

func compareWithPython(t *testing.T, fixture, file string) {
	// The adapter saved as .bin is the other one's.
	g := modeltest.OpenGolden(t, strings.TrimSuffix(fixture, "lora-bin")+map[bool]string{true: "lora"}[strings.HasSuffix(fixture, "lora-bin")]+"/"+file)
	f := baseOf(t, fixture)
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := f.load(t, s)
		defer m.Close()
		dir := modeltest.Testdata(t, fixture)
		if file == "golden.safetensors" && fsutil.Exists(filepath.Join(dir, "compat.safetensors")) {
			dir = ours(t, dir, m)
		}
		method, err := peft.Load(s, dir, m)
		if err != nil {
			return err
		}
		defer func() { method.Close() }()
		sameOutputs(t, s, g, f, m)
		if !g.Has("loss.0") {
			return nil
		}
		if g.Has("init.embedding.weight") { // peft's files do not hold a prefix's projection
			method.Close()
			if method, err = projected(t, s, g, fixture, m); err != nil {
				return err
			}
		}
		ps := method.Trainable(m)
		if fixture == "peft/llama-seqcls-adaption" {
			ps = method.Params().All() // peft trains no head there
		}
		sameTraining(t, s, g, f, m, ps, func(what string, p *model.Param) bindings.Tensor { return golden(t, s, g, fixture, what, p) })
		return nil
	})
}

// ours is a copy of peft's prompts in the form that gopeft's have: what reads the real token.
func ours(t *testing.T, dir string, m model.Model) string {
	t.Helper()
	dir = copyFolder(t, dir)
	side := "method: prompt\nlabels: [" + strings.Join(m.Labels(), ", ") + "]\noptions:\n  virtual-tokens: 5\n"
	if err := os.WriteFile(filepath.Join(dir, "gopeft.yaml"), []byte(side), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// batchesOf are the batches of a fixture, and the one its training steps are taken on.
func batchesOf(g *modeltest.Golden) (batches []string, train string) {
	for _, b := range []string{"full", "left", "padded", "right"} {
		if g.Has(b + ".input_ids") {
			batches, train = append(batches, b), b
		}
	}
	return batches, train
}

// sameOutputs compares logits, losses and greedy tokens with a fixture's.
func sameOutputs(t *testing.T, s *bindings.Scope, g *modeltest.Golden, f family, m model.Model) {
	t.Helper()
	batches, _ := batchesOf(g)
	for _, b := range batches {
		f.batch = b
		in := f.input(g, s)
		closeTo(t, s, 1e-5, b+" logits", logits(s, m, in), g.Tensor(s, b+".logits"))
		closeTo(t, s, 1e-5, b+" loss", loss(s, m, in, g.Tensor(s, b+".labels")), g.Tensor(s, b+".loss"))
		if g.Has("generate." + b + ".new_ids") {
			want := g.Tensor(s, "generate."+b+".new_ids")
			got := greedy(s, m, in, int(want.Size(1)))
			if !slices.Equal(got, want.Int64s()) {
				t.Errorf("%s: generated %v, want %v", b, got, want.Int64s())
			}
		}
	}
}

// sameTraining compares the gradients of ps and three steps of Adam with a fixture's.
func sameTraining(t *testing.T, s *bindings.Scope, g *modeltest.Golden, f family, m model.Model, ps []*model.Param, want func(what string, p *model.Param) bindings.Tensor) {
	t.Helper()
	_, f.batch = batchesOf(g)
	in, labels := f.input(g, s), g.Tensor(s, f.batch+".labels")
	tr := newTrainer(s, ps, 1e-2)
	for step := range 4 {
		got := tr.backward(s, m, in, labels)
		modeltest.Close(t, fmt.Sprintf("loss %d", step), s.Scalar(got, bindings.Float, bindings.CPU), g.Tensor(s, fmt.Sprintf("loss.%d", step)), 1e-5)
		if step == 0 {
			for i, p := range ps {
				closeTo(t, s, 2e-5, "gradient of "+p.Name, tr.g[i], want("grad", p))
			}
		}
		if step < 3 {
			tr.step(s)
		}
	}
	for i, p := range ps {
		if s.Norm(tr.g[i:i+1]) < 1e-6 {
			continue // Adam moves it by chance
		}
		modeltest.Close(t, p.Name+" after three steps", p.T, want("step3", p), 1e-4)
	}
}

// closeTo allows tol, or tol times the largest number where that is above 1.
func closeTo(t *testing.T, s *bindings.Scope, tol float64, what string, got, want bindings.Tensor) {
	t.Helper()
	modeltest.Close(t, what, got, want, tol*max(1, s.MaxAll(s.Abs(want)).Item()))
}

// greedy continues the rows of a batch with a cache, row by row.
func greedy(s *bindings.Scope, m model.Model, in model.Input, n int) []int64 {
	var out []int64
	s.NoGrad(func() {
		cache := model.NewCache(s, 64)
		defer cache.Close()
		in.Cache = cache
		steps := make([][]int64, n)
		for i := range n {
			h := m.Forward(s, in).Hidden
			l := m.(model.CausalLM).Logits(s, s.Select(h, 1, h.Size(1)-1))
			next := s.ArgMax(l, -1)
			steps[i] = next.Int64s()
			in = model.Input{IDs: s.Unsqueeze(next, 1), Cache: cache}
		}
		for row := range steps[0] {
			for i := range n {
				out = append(out, steps[i][row])
			}
		}
	})
	return out
}

// projected makes a prefix with the projection that a fixture stores.
func projected(t *testing.T, s *bindings.Scope, g *modeltest.Golden, fixture string, m model.Model) (peft.Method, error) {
	method, err := peft.New("prefix", peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 5}, PrefixOptions: peft.PrefixOptions{PrefixProjection: true, PrefixHidden: 12}})
	if err != nil {
		return nil, err
	}
	if err := method.Attach(s, m); err != nil {
		return nil, err
	}
	s.NoGrad(func() {
		for _, p := range method.Trainable(m) {
			s.Copy(p.T, golden(t, s, g, fixture, "init", p))
		}
	})
	return method, nil
}
