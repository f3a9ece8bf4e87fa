package model_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"

	"golang.org/x/sys/cpu"
)

// decoders are the folders of causal models whose fixtures have the same names.
var decoders = []string{"llama/base", "llama/gqa", "llama/tied", "llama/biases", "llama/head-dim", "llama/rope-linear", "llama/rope-dynamic",
	"llama/rope-llama3", "llama/mistral", "llama/qwen2", "qwen3/base", "qwen3/tied", "qwen3/window", "gpt2/base", "gpt2/scaled",
	"phi3/base", "phi3/long", "phi3/partial", "olmo2/base", "smollm3/base", "granite/base", "gemma2/base", "gemma3/base"}

// shifted pairs the states of all positions but the last with the labels one further on.
func shifted(s *bindings.Scope, hidden, labels bindings.Tensor) (h, targets bindings.Tensor) {
	n := hidden.Size(1)
	return s.Narrow(hidden, 1, 0, n-1), s.Contiguous(s.Narrow(labels, 1, 1, n-1))
}

// lmLoss is a language model's mean loss, of states and head in one where that is all there is to its logits.
func lmLoss(s *bindings.Scope, m model.CausalLM, out model.Output, labels bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		h, targets := shifted(s, out.Hidden, labels)
		if m.BareLogits() {
			return s.LMCrossEntropy(h, m.LMHead().Value(), targets, -100, true, 0)
		}
		logits := m.Logits(s, h)
		return s.CrossEntropy(s.Reshape(logits, -1, logits.Size(-1)), s.Reshape(targets, -1), -100, true)
	})
}

func causalLM(t *testing.T, m model.Model) model.CausalLM {
	t.Helper()
	lm, ok := m.(model.CausalLM)
	if !ok {
		t.Fatalf("%T is no causal language model", m)
	}
	return lm
}

func TestDecodersMatchTransformers(t *testing.T) {
	for _, folder := range decoders {
		t.Run(folder, func(t *testing.T) {
			g := modeltest.OpenGolden(t, folder+"/golden.safetensors")
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := causalLM(t, load(t, s, modeltest.Testdata(t, folder), model.Options{}))
				worst := 0.0
				for _, name := range []string{"full", "right", "left", "short"} {
					if !g.Has(name + ".logits") {
						continue
					}
					in := batch(g, s, name)
					if name == "full" {
						in.Mask = bindings.Tensor{}
					}
					var states []bindings.Tensor
					in.States = &states
					out := m.Forward(s, in)
					in.Mask = g.Tensor(s, name+".attention_mask")
					logits := real(s, in, m.Logits(s, out.Hidden))
					modeltest.Close(t, name+" logits", logits, g.Tensor(s, name+".logits"), 1e-5)
					worst = max(worst, modeltest.MaxDiff(logits, g.Tensor(s, name+".logits")))
					if len(states) != m.Info().Layers+1 {
						t.Errorf("%d states", len(states))
					}
					for i, h := range states {
						if want := fmt.Sprintf("%s.hidden_states.%d", name, i); g.Has(want) {
							modeltest.Close(t, want, real(s, in, h), g.Tensor(s, want), 1e-5)
						}
					}
					modeltest.Close(t, name+" loss", lmLoss(s, m, out, g.Tensor(s, name+".labels")), g.Tensor(s, name+".loss"), 1e-5)
				}
				t.Logf("logits differ by %.1e", worst)
				return m.Close()
			})
		})
	}
}

