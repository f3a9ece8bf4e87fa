package generate_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/generate"
	"gopeft/model/modeltest"
	"gopeft/model/tokenizer"
)

func load(t testing.TB, s *bindings.Scope, path string) model.CausalLM {
	t.Helper()
	m, err := model.Load(s, path, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	lm, ok := m.(model.CausalLM)
	if !ok {
		t.Fatalf("%T predicts no tokens", m)
	}
	return lm
}

// prompts are the real tokens of a fixture's batch.
func prompts(g *modeltest.Golden, s *bindings.Scope, batch string) [][]int64 {
	t := g.Tensor(s, batch+".input_ids")
	ids, mask := t.Int64s(), g.Tensor(s, batch+".attention_mask").Int64s()
	out := make([][]int64, t.Size(0))
	for i, id := range ids {
		if r := i / int(t.Size(1)); mask[i] != 0 {
			out[r] = append(out[r], id)
		}
	}
	return out
}

func table(t bindings.Tensor) [][]int64 {
	return slices.Collect(slices.Chunk(t.Int64s(), int(t.Size(1))))
}

func newIDs(results []generate.Result) [][]int64 {
	var out [][]int64
	for _, r := range results {
		out = append(out, r.IDs)
	}
	return out
}

func TestGreedyIDsEqualTransformers(t *testing.T) {
	for _, folder := range []string{"llama/base", "llama/gqa", "llama/mistral", "qwen3/base", "qwen3/tied", "qwen3/window", "gpt2/base", "gpt2/scaled",
		"phi3/base", "phi3/partial", "olmo2/base", "smollm3/base", "granite/base", "gemma2/base", "gemma3/base"} {
		g := modeltest.OpenGolden(t, folder+"/golden.safetensors")
		for _, batch := range []string{"full", "left"} {
			for _, o := range []generate.Options{{}, {Batch: 1}, {NoCache: true}} {
				t.Run(fmt.Sprintf("%s/%s batch %d cache %v", folder, batch, o.Batch, !o.NoCache), func(t *testing.T) {
					bindingstest.Do(t, func(s *bindings.Scope) error {
						m := load(t, s, modeltest.Testdata(t, folder))
						o.MaxNew, o.EOS = 24, []int64{2}
						got, err := generate.Run(s, m, prompts(g, s, batch), o, nil)
						if err != nil {
							return err
						}
						if diff := cmp.Diff(table(g.Tensor(s, "generate."+batch+".new_ids")), newIDs(got)); diff != "" {
							t.Error(diff)
						}
						return m.Close()
					})
				})
			}
		}
	}
}

func TestRowsEndOnTheirOwn(t *testing.T) {
	g := modeltest.OpenGolden(t, "llama/base/golden.safetensors")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := load(t, s, modeltest.Testdata(t, "llama/base"))
		eos := g.Tensor(s, "generate.eos.token_id").Int64s()[0]
		want := table(g.Tensor(s, "generate.eos.new_ids"))
		var events []generate.Event
		o := generate.Options{MaxNew: 24, EOS: []int64{47_000, eos}}
		got, err := generate.Run(s, m, prompts(g, s, "left"), o, func(e generate.Event) error { events = append(events, e); return nil })
		if err != nil {
			return err
		}
		for i, r := range got {
			end := slices.Index(want[i], eos) + 1
			reason := generate.EOS
			if end == 0 {
				end, reason = len(want[i]), generate.Length
			}
			if diff := cmp.Diff(want[i][:end], r.IDs); diff != "" || r.Reason != reason {
				t.Errorf("row %d ended by %s: %s", i, r.Reason, diff)
			}
			var streamed []int64
			last := generate.Reason("")
			for _, e := range events {
				if e.Prompt == i {
					streamed, last = append(streamed, e.ID), e.Reason
				}
			}
			if !slices.Equal(streamed, r.IDs) || last != reason {
				t.Errorf("row %d: streamed %v, %s", i, streamed, last)
			}
		}
		return m.Close()
	})
}

