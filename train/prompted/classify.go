package prompted

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"gopeft/bindings"
	"gopeft/model/tokenizer"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/data/rows"
)

// Classifier finds texts' labels by a prompt.
type Classifier struct {
	*Prompt
	Encoder train.CausalEncoder
	Scorer  Scorer
	Workers int // goroutines that tokenize

	Cut atomic.Int64 // texts that were cut so far, to --max-length or to what the model has room for

	empty []float64 // the labels' scores of an empty text, once known
}

// Scores gives each text's scores of the labels: log-likelihoods, per token and against those of an empty text where the
// prompt has it so. The likeliest label has the highest.
func (c *Classifier) Scores(ctx context.Context, s *bindings.Scope, examples []data.Example) ([][]float64, error) {
	if c.Calibrate && c.empty == nil {
		none, err := c.request("")
		if err != nil {
			return nil, err
		}
		once := c.Scorer
		once.Progress = nil
		scores, err := c.score(ctx, s, once, []Request{none})
		if err != nil {
			return nil, err
		}
		c.empty = scores[0]
	}
	rs := make([]Request, len(examples))
	err := data.ForEach(ctx, len(examples), c.Workers, func(i int) (err error) {
		x := examples[i]
		if x.IDs != nil {
			err = errors.New("the row holds token ids: prompts are made of texts")
		} else {
			rs[i], err = c.request(x.Text)
		}
		if err != nil {
			return &rows.Error{File: x.File, Line: x.Line, Row: x.Row, Err: err}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	scores, err := c.score(ctx, s, c.Scorer, rs)
	if err != nil {
		return nil, err
	}
	for _, row := range scores {
		for j := range c.empty {
			row[j] -= c.empty[j]
		}
	}
	return scores, nil
}

// EncodeIDs implements data.Encoder: the ids of what is asked of a text, without the examples and uncut.
func (c *Classifier) EncodeIDs(dst []int64, text string, _ int) ([]int64, error) {
	if c.Encoder.Tokenizer == nil {
		return dst, c.Encoder.Missing
	}
	ids, err := c.Encoder.TextIDs(c.Template.ask(text, c.Words))
	return append(dst, ids...), err
}

func (c *Classifier) score(ctx context.Context, s *bindings.Scope, by Scorer, rs []Request) ([][]float64, error) {
	scores, err := by.Score(ctx, s, rs)
	if err != nil || !c.PerToken {
		return scores, err
	}
	for i, r := range rs {
		for j, a := range r.Answers {
			scores[i][j] /= float64(len(a))
		}
	}
	return scores, nil
}

// request is the prompt of a text with the labels' words behind it, the text cut so that all of it fits the model.
func (c *Classifier) request(text string) (Request, error) {
	if c.Encoder.Tokenizer == nil {
		return Request{}, c.Encoder.Missing
	}
	whole, err := c.shorten(text, c.MaxLength)
	if err != nil {
		return Request{}, err
	}
	room := c.Scorer.Room()
	kept, length := whole, 0
	for {
		r, err := c.encode(c.Ask(kept))
		if err != nil {
			return r, err
		}
		over := r.Len() - room
		switch {
		case over <= 0:
			if kept != text {
				c.Cut.Add(1)
			}
			return r, nil
		case kept == "":
			return r, fmt.Errorf("template %q takes %d tokens with its %d examples and no text, the model reads %d", c.Template, r.Len(), len(c.Shots), room)
		case length == 0:
			ids, err := c.Encoder.Tokenizer.EncodeIDs(nil, kept, tokenizer.Options{})
			if err != nil {
				return r, err
			}
			length = len(ids)
		}
		if length = max(0, length-over); length == 0 {
			kept = ""
		} else if kept, err = c.shorten(whole, length); err != nil {
			return r, err
		}
	}
}

// shorten cuts a text to so many tokens; 0: to any.
func (c *Classifier) shorten(text string, tokens int) (string, error) {
	if tokens == 0 || len(text) <= tokens { // no token is of less than a byte
		return text, nil
	}
	e, err := c.Encoder.Tokenizer.Encode(text, tokenizer.Options{})
	if err != nil || len(e.IDs) <= tokens {
		return text, err
	}
	return string([]rune(text)[:e.Offsets[tokens-1][1]]), nil
}

// encode tokenizes a prompt with each word behind it. Where a word joins the prompt's last token, the prompt ends before that
// token, for all words alike.
func (c *Classifier) encode(prompt string) (Request, error) {
	asked, err := c.Encoder.TextIDs(prompt)
	if err != nil {
		return Request{}, err
	}
	whole := make([][]int64, len(c.Words))
	shared := len(asked)
	for j, word := range c.Words {
		if whole[j], err = c.Encoder.TextIDs(prompt + word); err != nil {
			return Request{}, err
		}
		n := 0
		for n < min(shared, len(whole[j])) && whole[j][n] == asked[n] {
			n++
		}
		shared = n
	}
	if shared == 0 {
		return Request{}, fmt.Errorf("template %q: nothing stands before the label, whose likelihood would follow nothing", c.Template)
	}
	r := Request{Prompt: asked[:shared]}
	for j, ids := range whole {
		if len(ids) == shared {
			return r, fmt.Errorf("label word %q gives no tokens behind the prompt", c.Words[j])
		}
		r.Answers = append(r.Answers, ids[shared:])
	}
	return r, data.CheckVocab("the prompt", asked, c.Encoder.Vocab)
}

// Result is how well a prompt does on some examples.
type Result struct {
	Accuracy float64
	Loss     float64 // mean negative log-likelihood of the right label among the labels
}

// Measure compares scores with the examples' labels.
func Measure(scores [][]float64, examples []data.Example) Result {
	var r Result
	for i, row := range scores {
		if Best(row) == examples[i].Label {
			r.Accuracy++
		}
		r.Loss -= math.Log(max(Probs(row)[examples[i].Label], math.SmallestNonzeroFloat64))
	}
	n := math.Max(1, float64(len(scores)))
	return Result{r.Accuracy / n, r.Loss / n}
}

// Best is the label with the highest score.
func Best(scores []float64) int {
	best := 0
	for j, v := range scores {
		if v > scores[best] {
			best = j
		}
	}
	return best
}

// Probs are the scores' shares of the whole: their softmax.
func Probs(scores []float64) []float64 {
	top, sum := scores[Best(scores)], 0.0
	out := make([]float64, len(scores))
	for j, v := range scores {
		out[j] = math.Exp(v - top)
		sum += out[j]
	}
	for j := range out {
		out[j] /= sum
	}
	return out
}

// Spread is the mean of some values and their standard deviation, 0 of one.
func Spread(values []float64) (mean, deviation float64) {
	for _, v := range values {
		mean += v / float64(len(values))
	}
	if len(values) < 2 {
		return mean, 0
	}
	for _, v := range values {
		deviation += (v - mean) * (v - mean) / float64(len(values)-1)
	}
	return mean, math.Sqrt(deviation)
}