func TestLLaMAInBF16(t *testing.T) {
	g := modeltest.OpenGolden(t, "llama/base-bf16/golden.safetensors")
	ref := modeltest.OpenGolden(t, "llama/base/golden.safetensors")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		folder := modeltest.Testdata(t, "llama/base-bf16")
		wide := causalLM(t, load(t, s, folder, model.Options{}))
		half := causalLM(t, load(t, s, folder, model.Options{DType: bindings.BFloat16}))
		for _, name := range []string{"full", "right", "left"} {
			in := batch(ref, s, name)
			modeltest.Close(t, name+" logits in fp32", real(s, in, wide.Logits(s, wide.Forward(s, in).Hidden)), g.Tensor(s, name+".logits"), 1e-5)
			got := func() bindings.Tensor {
				return real(s, in, s.To(half.Logits(s, half.Forward(s, in).Hidden), bindings.Float))
			}
			theirs, exact := g.Tensor(s, "bf16."+name+".logits"), g.Tensor(s, name+".logits")
			for _, fused := range []bool{false, true} {
				was := s.SetFused(fused)
				logits := got()
				s.SetFused(was)
				// libtorch's operations round where transformers' do, on CPUs that multiply as the fixture's did.
				if !fused && cpu.X86.HasAVX512BF16 && !cpu.X86.HasAMXBF16 {
					modeltest.Close(t, name+" logits in bf16", logits, theirs, 2e-2)
				}
				if d, limit := modeltest.MaxDiff(logits, exact), 1.5*modeltest.MaxDiff(theirs, exact); d > limit {
					t.Errorf("%s logits in bf16 (fused: %v) are %g off those in fp32, limit %g", name, fused, d, limit)
				}
			}
		}
		return errorsJoin(wide.Close(), half.Close())
	})
}

func TestDecodersTrainAsTransformersDoes(t *testing.T) {
	for _, folder := range decoders {
		if _, err := os.Stat(filepath.Join(modeltest.Testdata(t, folder), "adam.safetensors")); err == nil {
			t.Run(folder, func(t *testing.T) { trainsAsTransformersDoes(t, folder) })
		}
	}
}

func trainsAsTransformersDoes(t *testing.T, folder string) {
	g := modeltest.OpenGolden(t, folder+"/golden.safetensors")
	adam := modeltest.OpenGolden(t, folder+"/adam.safetensors")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		zero := 0.0
		m := causalLM(t, load(t, s, modeltest.Testdata(t, folder), model.Options{Dropout: &zero}))
		in := batch(g, s, "right")
		stored := func(prefix string, p *model.Param) bindings.Tensor {
			place := p.Place()
			return place.Cut(s, adam.Tensor(s, prefix+cmp.Or(place.Name, p.Name)), p.T.Size(0))
		}
		var ps, ms, vs, ns []bindings.Tensor
		for _, p := range m.Params().All() {
			p.SetTrainable(s, true)
			ps = append(ps, p.T)
			ms, vs = append(ms, s.Zeros(p.T.Shape(), bindings.Float, bindings.CPU)), append(vs, s.Zeros(p.T.Shape(), bindings.Float, bindings.CPU))
			ns = append(ns, s.Scalar(0, bindings.Float, bindings.CPU))
		}
		for step := 0; adam.Has(fmt.Sprintf("loss.%d", step)); step++ {
			loss := s.In(func(s *bindings.Scope) bindings.Tensor {
				return lmLoss(s, m, m.Forward(s, in), g.Tensor(s, "right.labels"))
			})
			modeltest.Close(t, fmt.Sprintf("loss %d", step), loss, adam.Tensor(s, fmt.Sprintf("loss.%d", step)), 1e-5)
			if !adam.Has(fmt.Sprintf("loss.%d", step+1)) {
				break
			}
			s.Backward(loss)
			var grads []bindings.Tensor
			for i, p := range m.Params().All() {
				grads = append(grads, s.Grad(p.T))
				if step == 0 {
					modeltest.Close(t, "gradient of "+p.Name, grads[i], stored("grad.", p), 1e-5)
				}
				s.Fill(ns[i], float64(step+1))
			}
			s.AdamStep(ps, grads, ms, vs, ns, bindings.AdamOptions{LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8})
			for _, p := range m.Params().All() {
				s.SetGrad(p.T, bindings.Tensor{})
				if !p.Inert {
					modeltest.Close(t, fmt.Sprintf("step %d %s", step+1, p.Name), p.T, stored(fmt.Sprintf("step%d.", step+1), p), 1e-5)
				}
			}
		}
		return m.Close()
	})
}