func TestStoriesEqualTransformers(t *testing.T) {
	folder := modeltest.Shared(t, "models/llama-stories260k")
	raw, err := os.ReadFile(modeltest.Testdata(t, "llama/stories260k.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Prompt    string  `json:"prompt"`
		PromptIDs []int64 `json:"prompt_ids"`
		NewIDs    []int64 `json:"new_ids"`
		Text      string  `json:"text"`
	}
	if err := json.Unmarshal(raw, &rows); err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	o, err := generate.Defaults(folder)
	if err != nil {
		t.Fatal(err)
	}
	o.Decode = func(prompt []int64) generate.Decoder {
		stream := tok.NewStream()
		for _, id := range prompt {
			stream.Push(id)
		}
		return stream
	}
	o.MaxNew = 64
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := load(t, s, folder)
		var ps [][]int64
		for _, r := range rows {
			ids, err := tok.EncodeIDs(nil, r.Prompt, tokenizer.Options{AddSpecial: true})
			if err != nil {
				return err
			}
			if diff := cmp.Diff(r.PromptIDs, ids); diff != "" {
				t.Errorf("ids of %q: %s", r.Prompt, diff)
			}
			ps = append(ps, ids)
		}
		got, err := generate.Run(s, m, ps, o, nil)
		if err != nil {
			return err
		}
		whole := 0
		for i, r := range rows {
			if diff := cmp.Diff(r.NewIDs, got[i].IDs[:len(r.NewIDs)]); diff != "" {
				t.Errorf("%q: %s", r.Prompt, diff)
			}
			// The fixture ends a text before a step that rounding could decide: what it has of it is compared whole.
			text := got[i].Text
			if len(r.NewIDs) < len(got[i].IDs) {
				stream := o.Decode(r.PromptIDs)
				text = ""
				for _, id := range r.NewIDs {
					text += stream.Push(id)
				}
				text += stream.Flush()
			} else {
				whole++
			}
			if want := strings.TrimSuffix(strings.TrimPrefix(r.Text, r.Prompt), "</s>"); text != want {
				t.Errorf("%q gave %q, want %q", r.Prompt, text, want)
			}
		}
		if whole < len(rows)/2 {
			t.Errorf("%d of %d texts compared to their end", whole, len(rows))
		}
		return m.Close()
	})
}

// method is a prefix in every block, a prompt and a branch.
type method struct{ k, v, prompt, own bindings.Tensor }

func (p *method) Len() int                                  { return 3 }
func (p *method) KV(*bindings.Scope) (k, v bindings.Tensor) { return p.k, p.v }
func (p *method) Vectors(*bindings.Scope) bindings.Tensor   { return p.prompt }
func (p *method) Attend(s *bindings.Scope, q bindings.Tensor, project func(bindings.Tensor) (k, v bindings.Tensor)) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		k, v := project(p.own)
		return s.Attention(q, s.Expand(k, q.Size(0), -1, -1, -1), s.Expand(v, q.Size(0), -1, -1, -1), bindings.Tensor{}, 0, 0)
	})
}

func attach(s *bindings.Scope, m model.CausalLM) {
	i := m.Info()
	s.Seed(8)
	draw := func(shape ...int64) bindings.Tensor { return s.Normal(shape, 0, 0.7, bindings.Float, bindings.CPU) }
	kv, d := int64(i.KVHeads), int64(i.Hidden)
	p := &method{draw(1, kv, 3, int64(i.HeadDim)), draw(1, kv, 3, int64(i.HeadDim)), draw(3, d), draw(1, 2, d)}
	m.Hooks().Prompt = p
	for l, b := range m.Hooks().Blocks {
		b.Memory, b.Branch = []model.Memory{p}, []model.Branch{p}
		if l == 0 {
			b.Memory = nil // blocks may differ
		}
	}
}

