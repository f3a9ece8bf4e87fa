package peft_test

import (
	"hash/fnv"
	"path/filepath"
	"slices"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// family is a model that every method is tried on.
type family struct {
	name, folder, batch string
	classify            bool
	biased              bool // every linear map of the blocks has a bias
	as                  string
}

var families = []family{
	{name: "distilbert-seqcls", folder: "distilbert/tiny", batch: "padded", classify: true, biased: true},
	{name: "llama-seqcls", folder: "llama/seqcls", batch: "right", classify: true},
	{name: "llama-causal", folder: "llama/base", batch: "right"},
	{name: "gqa-causal", folder: "llama/gqa", batch: "right"},
	{name: "biased-causal", folder: "llama/biases", batch: "left", biased: true},
	{name: "bert-seqcls", folder: "bert/tiny", batch: "padded", classify: true, biased: true},
	{name: "roberta-seqcls", folder: "roberta/tiny", batch: "left", classify: true, biased: true},
	{name: "qwen3-seqcls", folder: "qwen3/seqcls", batch: "right", classify: true},
	{name: "qwen3-causal", folder: "qwen3/base", batch: "right"},
	{name: "gpt2-seqcls", folder: "gpt2/seqcls", batch: "right", classify: true, biased: true},
	{name: "gpt2-causal", folder: "gpt2/base", batch: "left", biased: true},
	{name: "phi3-causal", folder: "phi3/base", batch: "right"},
	{name: "olmo2-causal", folder: "olmo2/base", batch: "right"},
	{name: "smollm3-causal", folder: "smollm3/base", batch: "right"},
	{name: "granite-causal", folder: "granite/base", batch: "right"},
	{name: "gemma2-causal", folder: "gemma2/base", batch: "right"},
	{name: "gemma3-causal", folder: "gemma3/base", batch: "right"},
}

// load gives the family's model without dropout.
func (f family) load(t testing.TB, s *bindings.Scope) model.Model {
	t.Helper()
	zero := 0.0
	return f.loadWith(t, s, model.Options{Dropout: &zero})
}

func (f family) loadWith(t testing.TB, s *bindings.Scope, o model.Options) model.Model {
	t.Helper()
	o.Classify, o.As = f.classify, f.as
	m, err := model.Load(s, modeltest.Testdata(t, f.folder), o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (f family) input(g *modeltest.Golden, s *bindings.Scope) model.Input {
	return model.Input{IDs: g.Tensor(s, f.batch+".input_ids"), Mask: g.Tensor(s, f.batch+".attention_mask")}
}

// logits are a classifier's, or a language model's at real tokens and zero elsewhere.
func logits(s *bindings.Scope, m model.Model, in model.Input) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		out := m.Forward(s, in)
		if len(m.Labels()) > 0 {
			return m.Classify(s, in, out)
		}
		l := m.(model.CausalLM).Logits(s, s.From(out.Hidden, 1, int64(out.Virtual)))
		return s.Mul(l, s.To(s.Unsqueeze(in.Mask, -1), bindings.Float))
	})
}

// loss is cross-entropy as transformers computes it.
func loss(s *bindings.Scope, m model.Model, in model.Input, labels bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		l := logits(s, m, in)
		if len(m.Labels()) == 0 {
			n := l.Size(1)
			l = s.Reshape(s.Narrow(l, 1, 0, n-1), -1, l.Size(2))
			labels = s.Reshape(s.Narrow(labels, 1, 1, n-1), -1)
		}
		return s.CrossEntropy(l, labels, -100, true)
	})
}

// trainer takes Adam steps on one batch.
type trainer struct {
	ps             []*model.Param
	t, g, m, v, at []bindings.Tensor
	lr             float64
}

