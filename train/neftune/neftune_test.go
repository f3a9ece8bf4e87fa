package neftune_test

import (
	"slices"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
	"gopeft/train/neftune"
)

// fixed gives embeddings that are known.
type fixed struct{ x bindings.Tensor }

func (f fixed) Embed(s *bindings.Scope, _ bindings.Tensor, _ func(s *bindings.Scope, ids bindings.Tensor) bindings.Tensor) bindings.Tensor {
	return s.Clone(f.x)
}

// With torch's seed the noise is, to the bit, that of transformers' hook; outside of training there is none.
func TestNoiseIsTransformers(t *testing.T) {
	a, err := files.Open("testdata/noise.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	bindingstest.Do(t, func(s *bindings.Scope) error {
		golden := func(name string) bindings.Tensor {
			e, ok := a.Lookup(name)
			if !ok {
				t.Errorf("the fixture has no %s", name)
			}
			x, err := hf.Tensor(s, e)
			if err != nil {
				t.Error(err)
			}
			return x
		}
		x, want := golden("in"), golden("out")
		own := fixed{x}
		hooks := &model.Hooks{Embed: own}
		n := neftune.Attach(hooks, 5)
		for _, c := range []struct {
			training bool
			want     bindings.Tensor
		}{{true, want}, {false, x}} {
			s.Seed(5)
			n.During(c.training, func() {
				if got := hooks.Embed.Embed(s, bindings.Tensor{}, nil); !slices.Equal(got.Float32s(), c.want.Float32s()) {
					t.Errorf("in training %t: %v, want %v", c.training, got.Float32s(), c.want.Float32s())
				}
			})
		}
		if got := hooks.Embed.Embed(s, bindings.Tensor{}, nil); !slices.Equal(got.Float32s(), x.Float32s()) {
			t.Error("there is noise outside of passes")
		}
		n.Close()
		if hooks.Embed != model.Embedding(own) {
			t.Error("the hook is not what it was")
		}
		return nil
	})
}

// Where nothing is on the hook the noise is on the model's own embeddings.
func TestNoiseOnOwnEmbeddings(t *testing.T) {
	bindingstest.Do(t, func(s *bindings.Scope) error {
		hooks := &model.Hooks{}
		n := neftune.Attach(hooks, 10)
		own := func(s *bindings.Scope, _ bindings.Tensor) bindings.Tensor {
			return s.Zeros([]int64{3, 4, 25}, bindings.Float, bindings.CPU)
		}
		var most float64
		n.During(true, func() {
			most = s.MaxAll(s.Abs(hooks.Embed.Embed(s, bindings.Tensor{}, own))).Item()
		})
		if most > 1 || most < 0.95 { // 10/√(4·25), nearly reached by one of 300
			t.Errorf("the largest noise is %v", most)
		}
		n.Close()
		if hooks.Embed != nil {
			t.Error("the hook is not what it was")
		}
		return nil
	})
}