func TestCacheChangesNothingWithMethodsAttached(t *testing.T) {
	for _, folder := range []string{"llama/base", "llama/gqa", "llama/mistral", "llama/rope-llama3", "qwen3/base", "gpt2/base", "phi3/base", "gemma2/base", "gemma3/base"} {
		g := modeltest.OpenGolden(t, folder+"/golden.safetensors")
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := load(t, s, modeltest.Testdata(t, folder))
			ps := prompts(g, s, "left")
			last := func() (out bindings.Tensor) {
				s.NoGrad(func() {
					h := m.Forward(s, model.Input{IDs: s.Int64sOn(bindings.CPU, []int64{3, 9, 12, 4}, 1, 4)}).Hidden
					out = m.Logits(s, s.Select(h, 1, h.Size(1)-1))
				})
				return out
			}
			plain := last()
			attach(s, m)
			if modeltest.MaxDiff(last(), plain) < 0.01 {
				t.Errorf("%s: the method changed nothing", folder)
			}
			cached, err := generate.Run(s, m, ps, generate.Options{MaxNew: 12}, nil)
			if err != nil {
				return err
			}
			alone, err := generate.Run(s, m, ps, generate.Options{MaxNew: 12, NoCache: true, Batch: 1}, nil)
			if err != nil {
				return err
			}
			if diff := cmp.Diff(newIDs(alone), newIDs(cached)); diff != "" {
				t.Errorf("%s: %s", folder, diff)
			}
			return m.Close()
		})
	}
}

func TestSamplingDependsOnSeedAndPromptAlone(t *testing.T) {
	g := modeltest.OpenGolden(t, "llama/gqa/golden.safetensors")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := load(t, s, modeltest.Testdata(t, "llama/gqa"))
		ps := prompts(g, s, "left")
		run := func(o generate.Options) [][]int64 {
			o.MaxNew, o.Temperature = 20, 1.3
			got, err := generate.Run(s, m, ps, o, nil)
			if err != nil {
				t.Fatal(err)
			}
			return newIDs(got)
		}
		o := generate.Options{Seed: 7, TopK: 20, TopP: 0.95, MinP: 0.01, RepetitionPenalty: 1.1}
		first := run(o)
		o.Batch = 1
		if diff := cmp.Diff(first, run(o)); diff != "" {
			t.Errorf("another batch size: %s", diff)
		}
		o.Seed = 8
		if cmp.Equal(first, run(o)) {
			t.Error("another seed drew the same")
		}
		greedy, err := generate.Run(s, m, ps, generate.Options{MaxNew: 20}, nil)
		if err != nil {
			return err
		}
		if diff := cmp.Diff(newIDs(greedy), run(generate.Options{TopK: 1})); diff != "" {
			t.Errorf("top-k 1 is not greedy: %s", diff)
		}
		return m.Close()
	})
}

