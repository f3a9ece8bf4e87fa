package peft_test

import (
	"fmt"
	"slices"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// ways are the variants that the ways of running a model are tried on.
var ways = []variant{
	{method: "full"}, {method: "last"}, {method: "lora", o: peft.Options{TargetOptions: peft.TargetOptions{Targets: []string{"all"}}}}, {method: "dora", o: peft.Options{TargetOptions: peft.TargetOptions{Targets: []string{"q", "down"}}}},
	{method: "ia3"}, {method: "bitfit"}, {method: "prompt", o: peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 3}}}, {method: "prefix", o: peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 3}}},
	{method: "prefix", o: peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 3}, PrefixOptions: peft.PrefixOptions{PrefixProjection: true}}}, {method: "houlsby", o: peft.Options{BottleneckOptions: peft.BottleneckOptions{Bottleneck: 4}}},
	{method: "pfeiffer", o: peft.Options{BottleneckOptions: peft.BottleneckOptions{Bottleneck: 4}}}, {method: "llama-adapter"}, {method: "llama-adapter-v2"},
}

// gradients are those of a loss, by parameter.
func gradients(s *bindings.Scope, ps []*model.Param, m model.Model, in model.Input, labels bindings.Tensor) []bindings.Tensor {
	tr := newTrainer(s, ps, 0)
	tr.backward(s, m, in, labels)
	out := make([]bindings.Tensor, len(tr.g))
	for i, g := range tr.g {
		if g.Defined() {
			out[i] = s.Clone(g)
		}
	}
	return out
}

// TestRecomputedActivationsGiveTheSameGradients: checkpointing changes memory and time, nothing else. With dropout
// in the base and in the method, what was dropped is dropped again.
func TestRecomputedActivationsGiveTheSameGradients(t *testing.T) {
	for _, f := range families {
		g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
		for _, v := range ways {
			for _, rate := range []float64{0, 0.3} {
				t.Run(fmt.Sprintf("%s/%s-%v-%v", f.name, v.method, v.o.PrefixProjection, rate), func(t *testing.T) {
					v.o.LoRADropout = rate
					bindingstest.Do(t, func(s *bindings.Scope) error {
						m := f.loadWith(t, s, model.Options{Dropout: &rate})
						defer m.Close()
						method := shaken(t, s, v.method, v.o, m, 0.1)
						defer method.Close()
						in, labels := f.input(g, s), g.Tensor(s, f.batch+".labels")
						in.Train = true
						ps := method.Trainable(m)
						run := func(seed uint64) []bindings.Tensor {
							s.Seed(seed)
							return gradients(s, ps, m, in, labels)
						}
						want, other := run(5), run(6)
						in.CheckpointActivations = true
						got := run(5)
						differ := false
						for i, p := range ps {
							if !got[i].Defined() {
								t.Errorf("%s has no gradient", p.Name)
								continue
							}
							closeTo(t, s, 1e-6, "gradient of "+p.Name, got[i], want[i])
							differ = differ || modeltest.MaxDiff(other[i], want[i]) > 1e-3
						}
						if differ != (rate > 0) {
							t.Errorf("another seed gives other gradients: %v", differ)
						}
						return nil
					})
				})
			}
		}
	}
}

// TestMixedPrecision trains under autocast and over a bf16 base: gradients are finite, near those of fp32, and
// adapters and heads stay in fp32.
func TestMixedPrecision(t *testing.T) {
	for _, f := range families {
		g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
		for _, v := range ways {
			t.Run(fmt.Sprintf("%s/%s-%v", f.name, v.method, v.o.PrefixProjection), func(t *testing.T) {
				var want []float64
				for _, mode := range []string{"fp32", "autocast", "cast", "bf16"} {
					bindingstest.Do(t, func(s *bindings.Scope) error {
						zero := 0.0
						o := model.Options{Dropout: &zero}
						if mode == "bf16" {
							o.DType = bindings.BFloat16
						}
						m := f.loadWith(t, s, o)
						defer m.Close()
						s.Seed(2)
						method := shaken(t, s, v.method, v.o, m, 0.1)
						defer method.Close()
						if mode == "cast" {
							for _, b := range m.Hooks().Blocks {
								for _, l := range b.Modules {
									l.Dense.W.Cast(s, bindings.BFloat16)
								}
							}
						}
						amp := bindings.Float
						if mode == "autocast" || mode == "cast" {
							amp = bindings.BFloat16
						}
						in, labels := f.input(g, s), g.Tensor(s, f.batch+".labels")
						ps := method.Trainable(m)
						for _, p := range method.Params().All() {
							if p.T.DType() != bindings.Float {
								t.Errorf("%s: %s is %v", mode, p.Name, p.T.DType())
							}
						}
						var got []bindings.Tensor
						s.Autocast(bindings.CPU, amp, func() { got = gradients(s, ps, m, in, labels) })
						var norms []float64
						for i, p := range ps {
							if !got[i].Defined() || s.FirstNonFinite(got[i:i+1]) >= 0 {
								t.Errorf("%s: the gradient of %s is missing or not finite", mode, p.Name)
								return nil
							}
							norms = append(norms, s.Norm(got[i:i+1]))
						}
						if mode == "fp32" {
							want = norms
							return nil
						}
						// The whole gradient's length, as rounding may change a small part's by much.
						a, b := length(norms), length(want)
						if !(a > 0.8*b && a < 1.25*b) {
							t.Errorf("%s: the gradient's norm is %g, in fp32 %g", mode, a, b)
						}
						return nil
					})
				}
			})
		}
	}
}

