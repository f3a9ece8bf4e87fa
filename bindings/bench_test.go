package bindings_test

import (
	"fmt"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
)

// BenchmarkKernels times a forward and backward pass of the operations that fill a training step, at
// DistilBERT-base's shapes for 12 sequences of 128 tokens, fused and composed.
func BenchmarkKernels(b *testing.B) {
	const rows, d, ffn, heads = 12 * 128, 768, 3072, 12
	normal := func(s *Scope, shape ...int64) Tensor {
		x := s.Normal(shape, 0, 1, Float, CPU)
		s.SetRequiresGrad(x, true)
		return x
	}
	for _, c := range []struct {
		name string
		make func(s *Scope) func(*Scope) Tensor
	}{
		{"linear", func(s *Scope) func(*Scope) Tensor {
			x, w := normal(s, rows, d), s.Normal([]int64{ffn, d}, 0, 1, Float, CPU)
			return func(s *Scope) Tensor { return s.Linear(x, w, Tensor{}) }
		}},
		{"linear, trained", func(s *Scope) func(*Scope) Tensor {
			x, w := normal(s, rows, d), normal(s, ffn, d)
			return func(s *Scope) Tensor { return s.Linear(x, w, Tensor{}) }
		}},
		{"attention", func(s *Scope) func(*Scope) Tensor {
			q, k, v := normal(s, 12, 128, heads, 64), normal(s, 12, 128, heads, 64), normal(s, 12, 128, heads, 64)
			return func(s *Scope) Tensor {
				return s.Attention(s.Transpose(q, 1, 2), s.Transpose(k, 1, 2), s.Transpose(v, 1, 2), Tensor{}, 0, 0.1)
			}
		}},
		{"add layer norm", func(s *Scope) func(*Scope) Tensor {
			x, r, w, o := normal(s, rows, d), normal(s, rows, d), s.Normal([]int64{d}, 0, 1, Float, CPU), s.Normal([]int64{d}, 0, 1, Float, CPU)
			return func(s *Scope) Tensor { return s.AddLayerNorm(x, r, w, o, 1e-12, 0.1) }
		}},
		{"gelu", func(s *Scope) func(*Scope) Tensor {
			x := normal(s, rows, ffn)
			return func(s *Scope) Tensor { return s.GELU(x) }
		}},
		{"dropout", func(s *Scope) func(*Scope) Tensor {
			x := normal(s, rows, ffn)
			return func(s *Scope) Tensor { return s.Dropout(x, 0.1) }
		}},
	} {
		for _, dtype := range []bindings.DType{Float, bindings.BFloat16} {
			for _, how := range []string{"fused", "composed"} {
				b.Run(fmt.Sprintf("%s/%v/%s", c.name, dtype, how), func(b *testing.B) {
					bindingstest.Do(b, func(s *Scope) error {
						defer s.SetFused(s.SetFused(how == "fused"))
						f := c.make(s)
						for b.Loop() {
							if err := s.Run(func(s *Scope) error {
								var y Tensor
								s.Autocast(CPU, dtype, func() { y = f(s) })
								s.BackwardWith(y, s.Full(y.Shape(), 1, y.DType(), CPU))
								return nil
							}); err != nil {
								return err
							}
						}
						return nil
					})
				})
			}
		}
	}
}