func TestAnswersToBadRequests(t *testing.T) {
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := load(t, s, modeltest.Testdata(t, "llama/base")) // 64 positions
		long := make([]int64, 64)
		boom := errors.New("boom")
		for _, c := range []struct {
			name    string
			prompts [][]int64
			o       generate.Options
			on      func(generate.Event) error
			want    string
		}{
			{"empty", [][]int64{{3}, {}}, generate.Options{}, nil, "prompt 2 is empty"},
			{"too long", [][]int64{long}, generate.Options{}, nil, "prompt 1 has 64 tokens, the model holds 64"},
			{"unknown", [][]int64{{3, 48}}, generate.Options{}, nil, "token 48"},
			{"temperature", [][]int64{{3}}, generate.Options{Temperature: -1}, nil, "temperature is -1"},
			{"nan", [][]int64{{3}}, generate.Options{TopP: math.NaN()}, nil, "top-p"},
			{"stop", [][]int64{{3}}, generate.Options{Stop: []string{"x"}}, nil, "decoder"},
			{"too long for an answer", [][]int64{{3}, long}, generate.Options{}, nil, "prompt 2 has 64 tokens"},
			{"callback", [][]int64{{3}}, generate.Options{}, func(generate.Event) error { return boom }, "boom"},
		} {
			_, err := generate.Run(s, m, c.prompts, c.o, c.on)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %q", c.name, err, c.want)
			}
		}
		got, err := generate.Run(s, m, [][]int64{long[:60]}, generate.Options{}, nil)
		if err != nil {
			return err
		}
		if len(got[0].IDs) != 4 || got[0].Reason != generate.Context {
			t.Errorf("at the context's end: %d tokens, %s", len(got[0].IDs), got[0].Reason)
		}
		got, err = generate.Run(s, m, [][]int64{{3}, long, {4}}, generate.Options{MaxNew: 2, SkipLong: true}, nil)
		if err != nil || len(got[0].IDs) != 2 || len(got[1].IDs) != 0 || got[1].Reason != generate.Context || len(got[2].IDs) != 2 {
			t.Errorf("a long prompt left out: %+v, %v", got, err)
		}
		none, err := generate.Run(s, m, nil, generate.Options{}, nil)
		if len(none) != 0 || err != nil {
			t.Errorf("no prompts: %v, %v", none, err)
		}
		s.Copy(m.LMHead().Value(), s.Full([]int64{1}, math.NaN(), bindings.Float, bindings.CPU))
		for _, o := range []generate.Options{{}, {Temperature: 1}} {
			if _, err := generate.Run(s, m, [][]int64{{3}}, o, nil); err == nil || !strings.Contains(err.Error(), "not finite") {
				t.Errorf("scores that are no numbers: %v", err)
			}
		}
		return m.Close()
	})
	ctx, cancel := context.WithCancel(context.Background())
	err := bindings.Do(ctx, func(s *bindings.Scope) error {
		m := load(t, s, modeltest.Testdata(t, "llama/base"))
		_, err := generate.Run(s, m, [][]int64{{3}}, generate.Options{}, func(generate.Event) error { cancel(); return nil })
		return errors.Join(err, m.Close())
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestLongPromptsAreReadInPieces(t *testing.T) {
	const tiny = `{"model_type": "llama", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
		"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048, "initializer_range": 0.5%s}`
	for _, c := range []struct {
		name, more string
		lengths    []int
	}{
		{"padded", "", []int{1100, 970}},
		{"many tokens, not padded", "", []int{1030, 1030, 1030, 1030, 1030, 1030, 1030, 1030}},
		// The embedding stretches with the text: every piece needs the length of the whole.
		{"dynamic", `, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}, "max_position_embeddings": 300`, []int{1030, 1030, 1030, 1030, 1030, 1030, 1030, 1030}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				s.Seed(2)
				built, err := model.New(s, fmt.Appendf(nil, tiny, c.more), model.Options{})
				if err != nil {
					return err
				}
				m := built.(model.CausalLM)
				ps := make([][]int64, len(c.lengths))
				for i, n := range c.lengths {
					for j := range n {
						ps[i] = append(ps[i], int64((j*j+7*i)%40))
					}
				}
				together, err := generate.Run(s, m, ps, generate.Options{MaxNew: 5}, nil)
				if err != nil {
					return err
				}
				alone, err := generate.Run(s, m, ps, generate.Options{MaxNew: 5, Batch: 1}, nil)
				if diff := cmp.Diff(newIDs(alone), newIDs(together)); diff != "" {
					t.Error(diff)
				}
				return errors.Join(err, m.Close())
			})
		})
	}
}

func TestRopeCrossesItsOriginalLength(t *testing.T) {
	for _, folder := range []string{"llama/rope-dynamic", "phi3/long"} {
		g := modeltest.OpenGolden(t, folder+"/golden.safetensors")
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := load(t, s, modeltest.Testdata(t, folder))
			for _, batch := range []string{"short", "full"} { // 6 and 11 tokens, of a model made for 8
				got, err := generate.Run(s, m, prompts(g, s, batch), generate.Options{MaxNew: 24, Context: 64}, nil)
				if err != nil {
					return err
				}
				if diff := cmp.Diff(table(g.Tensor(s, "generate."+batch+".new_ids")), newIDs(got)); diff != "" {
					t.Errorf("%s %s: %s", folder, batch, diff)
				}
			}
			return m.Close()
		})
	}
}
