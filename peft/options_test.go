package peft_test

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

func TestOptionsOutOfRangeAreNamed(t *testing.T) {
	for _, c := range []struct {
		method string
		o      peft.Options
		want   string
	}{
		{"lora", peft.Options{LoRAOptions: peft.LoRAOptions{Rank: -1}}, "rank is -1"},
		{"lora", peft.Options{LoRAOptions: peft.LoRAOptions{Alpha: math.NaN()}}, "alpha is NaN"},
		{"lora", peft.Options{LoRAOptions: peft.LoRAOptions{LoRADropout: 1}}, "lora-dropout is 1"},
		{"lora", peft.Options{LoRAOptions: peft.LoRAOptions{LoRAInit: "corda"}}, `lora-init "corda" is not known (pissa, pissa_niter_N, olora)`},
		{"lora", peft.Options{LoRAOptions: peft.LoRAOptions{LoRAInit: "pissa_niter_x"}}, "want a number of iterations"},
		{"lora", peft.Options{LoRAOptions: peft.LoRAOptions{RankPattern: []string{"q_proj"}}}, `rank-pattern: "q_proj" is not of the form NAME=VALUE`},
		{"lora", peft.Options{LoRAOptions: peft.LoRAOptions{RankPattern: []string{"q_proj=0"}}}, `rank-pattern: "q_proj=0": want a rank`},
		{"lora", peft.Options{LoRAOptions: peft.LoRAOptions{AlphaPattern: []string{"q_proj=-1"}}}, `alpha-pattern: "q_proj=-1": want a positive number`},
		{"lora", peft.Options{LoRAOptions: peft.LoRAOptions{AlphaPattern: []string{"(q=1"}}}, "alpha-pattern: error parsing regexp"},
		{"oft", peft.Options{TargetOptions: peft.TargetOptions{Layers: []int{1, 1}}}, "layers has 1, want numbers of blocks from 0, each once"},
		{"boft", peft.Options{BOFTOptions: peft.BOFTOptions{Butterflies: 21}}, "butterflies is 21"},
		{"prompt", peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: -5}}, "virtual-tokens is -5"},
		{"prompt", peft.Options{PromptOptions: peft.PromptOptions{Init: "zeros"}}, `init "zeros" is not known (vocab, text, random)`},
		{"prefix", peft.Options{PromptOptions: peft.PromptOptions{Init: "zeros"}}, "init"},
		{"houlsby", peft.Options{BottleneckOptions: peft.BottleneckOptions{Activation: "glu"}}, `activation "glu"`},
		{"houlsby", peft.Options{BottleneckOptions: peft.BottleneckOptions{ReductionFactor: -2}}, "reduction-factor"},
		{"houlsby", peft.Options{AdapterName: "a.b"}, `adapter-name is "a.b", want a name without dots`},
		{"llama-adapter", peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{Gate: "block"}}, `gate "block"`},
		{"llama-adapter", peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{AdapterLayers: -1}}, "adapter-layers is -1"},
		{"llama-adapter-v2", peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{AdapterLayers: -2}}, "adapter-layers is -2"},
		{"adalora", peft.Options{}, `method "adalora" is not known: one of full, last, lora`},
	} {
		m, err := peft.New(c.method, c.o)
		if err == nil || m != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %+v: got %v, want %q", c.method, c.o, err, c.want)
		}
	}
}

