package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/model/generate"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/data/rows"
	"gopeft/train/dist"
	"gopeft/train/infer"
	"gopeft/train/prompted"
)

// evaluatedText is what eval prints of a language model.
type evaluatedText struct {
	Rows       int      `json:"rows"`
	Loss       float64  `json:"loss"` // nats per target token
	Perplexity float64  `json:"perplexity"`
	Targets    int      `json:"target_tokens"`
	Tokens     int      `json:"tokens"` // read, prompts included
	TokensPerS float64  `json:"tokens_per_s"`
	Match      *float64 `json:"exact_match,omitempty"` // share of the rows
}

// scoredText is a line of --per-row.
type scoredText struct {
	NLL    float64 `json:"nll"`
	Tokens int     `json:"tokens"`
	Answer *string `json:"answer,omitempty"`
	Match  *bool   `json:"match,omitempty"`
}

// evalCausal scores a language model by the loss on the answers and, with --match, by how often its own answers match.
func evalCausal(c *cli.Context, group *dist.Group, src infer.Source, perRow io.Writer) error {
	if c.IsSet("label-column") {
		return &train.UsageError{Err: errors.New("--label-column goes with --task classify")}
	}
	for _, name := range []string{"stop", "max-new-tokens"} {
		if c.IsSet(name) && c.String("match") == "" {
			return &train.UsageError{Err: fmt.Errorf("--%s goes with --match, which generates answers", name)}
		}
	}
	o := data.CausalOptions{Read: rows.Options{Format: rows.Format(c.String("format"))}, Template: c.String("template"),
		TextColumn: c.String("text-column"), SkipBadRows: c.Bool("skip-bad-rows"), Limit: c.Int("limit")}
	withPrompt, length := !c.Bool("mask-prompt"), c.Int("max-length")
	if r := src.Run; r != nil { // what is not given is as in training
		if o.Template == "" {
			o.Template = r.Data.Template
		}
		if !c.IsSet("mask-prompt") {
			withPrompt = !r.Data.MaskPrompt
		}
		if length == 0 {
			length = r.Data.MaxLength
		}
	}
	in, err := openCausal(c, o)
	if err != nil {
		return err
	}
	defer in.Close()
	e := textEval{c: c, group: group, u: newUI(c), out: json.NewEncoder(perRow), rows: in, withPrompt: withPrompt, length: length}
	e.out.SetEscapeHTML(false)
	if expr := c.String("match"); expr != "" {
		m, err := infer.NewMatcher(expr)
		if err != nil {
			return &train.UsageError{Err: fmt.Errorf("--match: %w", err)}
		}
		e.matcher = &m
	}
	err = bindings.Do(c.Context, func(s *bindings.Scope) (err error) {
		g, err := openGeneratorFor(c, s, src, group)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, g.Close()) }()
		if c.String("method") != "" || src.Prompt != "" {
			if e.shots, err = chooseExamples(c, g, src, o, length); err != nil {
				return err
			}
		}
		return e.run(s, g)
	})
	if err != nil {
		return err
	}
	return e.print()
}

// openGeneratorFor opens the language model of eval, and meets the other processes.
func openGeneratorFor(c *cli.Context, s *bindings.Scope, src infer.Source, group *dist.Group) (*infer.Generator, error) {
	g, err := infer.OpenGenerator(s, src, infer.GeneratorOptions{Device: c.String("device"), AMP: c.String("amp"), BaseDType: c.String("base-dtype"), Quantize: c.String("quantize"), Stream: c.Bool("stream-weights"), Shard: c.Bool("shard-frozen"), Threads: c.Int("threads"), Group: group})
	if err != nil {
		return nil, err
	}
	for _, note := range g.Notes() {
		newUI(c).Note("%s", note)
	}
	if err := g.Join(c.Context, s); err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return g, nil
}

// openCausal opens --data for a language model.
func openCausal(c *cli.Context, o data.CausalOptions) (*data.CausalReader, error) {
	o.Read.Context = c.Context
	switch path := c.String("data"); path {
	case "":
		return nil, &train.UsageError{Err: errors.New("--data is missing: give a file, or - for standard input")}
	case "-":
		in, err := rows.New(io.NopCloser(c.App.Reader), "standard input", o.Read)
		if err != nil {
			return nil, err
		}
		return data.NewCausalReader(in, "standard input", o)
	default:
		return data.OpenCausal(path, o)
	}
}

// textEval is an evaluation in progress.
type textEval struct {
	c          *cli.Context
	group      *dist.Group
	u          train.UI
	out        *json.Encoder
	rows       *data.CausalReader
	withPrompt bool
	length     int
	matcher    *infer.Matcher
	shots      *prompted.FewShot // examples before each instruction; nil: none

	scores  []infer.RowScore
	tokens  int
	matched int
	long    int           // questions that left no room for an answer
	took    time.Duration // of scoring
}