func TestClassifiersReadTheLastRealToken(t *testing.T) {
	for _, folder := range []string{"llama/seqcls", "qwen3/seqcls", "gpt2/seqcls", "phi3/seqcls", "olmo2/seqcls", "smollm3/seqcls", "gemma2/seqcls", "gemma3/seqcls"} {
		g := modeltest.OpenGolden(t, folder+"/golden.safetensors")
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := load(t, s, modeltest.Testdata(t, folder), model.Options{Classify: true})
			for _, name := range []string{"full", "right", "left"} {
				in := batch(g, s, name)
				logits := m.Classify(s, in, m.Forward(s, in))
				modeltest.Close(t, folder+" "+name+" logits", logits, g.Tensor(s, name+".logits"), 1e-5)
				modeltest.Close(t, folder+" "+name+" loss", s.CrossEntropy(logits, g.Tensor(s, name+".labels"), -100, true), g.Tensor(s, name+".loss"), 1e-5)
			}
			return m.Close()
		})
	}
}

func TestASavedClassifierComesBack(t *testing.T) {
	g := modeltest.OpenGolden(t, "llama/seqcls/golden.safetensors")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		named := load(t, s, modeltest.Testdata(t, "llama/base"), model.Options{Classify: true, Labels: []string{"neg", "pos"}})
		if strings.Join(named.Fresh(), " ") != "score.weight" || named.Params().Get("lm_head.weight") != nil {
			t.Errorf("a new head on a causal checkpoint: fresh %v", named.Fresh())
		}
		dir := t.TempDir()
		if err := model.Save(s, dir, named); err != nil {
			return err
		}
		back := load(t, s, dir, model.Options{Classify: true})
		in := batch(g, s, "left")
		modeltest.Close(t, "saved classifier", back.Classify(s, in, back.Forward(s, in)), named.Classify(s, in, named.Forward(s, in)), 0)
		if got := strings.Join(back.Labels(), " "); got != "neg pos" || fmt.Sprint(back.Config()["architectures"]) != "[LlamaForSequenceClassification]" {
			t.Errorf("labels %q, architectures %v", got, back.Config()["architectures"])
		}
		return errorsJoin(named.Close(), back.Close())
	})
}

func TestEveryLayoutOfALLaMACheckpointLoadsTheSame(t *testing.T) {
	g := modeltest.OpenGolden(t, "llama/base/golden.safetensors")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		base := load(t, s, modeltest.Testdata(t, "llama/base"), model.Options{})
		in := batch(g, s, "full")
		want := base.Forward(s, in).Hidden
		for _, folder := range []string{"base-noprefix", "base-sharded", "seqcls"} {
			m := causalLM(t, load(t, s, modeltest.Testdata(t, "llama/"+folder), model.Options{}))
			modeltest.Close(t, folder, m.Forward(s, in).Hidden, want, 0)
			if headless := folder != "base-sharded"; m.LMHead().Value().Defined() == headless {
				t.Errorf("%s: head %v", folder, m.LMHead().Value())
			}
			if err := m.Close(); err != nil {
				return err
			}
		}
		return base.Close()
	})
}

// rows takes part of each row of a batch.
func rows(s *bindings.Scope, in model.Input, from, to int64) model.Input {
	part := func(t bindings.Tensor) bindings.Tensor {
		if !t.Defined() {
			return t
		}
		return s.Contiguous(s.Narrow(t, 1, from, to-from))
	}
	in.IDs, in.Mask = part(in.IDs), part(in.Mask)
	return in
}