func newTrainer(s *bindings.Scope, ps []*model.Param, lr float64) *trainer {
	o := &trainer{ps: ps, lr: lr}
	for _, p := range ps {
		o.t = append(o.t, p.T)
		o.m = append(o.m, s.Zeros(p.T.Shape(), p.T.DType(), p.T.Device()))
		o.v = append(o.v, s.Zeros(p.T.Shape(), p.T.DType(), p.T.Device()))
		o.at = append(o.at, s.Zeros(nil, bindings.Float, p.T.Device()))
	}
	return o
}

// backward computes the gradients and returns the loss.
func (o *trainer) backward(s *bindings.Scope, m model.Model, in model.Input, labels bindings.Tensor) float64 {
	for _, p := range o.ps {
		s.SetGrad(p.T, bindings.Tensor{})
	}
	l := loss(s, m, in, labels)
	s.Backward(l)
	o.g = nil
	for _, p := range o.ps {
		o.g = append(o.g, s.Grad(p.T))
	}
	return l.Item()
}

func (o *trainer) step(s *bindings.Scope) {
	s.NoGrad(func() {
		for _, at := range o.at {
			s.AddInPlace(at, s.Scalar(1, bindings.Float, at.Device()), 1)
		}
		s.AdamStep(o.t, o.g, o.m, o.v, o.at, bindings.AdamOptions{LR: o.lr, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8})
	})
}

// measured is the loss without gradients.
func measured(s *bindings.Scope, m model.Model, in model.Input, labels bindings.Tensor) (l float64) {
	s.NoGrad(func() { l = loss(s, m, in, labels).Item() })
	return l
}

// firstStep checks the gradients that the parameters have.
func firstStep(s *bindings.Scope, method peft.Method, m model.Model) error {
	return peft.CheckFirstStep(s, method.Trainable(m), func(p *model.Param) bindings.Tensor { return s.Grad(p.T) }, method.Silent)
}

func checksum(ts ...bindings.Tensor) uint64 {
	h := fnv.New64a()
	for _, t := range ts {
		_, _ = h.Write(t.Raw())
	}
	return h.Sum64()
}

// TestProofs runs what every method promises on every family: design's seven proofs, but for the sixth, which
// the tests against fixtures hold.
func TestProofs(t *testing.T) {
	for _, f := range families {
		g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
		for _, v := range variants {
			t.Run(f.name+"/"+v.name, func(t *testing.T) { prove(t, f, g, v) })
		}
	}
}

