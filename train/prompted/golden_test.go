package prompted

import (
	"context"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/data"
)

// golden is testdata/prompted/golden.json.
type golden struct {
	Name, Template string
	Words          []string
	Shots          []Shot
	Rows           []struct {
		Text, Prompt string
		PromptIDs    []int64 `json:"prompt_ids"`
		Scores       []float64
		Tokens       []int
	}
}

func readGolden(t *testing.T) (all []golden) {
	t.Helper()
	raw, err := os.ReadFile(modeltest.Testdata(t, "prompted/golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// open is a tiny LLaMA with a tokenizer, both as fixtures have them.
func open(t *testing.T, s *bindings.Scope, name string) (Scorer, train.CausalEncoder, error) {
	dir := t.TempDir()
	for to, from := range map[string]string{"tokenizer.json": "prompted/tokenizer.json", "config.json": "llama/" + name + "/config.json", "model.safetensors": "llama/" + name + "/model.safetensors"} {
		raw, err := os.ReadFile(modeltest.Testdata(t, from))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, to), raw, 0o600)
		}
		if err != nil {
			return Scorer{}, train.CausalEncoder{}, err
		}
	}
	tok, err := train.OpenTokenizer(dir)
	if err != nil {
		return Scorer{}, train.CausalEncoder{}, err
	}
	m, err := model.Load(s, dir, model.Options{})
	if err != nil {
		return Scorer{}, train.CausalEncoder{}, err
	}
	on, err := train.MachineSettings{Device: "cpu", Threads: 1}.OpenInference(s)
	return Scorer{LM: m.(model.CausalLM), On: on, Batch: 3}, train.CausalEncoder{Tokenizer: tok, Vocab: m.Info().Vocab}, err
}