func TestCachedTokensGiveTheSameStates(t *testing.T) {
	for _, folder := range decoders {
		if folder == "llama/rope-dynamic" || folder == "phi3/long" {
			continue // there the base depends on the length: what is cached keeps that of its time, as in transformers
		}
		g := modeltest.OpenGolden(t, folder+"/golden.safetensors")
		for _, name := range []string{"full", "left", "right"} {
			t.Run(folder+"/"+name, func(t *testing.T) {
				bindingstest.Do(t, func(s *bindings.Scope) error {
					m := load(t, s, modeltest.Testdata(t, folder), model.Options{})
					in := batch(g, s, name)
					if name == "full" {
						in.Mask = bindings.Tensor{}
					}
					want := m.Forward(s, in).Hidden
					cache := model.NewCache(s, 2)
					var parts []bindings.Tensor
					for _, at := range [][2]int64{{0, 5}, {5, 6}, {6, 7}, {7, 11}} {
						part := rows(s, in, at[0], at[1])
						part.Cache = cache
						parts = append(parts, m.Forward(s, part).Hidden)
					}
					in.Mask = g.Tensor(s, name+".attention_mask")
					modeltest.Close(t, "states", real(s, in, s.Cat(1, parts...)), real(s, in, want), 1e-5)
					if cache.Len() != 11 {
						t.Errorf("the cache holds %d tokens", cache.Len())
					}
					cache.Close()
					return m.Close()
				})
			})
		}
	}
}

func TestCacheKeepsRows(t *testing.T) {
	g := modeltest.OpenGolden(t, "llama/gqa/golden.safetensors")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := load(t, s, modeltest.Testdata(t, "llama/gqa"), model.Options{})
		in := batch(g, s, "left")
		want := m.Forward(s, in).Hidden
		cache := model.NewCache(s, 16)
		first := rows(s, in, 0, 8)
		first.Cache = cache
		m.Forward(s, first)
		cache.Keep(s, []int{2, 0})
		pick := s.FromInt64s([]int64{2, 0}, 2)
		last := rows(s, in, 8, 11)
		last.IDs, last.Mask, last.Cache = s.IndexSelect(last.IDs, 0, pick), bindings.Tensor{}, cache
		got := m.Forward(s, last).Hidden
		modeltest.Close(t, "states", got, s.Narrow(s.IndexSelect(want, 0, pick), 1, 8, 3), 1e-5)
		cache.Close()
		return m.Close()
	})
}

func TestAModelWithoutAHeadSaysSo(t *testing.T) {
	base := bindings.Live()
	var m model.CausalLM
	for _, use := range []func(s *bindings.Scope, h bindings.Tensor){
		func(s *bindings.Scope, h bindings.Tensor) { m.Logits(s, h) },
		func(s *bindings.Scope, h bindings.Tensor) {
			s.LMCrossEntropy(h, m.LMHead().Value(), s.FromInt64s([]int64{1, 2}, 1, 2), -100, true, 0)
		},
	} {
		err := bindings.Do(context.Background(), func(s *bindings.Scope) error {
			m = causalLM(t, load(t, s, modeltest.Testdata(t, "llama/base-noprefix"), model.Options{}))
			defer m.Close()
			use(s, m.Forward(s, model.Input{IDs: s.FromInt64s([]int64{3, 4}, 1, 2)}).Hidden)
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), "no language-model head") {
			t.Errorf("got %v", err)
		}
	}
	if n := bindings.Live() - base; n != 0 {
		t.Errorf("%d tensors left alive", n)
	}
}

func TestPackedTextsDoNotSeeEachOther(t *testing.T) {
	for _, folder := range []string{"llama/base", "llama/mistral", "qwen3/base", "qwen3/window", "gpt2/base", "phi3/partial", "gemma2/base", "gemma3/base"} {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := load(t, s, modeltest.Testdata(t, folder), model.Options{})
			a, b := []int64{3, 4, 5, 6, 7, 8}, []int64{9, 10, 11, 12}
			one := func(ids []int64) bindings.Tensor {
				return m.Forward(s, model.Input{IDs: s.FromInt64s(ids, 1, int64(len(ids)))}).Hidden
			}
			packed := model.Input{IDs: s.FromInt64s(append(append(slices.Clone(a), b...), 0, 0), 1, 12),
				Segments: s.FromInt64s([]int64{0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2}, 1, 12)}
			h := m.Forward(s, packed).Hidden
			modeltest.Close(t, "first text", s.Narrow(h, 1, 0, 6), one(a), 1e-5)
			modeltest.Close(t, "second text", s.Narrow(h, 1, 6, 4), one(b), 1e-5)
			return m.Close()
		})
	}
}

