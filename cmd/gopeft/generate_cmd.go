package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/model/generate"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/infer"
)

func generateCommand() *cli.Command {
	return &cli.Command{
		Name: "generate", Usage: "continue prompts with a language model: as it is written for one, JSONL for many",
		Flags: slices.Concat(inGroup(groupModel,
			&cli.StringFlag{Name: "model", Usage: "model folder, GGUF file, the folder of a run, or a name on the hub"},
			&cli.StringFlag{Name: "dtype", Value: "fp32", Usage: "of weights and states: fp32, bf16 or fp16"},
			baseFlag(), quantizeFlag(), streamFlag(),
		), adaptersFlag(), inGroup(groupPrompts,
			&cli.StringFlag{Name: "prompt", Usage: "text to continue"},
			&cli.StringFlag{Name: "prompts", Usage: "data file of prompts (prompt, instruction, text, messages or input_ids per row); - is standard input"},
			&cli.StringFlag{Name: "template", Usage: "prompts from columns as in training, e.g. '{question} -> {answer}'; or alpaca for the Alpaca prompt"},
			&cli.StringFlag{Name: "text-column", Usage: "column with the prompt", DefaultText: "guessed"},
			&cli.StringFlag{Name: "format", Usage: "of --prompts: csv, tsv, jsonl, json, parquet or text", DefaultText: "by name and content"},
			&cli.IntFlag{Name: "limit", Usage: "read the first N prompts only"},
			&cli.BoolFlag{Name: "chat", Usage: "ask through the model's chat template"},
			&cli.StringFlag{Name: "system", Usage: "with --chat: the system message"},
			&cli.BoolFlag{Name: "literal", Usage: "read marks such as <|name|> that are no tokens of the model as plain text"},
		), inGroup(groupDecoding,
			&cli.IntFlag{Name: "max-new-tokens", Value: 128, Usage: "new tokens at most; 0: as many as the model's context holds"},
			&cli.Float64Flag{Name: "temperature", Usage: "divides the scores before drawing; 0: always the most probable token", DefaultText: "the model's own, else 0; 1 if another way to draw is set"},
			&cli.IntFlag{Name: "top-k", Usage: "draw from the k most probable tokens", DefaultText: "all"},
			&cli.Float64Flag{Name: "top-p", Usage: "draw from the fewest tokens that hold this much probability", DefaultText: "1"},
			&cli.Float64Flag{Name: "min-p", Usage: "drop tokens less probable than this share of the most probable one's", DefaultText: "none is dropped"},
			&cli.Float64Flag{Name: "repetition-penalty", Usage: "above 1: make tokens that are already there less probable", DefaultText: "1"},
			&cli.Uint64Flag{Name: "seed", Value: 42, Usage: "seed of the draws"},
			&cli.StringSliceFlag{Name: "stop", Usage: `end at this text (\n is a line's end); may be given more than once`},
		), inGroup(groupMachine,
			&cli.StringFlag{Name: "device", Value: "auto", Usage: "auto, cpu, cuda or cuda:N"},
			&cli.IntFlag{Name: "threads", Usage: "CPU threads", DefaultText: "all cores"},
			&cli.IntFlag{Name: "batch-size", Value: 16, Usage: "prompts continued at once"},
		), inGroup(groupOutput,
			&cli.BoolFlag{Name: "echo", Usage: "print the prompt too"},
			&cli.StringFlag{Name: "out", Usage: "file to write", DefaultText: "standard output"},
		), uiFlags()),
		Action: func(c *cli.Context) error {
			if out := c.String("out"); out != "" {
				return writeFile(c.Context, out, func(w io.Writer) error { return generateTo(c, w) })
			}
			return generateTo(c, c.App.Writer)
		},
	}
}

// resolve finds what --model and --adapter name.
func resolve(c *cli.Context) (infer.Source, error) {
	src, err := infer.ResolveAdapters(c.Context, c.String("model"), adaptersOf(c), newUI(c))
	if err != nil {
		return src, err
	}
	read := []string{src.Model, src.Adapter, src.Classifier}
	for _, a := range src.Adapters {
		read = append(read, a.Path)
	}
	return src, keepInputs(c, read...)
}

// adaptersOf are the values of --adapter.
func adaptersOf(c *cli.Context) []string {
	if !c.IsSet("adapter") {
		return nil
	}
	if several := c.StringSlice("adapter"); several != nil {
		return several
	}
	return []string{c.String("adapter")} // in this command the flag takes a single value
}

// adapterFlag is --adapter where one may be given.
func adapterFlag() []cli.Flag {
	return inGroup(groupModel, &cli.StringFlag{Name: "adapter", Usage: "adapter folder, or the folder of a run"})
}