func length(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x * x
	}
	return sum
}

// TestGenerationWithACache equals generation without one, whatever the method.
func TestGenerationWithACache(t *testing.T) {
	for _, f := range families {
		if f.classify {
			continue
		}
		g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
		for _, v := range ways {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := f.load(t, s)
				defer m.Close()
				s.Seed(4)
				method := shaken(t, s, v.method, v.o, m, 0.15)
				defer method.Close()
				generatesWithACache(t, s, f, m, g)
				return nil
			})
		}
	}
}

// generatesWithACache compares with generation without one, for rows with padding and without.
func generatesWithACache(t *testing.T, s *bindings.Scope, f family, m model.Model, g *modeltest.Golden) {
	t.Helper()
	for _, f.batch = range []string{"full", "left"} {
		in := f.input(g, s)
		got := greedy(s, m, in, 12)
		var want []int64
		s.NoGrad(func() { want = greedyUncached(s, m, in, 12) })
		if !slices.Equal(got, want) {
			t.Errorf("%s, %s, %s: with a cache %v, without %v", f.name, m.Hooks().Method, f.batch, got, want)
		}
	}
}

func greedyUncached(s *bindings.Scope, m model.Model, in model.Input, n int) []int64 {
	var steps [][]int64
	for range n {
		h := m.Forward(s, in).Hidden
		next := s.ArgMax(m.(model.CausalLM).Logits(s, s.Select(h, 1, h.Size(1)-1)), -1)
		steps = append(steps, next.Int64s())
		next = s.Unsqueeze(next, 1)
		in.IDs = s.Cat(1, in.IDs, next)
		in.Mask = s.Cat(1, in.Mask, s.Full(next.Shape(), 1, bindings.Int64, bindings.CPU))
	}
	var out []int64
	for row := range steps[0] {
		for i := range steps {
			out = append(out, steps[i][row])
		}
	}
	return out
}

// TestPackedRows: two texts in one row give the logits that each gives alone, and the gradients of both.
func TestPackedRows(t *testing.T) {
	for _, f := range families {
		if f.classify {
			continue
		}
		g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
		for _, v := range ways {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := f.load(t, s)
				defer m.Close()
				s.Seed(4)
				method := shaken(t, s, v.method, v.o, m, 0.15)
				defer method.Close()
				packsRows(t, s, f.name, m, g, method.Trainable(m))
				return nil
			})
		}
	}
}

// packsRows compares two texts in one row with each alone: logits, and gradients of ps.
func packsRows(t *testing.T, s *bindings.Scope, name string, m model.Model, g *modeltest.Golden, ps []*model.Param) {
	t.Helper()
	ids := g.Tensor(s, "full.input_ids")
	a, b := s.Narrow(ids, 0, 0, 1), s.Narrow(s.Narrow(ids, 0, 1, 1), 1, 0, 6)
	row := func(ids bindings.Tensor) model.Input {
		return model.Input{IDs: ids, Mask: s.Full(ids.Shape(), 1, bindings.Int64, bindings.CPU)}
	}
	packed := row(s.Cat(1, a, b))
	packed.Segments = s.Cat(1, s.Full(a.Shape(), 0, bindings.Int64, bindings.CPU), s.Full(b.Shape(), 1, bindings.Int64, bindings.CPU))
	closeTo(t, s, 1e-5, name+" "+m.Hooks().Method, logits(s, m, packed), s.Cat(1, logits(s, m, row(a)), logits(s, m, row(b))))

	// A text's first token has no target: nothing of its own row predicts it.
	targets := func(ids bindings.Tensor) bindings.Tensor {
		none := s.Full([]int64{1, 1}, -100, bindings.Int64, bindings.CPU)
		return s.Cat(1, none, s.Narrow(ids, 1, 1, ids.Size(1)-1))
	}
	together := gradients(s, ps, m, packed, s.Cat(1, targets(a), targets(b)))
	ofA, ofB := gradients(s, ps, m, row(a), targets(a)), gradients(s, ps, m, row(b), targets(b))
	na, nb := float64(a.Size(1)-1), float64(b.Size(1)-1) // losses are means over targets
	for i, p := range ps {
		want := s.Add(s.MulScalar(ofA[i], na/(na+nb)), s.MulScalar(ofB[i], nb/(na+nb)))
		closeTo(t, s, 1e-5, fmt.Sprintf("%s %s: gradient of %s", name, m.Hooks().Method, p.Name), together[i], want)
	}
}