func prove(t *testing.T, f family, g *modeltest.Golden, v variant) {
	dir := filepath.Join(t.TempDir(), "adapter")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		s.Seed(7)
		m := f.load(t, s)
		defer m.Close()
		in, labels := f.input(g, s), g.Tensor(s, f.batch+".labels")
		base := logits(s, m, in)
		method, err := peft.New(v.method, v.o)
		if err != nil {
			return err
		}
		if err := method.Attach(s, m); err != nil {
			return err
		}
		defer method.Close()

		// 1. The start.
		start := logits(s, m, in)
		if v.neutral {
			modeltest.Close(t, "logits at the start", start, base, map[bool]float64{false: 2e-6, true: 1e-5}[v.rounded])
		} else if modeltest.MaxDiff(start, base) == 0 {
			t.Error("the method changes nothing")
		}

		// 2. What is trainable.
		trainable := method.Trainable(m)
		checkCount(t, f, v, m, method)
		checkNames(t, f, v, m, method, trainable)

		// 3. Training moves all of it and nothing else.
		var frozen []bindings.Tensor
		for _, p := range m.Params().All() {
			if !p.Trainable {
				frozen = append(frozen, p.T)
			}
		}
		before := checksum(frozen...)
		sums := make([]uint64, len(trainable))
		for i, p := range trainable {
			sums[i] = checksum(p.T)
		}
		// The loss is measured without dropout: with it, two passes of the same weights differ by chance.
		first := measured(s, m, in, labels)
		in.Train = true
		tr := newTrainer(s, trainable, 1e-2)
		tr.backward(s, m, in, labels)
		if err := firstStep(s, method, m); err != nil {
			t.Error(err)
		}
		for range 4 {
			tr.step(s)
			tr.backward(s, m, in, labels)
		}
		in.Train = false
		if last := measured(s, m, in, labels); !(last < first) {
			t.Errorf("the loss went from %g to %g", first, last)
		}
		if checksum(frozen...) != before {
			t.Error("a frozen weight has changed")
		}
		for i, p := range trainable {
			if checksum(p.T) == sums[i] && !method.Silent(p.Name) {
				t.Errorf("%s has not moved", p.Name)
			}
		}

		// 5. Saved and loaded. (4, detaching, comes between.)
		trained := logits(s, m, in)
		if err := method.Save(s, dir, m); err != nil {
			return err
		}
		method.Detach()
		if v.method != "full" {
			if d := modeltest.MaxDiff(logits(s, m, in), base); d != 0 {
				t.Errorf("detached, the model differs from the base by %g", d)
			}
			if len(m.Params().Trainable()) != 0 || m.Hooks().Method != "" {
				t.Error("something stays trainable or attached after Detach")
			}
			if err := method.Attach(s, m); err != nil {
				return err
			}
			modeltest.Close(t, "logits attached again", logits(s, m, in), trained, 0)
		}
		method.Close()

		other := f.load(t, s)
		defer other.Close()
		info, err := peft.Probe(dir)
		if err != nil {
			return err
		}
		if want := len(m.Labels()); info.NumLabels != want {
			t.Errorf("the folder tells of %d labels, want %d", info.NumLabels, want)
		}
		refusesRenamedKeys(t, s, dir, other)
		back, err := peft.Load(s, dir, other)
		if err != nil {
			return err
		}
		defer back.Close()
		if n := back.Notes(); len(n) > 0 {
			t.Errorf("notes: %v", n)
		}
		if !slices.Equal(back.Labels(), m.Labels()) || (v.method != "last" && back.Name() != v.method) {
			t.Errorf("loaded as %s with labels %v", back.Name(), back.Labels())
		}
		modeltest.Close(t, "logits after loading", logits(s, other, in), trained, 2e-6)
		return nil
	})
}

func TestCountsOfTheLiterature(t *testing.T) {
	llama7B := model.Info{Family: "llama", Vocab: 32000, Hidden: 4096, Layers: 32, Heads: 32, KVHeads: 32, HeadDim: 128, FFN: 11008}
	distil := model.Info{Family: "distilbert", Vocab: 30522, Hidden: 768, Layers: 6, Heads: 12, KVHeads: 12, HeadDim: 64, FFN: 3072}
	norms := int64((2*32 + 1) * 4096)
	for _, c := range []struct {
		method string
		o      peft.Options
		info   model.Info
		plus   int64
		want   int64
	}{
		{"llama-adapter", peft.Options{}, llama7B, 0, 1229760},
		{"llama-adapter-v2", peft.Options{}, llama7B, norms, 4279744},
		{"lora", peft.Options{}, llama7B, 0, 4194304},
		{"houlsby", peft.Options{BottleneckOptions: peft.BottleneckOptions{Bottleneck: 32}}, distil, 0, 599424},
	} {
		if n, err := peft.Count(c.method, c.o, c.info); err != nil || n+c.plus != c.want {
			t.Errorf("%s: %d (%v), want %d", c.method, n+c.plus, err, c.want)
		}
	}
	// The worked example: one adapter from 1024 to 24 and back holds 49,152 weights, and 24 + 1024 biases.
	one := model.Info{Family: "distilbert", Hidden: 1024, Layers: 1, Heads: 16, KVHeads: 16, HeadDim: 64, FFN: 4096}
	if n, err := peft.Count("pfeiffer", peft.Options{BottleneckOptions: peft.BottleneckOptions{Bottleneck: 24}}, one); err != nil || n != 49152+24+1024 {
		t.Errorf("an adapter of 1024 → 24 → 1024 has %d (%v)", n, err)
	}
}