func TestSavedDecodersLoadBack(t *testing.T) {
	g := modeltest.OpenGolden(t, "llama/base/golden.safetensors")
	for _, folder := range []string{"llama/tied", "llama/qwen2", "llama/mistral", "llama/rope-llama3", "llama/base-bf16", "qwen3/tied", "qwen3/window", "gpt2/base", "gpt2/scaled", "phi3/base", "granite/base", "gemma3/base"} {
		dir := t.TempDir()
		bindingstest.Do(t, func(s *bindings.Scope) error {
			o := model.Options{DType: bindings.BFloat16}
			m := causalLM(t, load(t, s, modeltest.Testdata(t, folder), o))
			if err := model.Save(s, dir, m); err != nil {
				return err
			}
			back := causalLM(t, load(t, s, dir, o))
			in := batch(g, s, "left")
			modeltest.Close(t, folder, back.Logits(s, back.Forward(s, in).Hidden), m.Logits(s, m.Forward(s, in).Hidden), 0)
			if back.Config()["torch_dtype"] != "bfloat16" {
				t.Errorf("torch_dtype %v", back.Config()["torch_dtype"])
			}
			return errorsJoin(m.Close(), back.Close())
		})
	}
}

func TestBadLLaMAConfigsAreNamed(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(modeltest.Testdata(t, "llama/gqa"), "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var good map[string]any
	if err := json.Unmarshal(raw, &good); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change map[string]any
		want   string
	}{
		{"no heads", map[string]any{"num_attention_heads": 0}, "num_attention_heads"},
		{"kv heads", map[string]any{"num_key_value_heads": 3}, "multiple of num_key_value_heads"},
		{"odd head", map[string]any{"head_dim": 5}, "head_dim"},
		{"hidden", map[string]any{"hidden_size": 18, "head_dim": nil}, "hidden_size 18"},
		{"activation", map[string]any{"hidden_act": "relu"}, "hidden_act"},
		{"yarn", map[string]any{"rope_scaling": map[string]any{"rope_type": "yarn", "factor": 2}}, `"yarn"`},
		{"factor", map[string]any{"rope_scaling": map[string]any{"type": "linear", "factor": -2}}, "factor"},
		{"llama3", map[string]any{"rope_scaling": map[string]any{"rope_type": "llama3", "factor": 8}}, "low_freq_factor"},
		{"theta", map[string]any{"rope_theta": 0}, "rope_theta"},
		{"eps", map[string]any{"rms_norm_eps": -1}, "rms_norm_eps"},
		{"text", map[string]any{"vocab_size": "many"}, "vocab_size"},
		{"dropout", map[string]any{"attention_dropout": 1.5}, "attention_dropout"},
		{"partial", map[string]any{"partial_rotary_factor": 0.5}, "partial_rotary_factor"},
		{"window", map[string]any{"model_type": "mistral", "sliding_window": -3}, "sliding_window"},
		{"layers", map[string]any{"num_hidden_layers": 9}, "missing (model.layers.2.self_attn.q_proj.weight"},
		{"vocab", map[string]any{"vocab_size": 50}, "of the wrong shape"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			config := maps.Clone(good)
			maps.Copy(config, c.change)
			raw, err := json.Marshal(config)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600)
			}
			weights, readErr := os.ReadFile(filepath.Join(modeltest.Testdata(t, "llama/gqa"), "model.safetensors"))
			if err == nil && readErr == nil {
				err = os.WriteFile(filepath.Join(dir, "model.safetensors"), weights, 0o600)
			}
			if err := errorsJoin(err, readErr); err != nil {
				t.Fatal(err)
			}
			base := bindings.Live()
			err = bindings.Do(context.Background(), func(s *bindings.Scope) error {
				_, err := model.Load(s, dir, model.Options{})
				return err
			})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, c.want)
			}
			if n := bindings.Live() - base; n != 0 {
				t.Errorf("%d tensors left alive", n)
			}
		})
	}
}