// adaptersFlag is --adapter where several may be given.
func adaptersFlag() []cli.Flag {
	return inGroup(groupModel, &cli.StringSliceFlag{Name: "adapter", Usage: "adapter folder, or the folder of a run; if named (NAME=PATH) or given more than once, rows choose by their adapter column (none: the bare model)"})
}

func generateTo(c *cli.Context, w io.Writer) error {
	if c.IsSet("prompt") == c.IsSet("prompts") {
		return &train.UsageError{Err: errors.New("give --prompt TEXT, or --prompts FILE (- for standard input)")}
	}
	if c.Int("batch-size") < 1 {
		return &train.UsageError{Err: fmt.Errorf("--batch-size is %d, want at least 1", c.Int("batch-size"))}
	}
	if c.IsSet("system") && !c.Bool("chat") {
		return &train.UsageError{Err: errors.New("--system goes with --chat")}
	}
	src, err := resolve(c)
	if err != nil {
		return err
	}
	u := newUI(c)
	return bindings.Do(c.Context, func(s *bindings.Scope) (err error) {
		g, err := infer.OpenGenerator(s, src, infer.GeneratorOptions{Device: c.String("device"), DType: c.String("dtype"), BaseDType: c.String("base-dtype"), Quantize: c.String("quantize"), Stream: c.Bool("stream-weights"), Threads: c.Int("threads")})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, g.Close()) }()
		for _, note := range g.Notes() {
			u.Note("%s", note)
		}
		o, err := generateOptions(c, g, u)
		if err != nil {
			return err
		}
		r, err := openPrompts(c)
		if err != nil {
			return err
		}
		defer r.Close()
		if c.IsSet("prompts") {
			return generateMany(c, s, g, r, o, w, u)
		}
		return generateOne(c, s, g, r, o, w, u)
	})
}

// generateOptions returns the options of the model's generation_config.json, changed by the flags given.
func generateOptions(c *cli.Context, g *infer.Generator, u train.UI) (generate.Options, error) {
	o := g.Defaults
	if g.Unusable != nil {
		return o, g.Unusable
	}
	own := o.Temperature
	o.MaxNew, o.Batch, o.Seed = c.Int("max-new-tokens"), c.Int("batch-size"), c.Uint64("seed")
	drawn := false
	for name, set := range map[string]func(){
		"top-k": func() { o.TopK = c.Int("top-k") }, "top-p": func() { o.TopP = c.Float64("top-p") },
		"min-p": func() { o.MinP = c.Float64("min-p") },
	} {
		if c.IsSet(name) {
			drawn = true
			set()
		}
	}
	if c.IsSet("repetition-penalty") {
		o.RepetitionPenalty = c.Float64("repetition-penalty")
	}
	switch {
	case c.IsSet("temperature"):
		o.Temperature = c.Float64("temperature")
	case drawn && own == 0:
		o.Temperature = 1
	case own > 0:
		u.Note("drawing at temperature %g as the model's generation_config.json says; --temperature 0 takes the most probable token", own)
	}
	o.Stop = unescape(c.StringSlice("stop"))
	if len(o.Stop) > 0 && g.Tokenizer == nil {
		return o, errors.New("--stop: the model has no tokenizer, so its text is not known")
	}
	if err := o.Check(); err != nil {
		return o, &train.UsageError{Err: err}
	}
	return o, nil
}

// generateOne continues --prompt and writes the text token by token.
func generateOne(c *cli.Context, s *bindings.Scope, g *infer.Generator, r *data.CausalReader, o generate.Options, w io.Writer, u train.UI) error {
	if g.Several() {
		return &train.UsageError{Err: errors.New("with several adapters give --prompts: its rows choose by their adapter column")}
	}
	x, err := r.Next()
	if errors.Is(err, io.EOF) {
		return &train.UsageError{Err: errors.New("--prompt holds nothing but blanks")}
	}
	if err != nil {
		return err
	}
	ids, err := g.Prompt(chatOf(c, x), c.Bool("literal"))
	if err != nil {
		return fmt.Errorf("--prompt: %w", err)
	}
	stream := !c.Bool("json")
	if stream && c.Bool("echo") {
		if _, err := io.WriteString(w, x.Prompt); err != nil {
			return err
		}
	}
	begun := time.Now()
	var first time.Duration
	results, err := g.Generate(s, [][]int64{ids}, nil, o, func(e generate.Event) error {
		if first == 0 {
			first = time.Since(begun)
		}
		if !stream || e.Text == "" {
			return nil
		}
		_, err := io.WriteString(w, e.Text)
		return err
	})
	if bad := (*generate.PromptError)(nil); errors.As(err, &bad) {
		err = fmt.Errorf("--prompt %w", bad.Err)
	}
	if stream && first > 0 {
		_, endErr := io.WriteString(w, "\n")
		err = errors.Join(err, endErr)
	}
	if err != nil {
		return err
	}
	res := results[0]
	u.Note("%s", speed(len(ids), len(res.IDs), first, time.Since(begun), res.Reason))
	if stream {
		return nil
	}
	return printJSON(w, lineOf(c, g, x, ids, res))
}

