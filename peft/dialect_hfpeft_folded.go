package peft

import (
	"errors"
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf/files"
)

// Types of peft whose update of a map is a product of two matrices in the end. They are read as the LoRA that computes
// the same: what is trained from there on is that LoRA.
const (
	hfAdaLoRA = "ADALORA" // B·(A∘e), whose ranks were chosen in training
	hfVeRA    = "VERA"    // b∘B·(d∘A) with A and B shared by all maps
)

// folds reports such a type.
func (c *hfConfig) folds() bool { return c.Type == hfAdaLoRA || c.Type == hfVeRA }

// prepareFolded checks a folded type's settings and gives those that LoRA has.
func (c *hfConfig) prepareFolded() error {
	switch {
	case c.DoRA || c.RSLoRA:
		return fmt.Errorf("use_dora and use_rslora of %s are not supported", c.Type)
	case c.Type == hfVeRA && c.SavesProjection != nil && !*c.SavesProjection:
		return errors.New("save_projection is false: the matrices that VeRA's maps share are not in the file")
	case c.Rank < 1:
		return fmt.Errorf("the rank is %d", c.Rank)
	case c.Type == hfVeRA:
		c.Alpha, c.Dropout = float64(c.Rank), c.VeRADropout
	default:
		c.Rank = c.InitRank
	}
	return nil
}

// factor finds one of a map's tensors in the file.
func (c *hfConfig) factor(name, part string) (files.Entry, bool) {
	for _, key := range hfKeys("lora", name+part) {
		if e, ok := c.archive.Lookup(key); ok && len(e.Shape) > 0 {
			return e, true
		}
	}
	return files.Entry{}, false
}

// foldedLoRA is the LoRA of a folded type. Maps of which AdaLoRA has kept no rank are none of its.
func (c *hfConfig) foldedLoRA(m model.Model, o *Options) (*lora, error) {
	l := &lora{}
	targets, err := o.targets(structureOf(m))
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		if t.Whole {
			return nil, fmt.Errorf("%s on %s, which holds several maps, is not supported", c.Type, lastPart(t.Stored()))
		}
	}
	if c.Type == hfVeRA {
		return l, nil
	}
	ranks := map[string]int{}
	var kept []string
	for _, t := range targets {
		rank := int64(c.Rank) // where the file lacks the map, of which reading it tells
		if e, ok := c.factor(t.Name, ".lora_A"); ok {
			rank = e.Shape[0]
		}
		if rank > 1<<20 {
			return nil, fmt.Errorf("the rank of %s is %d", t.Name, rank)
		}
		if ranks[t.Name] = int(rank); rank > 0 {
			kept = append(kept, t.Name)
		}
	}
	if len(kept) == 0 {
		return nil, errors.New("no map has a rank above 0")
	}
	if len(kept) < len(targets) {
		o.Targets, o.Layers = kept, nil
	}
	l.perModule = func(name string) (int, float64) {
		rank := max(ranks[name], 1)
		alpha := c.Alpha
		if alpha <= 0 {
			alpha = float64(rank)
		}
		return rank, alpha * float64(rank) / (float64(c.InitRank) + 1e-5) // peft divides so, by the rank begun with
	}
	return l, nil
}

// foldedWants asks for a folded type's tensors in place of LoRA's parameters, and says what is made of them.
func (c *hfConfig) foldedWants(m model.Model, a *method) (wants []want, fold func(s *bindings.Scope, ts []bindings.Tensor, own map[string]bindings.Tensor)) {
	l := a.ownTuner().(*lora)
	targets, _ := l.o.targets(structureOf(m)) // which Adds has found
	ask := func(name string, shape ...int64) { wants = append(wants, want{hfKeys("lora", name), shape, false}) }
	if c.Type == hfAdaLoRA {
		for _, t := range targets {
			rank, _ := l.rankAlpha(t.Name)
			r := int64(rank)
			ask(t.Name+".lora_A", r, int64(t.In))
			ask(t.Name+".lora_E", r, 1)
			ask(t.Name+".lora_B", int64(t.Out), r)
		}
		return wants, func(s *bindings.Scope, ts []bindings.Tensor, own map[string]bindings.Tensor) {
			for i, t := range targets {
				own[t.Name+loraA], own[t.Name+loraB] = s.Mul(ts[3*i], ts[3*i+1]), ts[3*i+2]
			}
		}
	}
	r, in, out := int64(l.o.Rank), int64(0), int64(0)
	for _, t := range targets {
		in, out = max(in, int64(t.In)), max(out, int64(t.Out))
	}
	const sharedA, sharedB = "base_model.vera_A", "base_model.vera_B"
	// They are as wide as the widest map, which may be one that targets leave out.
	if e, ok := c.archive.Lookup(sharedA); ok && len(e.Shape) == 2 {
		in = max(in, e.Shape[1])
	}
	if e, ok := c.archive.Lookup(sharedB); ok && len(e.Shape) == 2 {
		out = max(out, e.Shape[0])
	}
	wants = []want{{[]string{sharedA}, []int64{r, in}, false}, {[]string{sharedB}, []int64{out, r}, false}}
	for _, t := range targets {
		ask(t.Name+".vera_lambda_d", r)
		ask(t.Name+".vera_lambda_b", int64(t.Out))
	}
	return wants, func(s *bindings.Scope, ts []bindings.Tensor, own map[string]bindings.Tensor) {
		for i, t := range targets {
			d, b := ts[2+2*i], ts[3+2*i]
			own[t.Name+loraA] = s.Mul(s.Narrow(ts[0], 1, 0, int64(t.In)), s.Unsqueeze(d, 1))
			own[t.Name+loraB] = s.Mul(s.Narrow(ts[1], 0, 0, int64(t.Out)), s.Unsqueeze(b, 1))
		}
	}
}

// notSupported are types of peft that gopeft does not compute, by what they are.
var notSupported = map[string]string{
	"MULTITASK_PROMPT_TUNING": "soft prompts shared by tasks", "P_TUNING": "soft prompts through a network", "CPT": "soft prompts from a context",
	"LOHA": "Hadamard products of low-rank matrices", "LOKR": "Kronecker products",
	"HRA": "Householder reflections", "POLY": "mixtures of LoRAs", "XLORA": "mixtures of LoRAs",
	"FOURIERFT": "sparse spectra", "WAVEFT": "sparse wavelets", "VBLORA": "LoRA from a shared bank of vectors",
	"TRAINABLE_TOKENS": "trained rows of the embeddings", "SHIRA": "sparse updates", "BONE": "block-wise updates", "MISS": "shared shards",
	"RANDLORA": "sums of random low-rank matrices", "C3A": "circular convolutions", "ROAD": "rotations of pairs", "GRALORA": "LoRA in blocks",
}

// unknownType says that a type is not supported, and what it is where that is known.
func unknownType(kind string) error {
	if what := notSupported[kind]; what != "" {
		return fmt.Errorf("peft_type %q is not supported (%s)", kind, what)
	}
	return fmt.Errorf("peft_type %q is not supported", kind)
}
