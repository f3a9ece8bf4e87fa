package infer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"gopeft/bindings"
	"gopeft/model/generate"
	"gopeft/train"
	"gopeft/train/data"
)

// Encode tokenizes an example as training does, cut to maxLength tokens (0: what the model can read).
func (g *Generator) Encode(x data.CausalExample, maxLength int, withPrompt bool) (data.Sequence, error) {
	length, err := train.ClampLength(maxLength, g.room)
	if err != nil {
		return data.Sequence{}, err
	}
	var missing error
	if g.Tokenizer == nil {
		missing = errNoTokenizer(g.source.Model, g.missing)
	}
	return train.CausalEncoder{Tokenizer: g.Tokenizer, Missing: missing, EOS: g.Defaults.EOS, Vocab: g.lm.Info().Vocab, MaxLength: length,
		TrainPrompt: withPrompt, Chat: g.chat}.Encode(x)
}

// RowScore is how well a model predicts one sequence.
type RowScore struct {
	NLL    float64 // sum of the negative log-likelihoods (natural logarithm) of its targets
	Tokens int     // targets
}

// ScoreOptions bound the batches of Score.
type ScoreOptions struct {
	Batch     int // rows
	MaxTokens int // tokens, padding included; 0: no bound
	Progress  func(done, total int)
}

// Score gives the negative log-likelihood of each sequence's targets under the adapter attached.
func (g *Generator) Score(ctx context.Context, s *bindings.Scope, seqs []data.Sequence, o ScoreOptions) ([]RowScore, error) {
	if len(seqs) == 0 {
		return nil, nil
	}
	pad, err := g.pad()
	if err != nil {
		return nil, err
	}
	p, err := train.CausalPart(seqs, pad, 0)
	if err != nil {
		return nil, err
	}
	dev := g.on.Device
	batches, err := train.EvalOrder(p.Lengths, o.Batch, o.MaxTokens, g.on).Epoch(0)
	if err != nil {
		return nil, err
	}
	losses, targets := make([]float64, len(seqs)), make([]int64, len(seqs))
	err = g.on.EachBatch(ctx, s, p, batches, o.Progress, func(s *bindings.Scope, i int, b data.Batch) {
		s.Inference(func() {
			s.Autocast(dev, g.on.Precision.DType, func() {
				out := g.lm.Forward(s, train.Input(s, b, dev))
				for k, example := range batches[i] {
					loss, n := train.Causal{}.Loss(s, g.lm, out, b, k, k+1)
					if n > 0 {
						losses[example], targets[example] = loss.Item(), int64(n)
					}
				}
			})
		})
	})
	if err == nil {
		err = g.lm.Unchanged()
	}
	if err != nil {
		return nil, err
	}
	if losses, err = g.on.Group.SumFloats(s, losses...); err != nil { // zero but where a process computed
		return nil, err
	}
	if targets, err = g.on.Group.SumInts(s, targets...); err != nil {
		return nil, err
	}
	scores := make([]RowScore, len(seqs))
	for i := range scores {
		scores[i] = RowScore{losses[i], int(targets[i])}
	}
	return scores, nil
}

func (g *Generator) pad() (int64, error) {
	return train.PadID(g.Tokenizer, g.source.Model)
}

// Answer is what a model answers to a question.
type Answer struct {
	Text string
	None bool // the question fills the model's context
}

// SharedAnswers is Answers, of which each process of the group generates every N-th; all get all of them.
func (g *Generator) SharedAnswers(s *bindings.Scope, questions []data.CausalExample, o generate.Options, on func(generate.Event) error) ([]Answer, error) {
	rank, size := g.on.Group.Rank(), g.on.Group.Size()
	var mine []data.CausalExample
	for i := rank; i < len(questions); i += size {
		mine = append(mine, questions[i])
	}
	results, err := g.Answers(s, mine, o, on)
	if bad := (*generate.PromptError)(nil); errors.As(err, &bad) {
		return nil, &generate.PromptError{Prompt: rank + bad.Prompt*size, Err: bad.Err}
	}
	if err != nil {
		return nil, err
	}
	answers := make([]Answer, len(results))
	for k, r := range results {
		answers[k] = Answer{r.Text, len(r.IDs) == 0}
	}
	raw, err := json.Marshal(answers)
	if err != nil {
		return nil, err
	}
	parts, err := g.on.Group.GatherBytes(s, raw)
	if err != nil {
		return nil, err
	}
	all := make([]Answer, len(questions))
	for rank, part := range parts {
		if err := json.Unmarshal(part, &answers); err != nil {
			return nil, err
		}
		for k, a := range answers {
			all[rank+k*size] = a
		}
	}
	return all, nil
}

// Question is an example's prompt without its answer: of a chat, what comes before the assistant's last turn.
func Question(x data.CausalExample) (data.CausalExample, error) {
	switch {
	case x.IDs != nil:
		return x, errors.New("the row holds token ids: where its answer begins is not known")
	case x.Messages != nil:
		for n := len(x.Messages) - 1; n > 0; n-- {
			if x.Messages[n].Role == "assistant" {
				return data.CausalExample{Messages: x.Messages[:n], Answer: x.Messages[n].Content}, nil
			}
		}
		return x, errors.New("the chat has no answer of the assistant")
	case x.Prompt == "":
		return x, errors.New("the row is plain text: it has no prompt to answer")
	}
	return x, nil
}

// Matcher compares answers by what a regular expression finds first in them: its group, or the whole match.
type Matcher struct{ re *regexp.Regexp }

// NewMatcher reads a regular expression with at most one group.
func NewMatcher(expr string) (Matcher, error) {
	re, err := regexp.Compile(expr)
	if err != nil {
		return Matcher{}, err
	}
	if re.NumSubexp() > 1 {
		return Matcher{}, fmt.Errorf("%q has %d groups, want one around what is compared (others as (?:…))", expr, re.NumSubexp())
	}
	return Matcher{re}, nil
}

// Find gives what is compared of a text.
func (m Matcher) Find(text string) (string, bool) {
	found := m.re.FindStringSubmatch(text)
	if found == nil {
		return "", false
	}
	return strings.TrimSpace(found[len(found)-1]), true
}

// Same reports whether two findings are equal, as texts or as numbers: 1,200 is 1200.0.
func (Matcher) Same(a, b string) bool {
	if a == b {
		return true
	}
	x, errX := strconv.ParseFloat(strings.ReplaceAll(a, ",", ""), 64)
	y, errY := strconv.ParseFloat(strings.ReplaceAll(b, ",", ""), 64)
	return errX == nil && errY == nil && x == y
}

// Perplexity is the exponential of the mean loss per target.
func Perplexity(scores []RowScore) (loss, perplexity float64, tokens int) {
	sum := 0.0
	for _, r := range scores {
		sum += r.NLL
		tokens += r.Tokens
	}
	loss = sum / math.Max(1, float64(tokens))
	return loss, math.Exp(loss), tokens
}

// Answers generates an answer to each question with the adapter attached; one that fills the model's context gets
// none.
func (g *Generator) Answers(s *bindings.Scope, questions []data.CausalExample, o generate.Options, on func(generate.Event) error) ([]generate.Result, error) {
	ids := make([][]int64, len(questions))
	for i, q := range questions {
		var err error
		if ids[i], err = g.Prompt(q, true); err != nil {
			return nil, &generate.PromptError{Prompt: i, Err: err}
		}
	}
	o.SkipLong = true
	return g.Generate(s, ids, nil, o, on)
}