// speed says how fast tokens came and why they ended.
func speed(prompt, n int, first, all time.Duration, reason generate.Reason) string {
	text := fmt.Sprintf("%d tokens of prompt, %d new in %.1f s", prompt, n, all.Seconds())
	if n > 1 && all > first {
		text += fmt.Sprintf(" (%.1f per second)", float64(n-1)/(all-first).Seconds())
	}
	why := map[generate.Reason]string{
		generate.EOS: "the model ended its text", generate.Stop: "ended by --stop",
		generate.Length: "cut off by --max-new-tokens", generate.Context: "cut off: the model's context is full",
	}
	return text + "; " + why[reason]
}

// generated is one line of output.
type generated struct {
	Prompt       *string         `json:"prompt,omitempty"`
	Text         *string         `json:"text,omitempty"` // nil if the model has no tokenizer
	TokenIDs     []int64         `json:"token_ids"`
	PromptTokens int             `json:"prompt_tokens"`
	Reason       generate.Reason `json:"reason"`
	Adapter      string          `json:"adapter,omitempty"`
}

func lineOf(c *cli.Context, g *infer.Generator, x data.CausalExample, ids []int64, r generate.Result) generated {
	line := generated{TokenIDs: r.IDs, PromptTokens: len(ids), Reason: r.Reason}
	if g.Tokenizer != nil {
		line.Text = &r.Text
	}
	if c.Bool("echo") && x.IDs == nil && x.Messages == nil {
		line.Prompt = &x.Prompt
	}
	if g.Several() {
		line.Adapter = x.Extra[0]
	}
	return line
}

// mostPrompts is how many bytes of prompts are held before they are continued, however few these are.
const mostPrompts = 8 << 20

// generateMany continues the prompts of a file and writes a line of JSON for each. It holds eight batches of prompts at a
// time, fewer of long ones, so that the file may be of any length.
func generateMany(c *cli.Context, s *bindings.Scope, g *infer.Generator, r *data.CausalReader, o generate.Options, w io.Writer, u train.UI) error {
	out := bufio.NewWriter(w)
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	begun, total, tokens, full := time.Now(), 0, 0, 0
	for {
		var xs []data.CausalExample
		var ids [][]int64
		var adapters []string
		var failed error
		o.Places = nil
		for held := 0; len(xs) < 8*o.Batch && held < mostPrompts; {
			x, err := r.Next()
			if err != nil {
				failed = err
				break
			}
			p, err := g.Prompt(chatOf(c, x), c.Bool("literal"))
			if err != nil {
				return errors.Join(out.Flush(), fmt.Errorf("%s, row %d: %w", x.File, x.Row, err))
			}
			if err := g.CheckAdapter(x.Extra[0]); err != nil {
				return errors.Join(out.Flush(), fmt.Errorf("%s, row %d: %w", x.File, x.Row, err))
			}
			held += x.Size() + 8*len(p)
			xs, ids, adapters = append(xs, x), append(ids, p), append(adapters, x.Extra[0])
			o.Places = append(o.Places, total+len(xs)-1)
		}
		if total == 0 && r.How() != "" {
			u.Note("prompts: %s", r.How())
		}
		done := 0
		results, err := g.Generate(s, ids, adapters, o, func(ev generate.Event) error {
			tokens++
			if ev.Reason != "" {
				done++
				u.Progress("generate", done, len(xs), fmt.Sprintf("%.1f tokens/s", float64(tokens)/time.Since(begun).Seconds()))
			}
			return nil
		})
		if bad := (*generate.PromptError)(nil); errors.As(err, &bad) {
			err = fmt.Errorf("%s, row %d: the prompt %w", xs[bad.Prompt].File, xs[bad.Prompt].Row, bad.Err)
		}
		if err != nil {
			return errors.Join(out.Flush(), err)
		}
		for i, res := range results {
			if res.Reason == generate.Context {
				full++
			}
			if err := e.Encode(lineOf(c, g, xs[i], ids[i], res)); err != nil {
				return err
			}
		}
		total += len(xs)
		if err := out.Flush(); err != nil {
			return err
		}
		if errors.Is(failed, io.EOF) {
			break
		}
		if failed != nil {
			return failed
		}
	}
	if total == 0 {
		return fmt.Errorf("%s holds no prompts", c.String("prompts"))
	}
	if full > 0 {
		u.Note("%d of %d texts were cut off because the model's context is full", full, total)
	}
	u.Note("%d prompts, %d new tokens in %.1f s (%.1f per second)", total, tokens, time.Since(begun).Seconds(), float64(tokens)/time.Since(begun).Seconds())
	return nil
}