func near(t *testing.T, what string, got, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %v, want %v", what, got, want)
		return
	}
	for i := range got {
		if !(math.Abs(got[i]-want[i]) <= tolerance) {
			t.Errorf("%s: value %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

// Prompts, their tokens and the likelihoods of labels are those that transformers gives for whole texts.
func TestLikelihoodsAreThoseOfTransformers(t *testing.T) {
	cases := readGolden(t)
	bindingstest.Do(t, func(s *bindings.Scope) error {
		sc, enc, err := open(t, s, "rope-llama3")
		if err != nil {
			return err
		}
		for _, g := range cases {
			template, err := ParseTemplate(g.Template, Columns{})
			if err != nil {
				return err
			}
			p := &Prompt{Template: template, Labels: g.Words, Words: g.Words, Shots: g.Shots}
			c := &Classifier{Prompt: p, Encoder: enc, Scorer: sc, Workers: 1}
			var asked []data.Example
			empty := -1
			for i, row := range g.Rows {
				asked = append(asked, data.Example{Text: row.Text})
				if row.Text == "" {
					empty = i
				}
				if got := p.Ask(row.Text); got != row.Prompt {
					t.Errorf("%s: asks %q, want %q", g.Name, got, row.Prompt)
				}
				r, err := c.request(row.Text)
				if err != nil {
					return err
				}
				var tokens []int
				for _, a := range r.Answers {
					tokens = append(tokens, len(a))
				}
				if diff := cmp.Diff(row.PromptIDs, r.Prompt) + cmp.Diff(row.Tokens, tokens); diff != "" {
					t.Errorf("%s, %q: %s", g.Name, row.Text, diff)
				}
			}
			for _, way := range []struct {
				name                string
				perToken, calibrate bool
			}{{"sums", false, false}, {"means", true, false}, {"against an empty text", false, true}, {"means against an empty text", true, true}} {
				p.PerToken, p.Calibrate, c.empty = way.perToken, way.calibrate, nil
				scores, err := c.Scores(t.Context(), s, asked)
				if err != nil {
					return err
				}
				for i, row := range g.Rows {
					want := make([]float64, len(row.Scores))
					for j := range want {
						score := func(i int) float64 {
							if way.perToken {
								return g.Rows[i].Scores[j] / float64(g.Rows[i].Tokens[j])
							}
							return g.Rows[i].Scores[j]
						}
						if want[j] = score(i); way.calibrate {
							want[j] -= score(empty)
						}
					}
					near(t, g.Name+", "+way.name+", "+row.Text, scores[i], want, 1e-5)
				}
			}
		}
		return sc.LM.Close()
	})
}

// whole computes the log-likelihoods of a request in one pass over each text, without a cache.
func whole(s *bindings.Scope, m model.CausalLM, r Request) []float64 {
	out := make([]float64, len(r.Answers))
	for j, a := range r.Answers {
		ids := slices.Concat(r.Prompt, a)
		_ = s.Run(func(s *bindings.Scope) error {
			s.Inference(func() {
				h := m.Forward(s, model.Input{IDs: s.FromInt64s(ids, 1, int64(len(ids)))}).Hidden
				p := s.SoftmaxFloat(m.Logits(s, s.Select(h, 0, 0)), -1).Float64s()
				for i, id := range a {
					out[j] += math.Log(p[(len(r.Prompt)-1+i)*m.Info().Vocab+int(id)])
				}
			})
			return nil
		})
	}
	return out
}

// Sharing keys and values gives what whole texts in one pass give: with prefixes of all kinds, answers of any length, other
// positions, grouped heads and windows.
func TestSharedPrefixesGiveWhatWholeTextsGive(t *testing.T) {
	for _, name := range []string{"base", "gqa", "mistral", "rope-llama3", "qwen2"} {
		t.Run(name, func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				sc, _, err := open(t, s, name)
				if err != nil {
					return err
				}
				draw := rand.New(rand.NewPCG(3, 4))
				tokens := func(n int) []int64 {
					ids := make([]int64, n)
					for i := range ids {
						ids[i] = 3 + draw.Int64N(40)
					}
					return ids
				}
				for _, shared := range []int{0, 1, 20} {
					prefix := tokens(shared)
					var rs []Request
					for range 7 {
						r := Request{Prompt: slices.Concat(prefix, tokens(1+draw.IntN(12)))}
						for range 1 + draw.IntN(3) {
							r.Answers = append(r.Answers, tokens(1+draw.IntN(4)))
						}
						rs = append(rs, r)
					}
					rs[0].Prompt[shared], rs[1].Prompt[shared] = 3, 4 // what they share ends there
					for _, some := range [][]Request{rs, rs[:1]} {
						got, err := sc.Score(t.Context(), s, some)
						if err != nil {
							return err
						}
						for i, r := range some {
							near(t, "request", got[i], whole(s, sc.LM, r), 2e-5)
						}
					}
					if err := sameLosses(t.Context(), t, s, sc, rs); err != nil {
						return err
					}
				}
				return sc.LM.Close()
			})
		})
	}
}

// sameLosses compares Losses, of the first answers, with whole texts.
func sameLosses(ctx context.Context, t *testing.T, s *bindings.Scope, sc Scorer, rs []Request) error {
	var seqs []data.Sequence
	var want []float64
	for _, r := range rs {
		seqs = append(seqs, data.NewSequence(r.Prompt, r.Answers[0], 0, false))
		want = append(want, -whole(s, sc.LM, r)[0])
	}
	seqs = append(seqs, data.NewSequence(rs[0].Prompt, nil, 0, false)) // an answer that was cut off
	want = append(want, 0)
	got, targets, err := sc.Losses(ctx, s, seqs)
	if err != nil {
		return err
	}
	near(t, "losses", got, want, 2e-5)
	for i, seq := range seqs {
		if int(targets[i]) != seq.NumTargets() {
			t.Errorf("%d targets of sequence %d, want %d", targets[i], i, seq.NumTargets())
		}
	}
	return nil
}
