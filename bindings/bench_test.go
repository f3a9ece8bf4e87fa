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

// BenchmarkQuantLinear times products with a matrix of 4096 × 4096, in bf16 and quantised: a few rows as in decoding,
// many as in training, and those with their backward pass.
func BenchmarkQuantLinear(b *testing.B) {
	const n = 4096
	matrices := map[string]func(s *Scope, w Tensor) func(s *Scope, x Tensor) Tensor{
		"bf16": func(s *Scope, w Tensor) func(s *Scope, x Tensor) Tensor {
			low := s.To(w, bindings.BFloat16)
			return func(s *Scope, x Tensor) Tensor { return s.Linear(x, low, Tensor{}) }
		},
	}
	quantised := func(make func(s *Scope, w Tensor) *bindings.Quantised) func(s *Scope, w Tensor) func(s *Scope, x Tensor) Tensor {
		return func(s *Scope, w Tensor) func(s *Scope, x Tensor) Tensor {
			q := make(s, w)
			return func(s *Scope, x Tensor) Tensor { return s.QuantLinear(x, q, Tensor{}) }
		}
	}
	for name, double := range map[string]bool{"NF4": false, "NF4 double": true} {
		matrices[name] = quantised(func(s *Scope, w Tensor) *bindings.Quantised { return s.Quantise(w, bindings.NF4, double) })
	}
	matrices["int8"] = quantised(func(s *Scope, w Tensor) *bindings.Quantised { return s.Quantise(w, bindings.Int8Rows, false) })
	for _, c := range []quantCase{{bindings.Q4_1, n, n, 0, false}, {bindings.Q8_0, n, n, 0, false}, {bindings.Q4_K, n, n, 0, false}} {
		matrices[c.kind.String()] = quantised(func(s *Scope, _ Tensor) *bindings.Quantised { return c.make(s) })
	}
	for _, rows := range []int64{1, 4, 512} {
		for _, name := range []string{"bf16", "NF4", "NF4 double", "Q4_1", "Q8_0", "Q4_K", "int8"} {
			for _, backward := range []bool{false, true}[:min(2, 1+rows/512)] {
				b.Run(fmt.Sprintf("%d/%s/backward=%t", rows, name, backward), func(b *testing.B) {
					bindingstest.Do(b, func(s *Scope) error {
						// As many as do not fit the caches, as in a model.
						var maps []func(*Scope, Tensor) Tensor
						for range 6 {
							maps = append(maps, matrices[name](s, s.Normal([]int64{n, n}, 0, 0.02, Float, CPU)))
						}
						x := s.Normal([]int64{rows, n}, 0, 1, bindings.BFloat16, CPU)
						s.SetRequiresGrad(x, backward)
						g := s.Full([]int64{rows, n}, 1, bindings.BFloat16, CPU)
						i := 0
						for b.Loop() {
							i = (i + 1) % len(maps)
							s.Run(func(s *Scope) error {
								if y := maps[i](s, x); backward {
									s.BackwardWith(y, g)
								}
								return nil
							})
						}
						return nil
					})
				})
			}
		}
	}
}