func TestOptionsThatDoNotFitTheModelAreNamed(t *testing.T) {
	f := families[2]
	for _, c := range []struct {
		method string
		o      peft.Options
		want   string
	}{
		{"lora", peft.Options{TargetOptions: peft.TargetOptions{Targets: []string{"q", "c_attn"}}}, `target "c_attn" names no linear map of the model's blocks (q_proj, k_proj,`},
		{"lora", peft.Options{TargetOptions: peft.TargetOptions{Layers: []int{3}}}, "layers has 3, but the model's blocks are 0 to 2"},
		{"lora", peft.Options{LoRAOptions: peft.LoRAOptions{RankPattern: []string{"k_proj=2"}}}, `rank-pattern: "k_proj" fits none of the maps that are changed (model.layers.0.self_attn.q_proj, …)`},
		{"lora", peft.Options{LoRAOptions: peft.LoRAOptions{Rank: 17, LoRAInit: "olora"}}, "lora-init olora: the rank of model.layers.0.self_attn.q_proj is 17, and no more than 16 are there"},
		{"lora", peft.Options{LoRAOptions: peft.LoRAOptions{NewTokens: []int64{49}}}, "token 49 is not in a vocabulary of 48"},
		{"boft", peft.Options{OFTOptions: peft.OFTOptions{BlockSize: 5}}, "block-size is 5, which does not divide the 16 inputs"},
		{"boft", peft.Options{BOFTOptions: peft.BOFTOptions{Butterflies: 4}}, "butterflies is 4, for which blocks of 4 must be of an even size and 32 divide the 16 inputs"},
		{"prompt", peft.Options{PromptOptions: peft.PromptOptions{Init: "text"}}, "init text"},
		{"prompt", peft.Options{PromptOptions: peft.PromptOptions{Init: "text", InitIDs: []int64{48}}}, "token id 48 is not in a vocabulary of 48"},
		{"prefix", peft.Options{PromptOptions: peft.PromptOptions{Init: "text", InitIDs: []int64{1}}, PrefixOptions: peft.PrefixOptions{PrefixProjection: true}}, "starts at random"},
		{"prefix", peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 5000}}, "reads at most 64 tokens"},
		{"llama-adapter", peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{AdapterLayers: 4}}, "adapter-layers is 4, but the model has 3"},
		{"last", peft.Options{Unfreeze: []string{"layers.7"}}, `pattern "layers.7" matches no parameter`},
	} {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := f.load(t, s)
			defer m.Close()
			method, err := peft.New(c.method, c.o)
			if err != nil {
				return err
			}
			if err := method.Attach(s, m); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %q", c.method, err, c.want)
			}
			if m.Hooks().Method != "" || len(m.Params().Trainable()) > 0 || method.Params().All() != nil {
				t.Errorf("%s: something is left after a failed Attach", c.method)
			}
			return nil
		})
	}
}

// TestVirtualTokensFromAText: a prompt or prefix made of a text is that text in front of the input.
func TestVirtualTokensFromAText(t *testing.T) {
	text := []int64{1, 17, 23, 9, 40}
	for _, f := range families[2:4] {
		g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
		for _, name := range []string{"prompt", "prefix"} {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := f.load(t, s)
				defer m.Close()
				ids := g.Tensor(s, "full.input_ids")
				ones := func(ids bindings.Tensor) bindings.Tensor { return s.Full(ids.Shape(), 1, bindings.Int64, bindings.CPU) }
				before := s.Expand(s.FromInt64s(text, 1, 5), ids.Size(0), -1)
				both := s.Cat(1, before, ids)
				want := s.From(logits(s, m, model.Input{IDs: both, Mask: ones(both)}), 1, 5)
				method, err := peft.New(name, peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 5, Init: "text", InitIDs: text}})
				if err != nil {
					return err
				}
				if err := method.Attach(s, m); err != nil {
					return err
				}
				defer method.Close()
				modeltest.Close(t, f.name+" "+name, logits(s, m, model.Input{IDs: ids, Mask: ones(ids)}), want, 1e-5)
				return nil
			})
		}
	}
	// Fewer tokens than virtual ones begin again.
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := families[0].load(t, s)
		defer m.Close()
		method, err := peft.New("prompt", peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 5, Init: "text", InitIDs: []int64{7, 3}}})
		if err != nil {
			return err
		}
		if err := method.Attach(s, m); err != nil {
			return err
		}
		defer method.Close()
		want := s.Embedding(m.Hooks().Words.T, s.FromInt64s([]int64{7, 3, 7, 3, 7}, 5))
		modeltest.Close(t, "prompt", method.Params().All()[0].T, want, 0)
		return nil
	})
}