// run scores the file a stretch at a time. Of a row it keeps nothing but its score.
func (e *textEval) run(s *bindings.Scope, g *infer.Generator) error {
	for end := false; !end; {
		var xs []data.CausalExample
		var seqs []data.Sequence
		for len(xs) < stretch {
			x, err := e.rows.Next()
			if errors.Is(err, io.EOF) {
				end = true
				break
			}
			if err != nil {
				return err
			}
			seq, err := e.encode(g, x)
			if err != nil {
				return fmt.Errorf("%s, row %d: %w", x.File, x.Row, err)
			}
			xs, seqs = append(xs, x), append(seqs, seq)
			e.tokens += len(seq.IDs)
		}
		if len(e.scores) == 0 && len(xs) > 0 {
			e.u.Note("%s", e.rows.How())
		}
		if err := e.stretch(s, g, xs, seqs); err != nil {
			return err
		}
	}
	if len(e.scores) == 0 {
		return fmt.Errorf("%s holds no rows", e.c.String("data"))
	}
	if stats := e.rows.Stats(); stats.Skipped > 0 {
		e.u.Note("%d bad rows skipped, the first: %v", stats.Skipped, stats.FirstSkipped)
	}
	if e.long > 0 {
		e.u.Note("%d questions are as long as the model's context or longer: they have no answer, which counts as no match", e.long)
	}
	return nil
}

// encode tokenizes a row, with the examples before it where there are some.
func (e *textEval) encode(g *infer.Generator, x data.CausalExample) (data.Sequence, error) {
	if e.shots != nil {
		return e.shots.Encode(x)
	}
	return g.Encode(x, e.length, e.withPrompt)
}

// stretch scores some rows and writes a line for each.
func (e *textEval) stretch(s *bindings.Scope, g *infer.Generator, xs []data.CausalExample, seqs []data.Sequence) error {
	begun := time.Now()
	score := g.Score
	if e.shots != nil {
		score = g.ScoreShared
	}
	scores, err := score(e.c.Context, s, seqs, infer.ScoreOptions{Batch: e.c.Int("batch-size"), MaxTokens: e.c.Int("max-tokens"),
		Progress: func(done, total int) { e.u.Progress("score", done, total, "") }})
	if err != nil {
		return err
	}
	e.took += time.Since(begun)
	e.scores = append(e.scores, scores...)
	lines := make([]scoredText, len(scores))
	for i, r := range scores {
		lines[i] = scoredText{NLL: r.NLL, Tokens: r.Tokens}
	}
	if e.matcher != nil && len(xs) > 0 {
		if err := e.answer(s, g, xs, lines); err != nil {
			return err
		}
	}
	for _, line := range lines {
		if err := e.out.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// answer lets the model answer the questions of xs and notes in lines which answers match.
func (e *textEval) answer(s *bindings.Scope, g *infer.Generator, xs []data.CausalExample, lines []scoredText) error {
	questions := make([]data.CausalExample, len(xs))
	wanted := make([]string, len(xs))
	at := func(i int, err error) error { return fmt.Errorf("%s, row %d: %w", xs[i].File, xs[i].Row, err) }
	for i, x := range xs {
		var err error
		if questions[i], err = infer.Question(x); err != nil {
			return at(i, err)
		}
		ok := false
		if wanted[i], ok = e.matcher.Find(questions[i].Answer); !ok {
			return at(i, fmt.Errorf("--match finds nothing in the answer %.60q", questions[i].Answer))
		}
		if e.shots != nil {
			if questions[i], err = e.shots.Before(questions[i]); err != nil {
				return at(i, err)
			}
		}
	}
	o := g.Defaults
	if g.Unusable != nil && len(e.scores) == len(xs) {
		e.u.Note("not used for the answers: %v", g.Unusable)
	}
	o.Temperature, o.MaxNew, o.Batch, o.Stop = 0, e.c.Int("max-new-tokens"), e.c.Int("batch-size"), stopsOf(e.c, e.shots)
	o.Share = e.shots != nil
	done := 0
	results, err := g.SharedAnswers(s, questions, o, func(ev generate.Event) error {
		if ev.Reason != "" {
			done++
			e.u.Progress("answer", min(done*e.group.Size(), len(xs)), len(xs), "")
		}
		return nil
	})
	if bad := (*generate.PromptError)(nil); errors.As(err, &bad) {
		return at(bad.Prompt, fmt.Errorf("the prompt %w", bad.Err))
	}
	if err != nil {
		return err
	}
	if done*e.group.Size() < len(xs) {
		e.u.Progress("answer", len(xs), len(xs), "")
	}
	for i, r := range results {
		if r.None {
			e.long++
		}
		got, ok := e.matcher.Find(r.Text)
		same := ok && e.matcher.Same(got, wanted[i])
		if same {
			e.matched++
		}
		lines[i].Answer, lines[i].Match = &r.Text, &same
	}
	return nil
}

func (e *textEval) print() error {
	r := evaluatedText{Rows: len(e.scores), Tokens: e.tokens, TokensPerS: float64(e.tokens) / e.took.Seconds()}
	r.Loss, r.Perplexity, r.Targets = infer.Perplexity(e.scores)
	if r.Targets == 0 {
		return fmt.Errorf("%s: nothing to score: every answer is cut off by --max-length", e.c.String("data"))
	}
	if math.IsNaN(r.Perplexity) || math.IsInf(r.Perplexity, 0) {
		return fmt.Errorf("the model's scores are not finite (loss %v)", r.Loss)
	}
	if e.matcher != nil {
		share := float64(e.matched) / float64(r.Rows)
		r.Match = &share
	}
	w := firstPrints(e.c, e.group)
	if e.c.Bool("json") {
		return printJSON(w, r)
	}
	if _, err := fmt.Fprintf(w, "%d rows, %d target tokens: loss %.4f, perplexity %.2f, %.0f tokens/s\n", r.Rows, r.Targets, r.Loss, r.Perplexity, r.TokensPerS); err != nil {
		return err
	}
	if r.Match == nil {
		return nil
	}
	_, err := fmt.Fprintf(w, "exact match %.4f (%d of %d)\n", *r.Match, e.matched, r.Rows)
	return err
}
