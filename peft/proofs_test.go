package peft_test

import (
	"hash/fnv"
	"path/filepath"
	"slices"
	"strings"
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
}

var families = []family{
	{"distilbert-seqcls", "distilbert/tiny", "padded", true},
	{"llama-seqcls", "llama/seqcls", "right", true},
	{"llama-causal", "llama/base", "right", false},
	{"gqa-causal", "llama/gqa", "right", false},
	{"biased-causal", "llama/biases", "left", false},
}

func (f family) load(t testing.TB, s *bindings.Scope) model.Model {
	t.Helper()
	zero := 0.0
	m, err := model.Load(s, modeltest.Testdata(t, f.folder), model.Options{Classify: f.classify, Dropout: &zero})
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

func checksum(ts ...bindings.Tensor) uint64 {
	h := fnv.New64a()
	for _, t := range ts {
		_, _ = h.Write(t.Raw())
	}
	return h.Sum64()
}

// variant is a method with options worth a proof of its own.
type variant struct {
	name    string
	method  string
	o       peft.Options
	neutral bool // logits at the start equal the base model's
	// count is the number of the method's own parameters by formula.
	count func(i model.Info) int
}

// widths adds in and out widths over the maps of a block.
func widths(i model.Info, slots string) (in, out int) {
	q, kv := i.Heads*i.HeadDim, i.KVHeads*i.HeadDim
	for _, slot := range strings.Fields(slots) {
		w := map[string][2]int{"q": {i.Hidden, q}, "k": {i.Hidden, kv}, "v": {i.Hidden, kv}, "o": {q, i.Hidden}, "up": {i.Hidden, i.FFN}, "gate": {i.Hidden, i.FFN}, "down": {i.FFN, i.Hidden}}[slot]
		in, out = in+w[0], out+w[1]
	}
	return in, out
}

func allSlots(i model.Info) string {
	if i.Family == "distilbert" {
		return "q k v o up down"
	}
	return "q k v o gate up down"
}

var variants = []variant{
	{"full", "full", peft.Options{}, true, func(model.Info) int { return 0 }},
	{"full-unfreeze", "full", peft.Options{Unfreeze: []string{"*.1.*"}}, true, func(model.Info) int { return 0 }},
	{"last", "last", peft.Options{}, true, func(model.Info) int { return 0 }},
	{"last-unfreeze", "last", peft.Options{Unfreeze: []string{"*.1.*"}}, true, func(model.Info) int { return 0 }},
	{"lora", "lora", peft.Options{Rank: 4}, true, func(i model.Info) int { in, out := widths(i, "q v"); return i.Layers * 4 * (in + out) }},
	{"lora-all", "lora", peft.Options{Rank: 2, RSLoRA: true, Targets: []string{"all"}, LoRADropout: 0.5}, true, func(i model.Info) int {
		in, out := widths(i, allSlots(i))
		return i.Layers * 2 * (in + out)
	}},
	{"dora", "dora", peft.Options{Rank: 4, Targets: []string{"q", "down"}}, true, func(i model.Info) int {
		in, out := widths(i, "q down")
		return i.Layers * (4*(in+out) + out)
	}},
	{"ia3", "ia3", peft.Options{}, true, func(i model.Info) int {
		_, kv := widths(i, "k v")
		return i.Layers * (kv + i.FFN)
	}},
	{"bitfit", "bitfit", peft.Options{}, true, nil},
	{"prompt", "prompt", peft.Options{VirtualTokens: 5}, false, func(i model.Info) int { return 5 * i.Hidden }},
	{"prefix", "prefix", peft.Options{VirtualTokens: 5}, false, func(i model.Info) int { return 5 * 2 * i.Layers * i.KVHeads * i.HeadDim }},
	{"prefix-projection", "prefix", peft.Options{VirtualTokens: 5, PrefixProjection: true, PrefixHidden: 6}, false, func(i model.Info) int {
		w := i.KVHeads * i.HeadDim
		return 5*w + 6*w + 6 + 2*i.Layers*w*(6+1)
	}},
	{"houlsby", "houlsby", peft.Options{Bottleneck: 4}, false, func(i model.Info) int { return 2 * i.Layers * (2*4*i.Hidden + 4 + i.Hidden) }},
	{"houlsby-norms", "houlsby", peft.Options{Bottleneck: 4, TrainLayerNorm: true}, false, func(i model.Info) int { return 2 * i.Layers * (2*4*i.Hidden + 4 + i.Hidden) }},
	{"pfeiffer", "pfeiffer", peft.Options{Bottleneck: 4}, false, func(i model.Info) int { return i.Layers * (2*4*i.Hidden + 4 + i.Hidden) }},
	{"llama-adapter", "llama-adapter", peft.Options{AdapterLength: 4}, true, func(i model.Info) int { return i.Layers * (4*i.Hidden + i.Heads) }},
	{"llama-adapter-tanh", "llama-adapter", peft.Options{AdapterLength: 4, AdapterLayers: 1, Gate: "layer", GateTanh: true}, true, func(i model.Info) int { return 4*i.Hidden + 1 }},
	{"llama-adapter-v2", "llama-adapter-v2", peft.Options{AdapterLength: 4}, true, nil},
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
			modeltest.Close(t, "logits at the start", start, base, 2e-6)
		} else if modeltest.MaxDiff(start, base) == 0 {
			t.Error("the method changes nothing")
		}

		// 2. What is trainable.
		checkCount(t, v, m, method)
		trainable := method.Trainable(m)
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
		in.Train = true
		tr := newTrainer(s, trainable, 1e-2)
		first := tr.backward(s, m, in, labels)
		if err := peft.CheckFirstStep(s, method, m); err != nil {
			t.Error(err)
		}
		last := first
		for range 4 {
			tr.step(s)
			last = tr.backward(s, m, in, labels)
		}
		if !(last < first) && v.name != "lora-all" {
			t.Errorf("the loss went from %g to %g", first, last)
		}
		in.Train = false
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

func checkCount(t *testing.T, v variant, m model.Model, method peft.Method) {
	t.Helper()
	_, own := method.Params().Count()
	if v.count != nil && own != int64(v.count(m.Info())) {
		t.Errorf("%d parameters of its own, want %d", own, v.count(m.Info()))
	}
	if v.method == "bitfit" || v.method == "llama-adapter-v2" && len(m.Labels()) > 0 {
		return // depends on more than the model's shape
	}
	n, err := peft.Count(v.method, v.o, m.Info())
	if err != nil || n != own {
		t.Errorf("Count says %d (%v), there are %d", n, err, own)
	}
}

// checkNames checks that the head is trained and that nothing of the model is beyond what the method trains.
func checkNames(t *testing.T, f family, v variant, m model.Model, method peft.Method, trainable []*model.Param) {
	t.Helper()
	if len(trainable) == 0 {
		t.Error("nothing is trainable")
	}
	for i, p := range method.Params().All() {
		if !trainable[i].Trainable || trainable[i] != p {
			t.Errorf("%s is not trainable", p.Name)
		}
	}
	for _, p := range m.Params().All() {
		want := false
		for _, h := range m.HeadNames() {
			want = want || strings.HasPrefix(p.Name, h+".")
		}
		norm := strings.Contains(strings.ToLower(p.Name), "norm")
		switch v.name {
		case "full":
			want = true
		case "full-unfreeze", "last-unfreeze":
			want = want || strings.Contains(p.Name, ".1.")
		case "bitfit":
			want = want || strings.HasSuffix(p.Name, ".bias")
		case "houlsby-norms":
			want = want || norm && (strings.Contains(p.Name, "layer.") || strings.Contains(p.Name, "layers."))
		case "llama-adapter-v2":
			want = want || norm
		}
		if v.method == "last" && !f.classify {
			want = want || p.Name == "lm_head.weight" || p.Name == "model.norm.weight"
		}
		if p.Trainable != want {
			t.Errorf("%s: trainable is %v, want %v", p.Name, p.Trainable, want)
		}
	}
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
		{"houlsby", peft.Options{Bottleneck: 32}, distil, 0, 599424},
	} {
		if n, err := peft.Count(c.method, c.o, c.info); err != nil || n+c.plus != c.want {
			t.Errorf("%s: %d (%v), want %d", c.method, n+c.plus, err, c.want)
		}
	}
	// The worked example: one adapter from 1024 to 24 and back holds 49,152 weights, and 24 + 1024 biases.
	one := model.Info{Family: "distilbert", Hidden: 1024, Layers: 1, Heads: 16, KVHeads: 16, HeadDim: 64, FFN: 4096}
	if n, err := peft.Count("pfeiffer", peft.Options{Bottleneck: 24}, one); err != nil || n != 49152+24+1024 {
		t.Errorf("an adapter of 1024 → 24 → 1024 has %d (%v)", n, err)
	}
}