// TestWhatIsKeptBetweenPassesFollowsTheParameters: DoRA's norms are not computed anew for every generated
// token, but are when a parameter has changed.
func TestWhatIsKeptBetweenPassesFollowsTheParameters(t *testing.T) {
	f := families[0]
	g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := f.load(t, s)
		defer m.Close()
		method := shaken(t, s, "dora", peft.Options{TargetOptions: peft.TargetOptions{Targets: []string{"all"}}}, m, 0.1)
		defer method.Close()
		in := f.input(g, s)
		s.NoGrad(func() {
			first := logits(s, m, in)
			live := bindings.Live()
			again := logits(s, m, in)
			modeltest.Close(t, "a second pass", again, first, 0)
			if n := bindings.Live() - live; n != 1 {
				t.Errorf("a second pass keeps %d tensors", n)
			}
		})
		shake(s, method, m, 0.1)
		var kept bindings.Tensor
		s.NoGrad(func() { kept = logits(s, m, in) })
		modeltest.Close(t, "after a change", kept, logits(s, m, in), 1e-6)
		return nil
	})
}

func TestLoRADropout(t *testing.T) {
	f := families[0]
	g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
	for _, dora := range []bool{false, true} {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := f.load(t, s)
			defer m.Close()
			method := shaken(t, s, "lora", peft.Options{LoRAOptions: peft.LoRAOptions{LoRADropout: 0.5, DoRA: dora}}, m, 0.3)
			defer method.Close()
			in := f.input(g, s)
			still := logits(s, m, in)
			in.Train = true
			a, b := logits(s, m, in), logits(s, m, in)
			in.Train = false
			if modeltest.MaxDiff(a, b) == 0 {
				t.Error("two training passes are alike")
			}
			modeltest.Close(t, "evaluation", logits(s, m, in), still, 0)
			return nil
		})
	}
}

func TestFirstStepIsChecked(t *testing.T) {
	f := families[0]
	g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := f.load(t, s)
		defer m.Close()
		method := shaken(t, s, "lora", peft.Options{}, m, 0.1)
		defer method.Close()
		check := func(want string) {
			t.Helper()
			err := firstStep(s, method, m)
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("got %v, want %q", err, want)
			}
		}
		check("trains nothing in 16 tensors: no gradient in [distilbert.transformer.layer.0.attention.q_lin.lora_A.weight")
		ps := method.Trainable(m)
		gradients(s, ps, m, f.input(g, s), g.Tensor(s, "padded.labels"))
		check("")
		s.SetGrad(ps[1].T, s.Zeros(ps[1].T.Shape(), bindings.Float, bindings.CPU))
		s.SetGrad(ps[2].T, s.Full(ps[2].T.Shape(), math.Inf(1), bindings.Float, bindings.CPU))
		check("trains nothing in 2 tensors: no gradient in [], a zero one in [distilbert.transformer.layer.0.attention.q_lin.lora_B.weight], one that is not finite in [distilbert.transformer.layer.0.attention.v_lin.lora_A.weight]")
		s.SetGrad(ps[1].T, bindings.Tensor{})
		return nil
	})
}

// TestEveryActivationIsTakenEverywhere: by New, and in AdapterHub's folders.
func TestEveryActivationIsTakenEverywhere(t *testing.T) {
	f := families[0]
	g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
	for _, name := range []string{"swish", "silu", "relu", "gelu", "gelu_new", "tanh"} {
		for _, method := range []string{"houlsby", "pfeiffer"} {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				s.Seed(7)
				m := f.load(t, s)
				defer m.Close()
				a := shaken(t, s, method, peft.Options{BottleneckOptions: peft.BottleneckOptions{Activation: name}}, m, 0.3)
				in := f.input(g, s)
				want := logits(s, m, in)
				dir := filepath.Join(t.TempDir(), "adapter")
				if err := a.Save(s, dir, m); err != nil {
					return err
				}
				a.Close()
				if err := os.Remove(filepath.Join(dir, "gopeft.yaml")); err != nil { // as if others had written it
					return err
				}
				edit(t, filepath.Join(dir, "adapter_config.json"), func(c map[string]any) {
					c["config"].(map[string]any)["non_linearity"] = strings.ToUpper(name)
				})
				a, err := peft.Load(s, dir, m)
				if err != nil {
					return err
				}
				defer a.Close()
				modeltest.Close(t, method+" "+name, logits(s, m, in), want, 1e-6)
				return nil
			})
		}
	}
}
