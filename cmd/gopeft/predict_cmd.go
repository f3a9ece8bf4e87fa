package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/data/rows"
	"gopeft/train/dist"
	"gopeft/train/infer"
)

// stretch is how many rows are read, tokenized and batched by length at a time.
const stretch = 1024

// modelFlags name a model and how to compute with it, for commands that do not train.
func modelFlags() []cli.Flag {
	return slices.Concat(inGroup(groupModel,
		&cli.StringFlag{Name: "model", Usage: "model folder, or the folder of a run"},
	), inGroup(groupMachine,
		&cli.StringFlag{Name: "device", Value: "auto", Usage: "auto, cpu, cuda or cuda:N"},
		&cli.StringFlag{Name: "amp", Value: "auto", Usage: "mixed precision: auto (none), none, bf16 or fp16"},
		baseFlag(), quantizeFlag(), streamFlag(),
		&cli.BoolFlag{Name: "shard-frozen", Usage: "of several processes, each holds its part of the weights, and gathers each block's while it computes"},
		&cli.IntFlag{Name: "threads", Usage: "CPU threads", DefaultText: "all cores"},
		&cli.IntFlag{Name: "batch-size", Value: 32, Usage: "rows of a batch"},
		&cli.IntFlag{Name: "max-tokens", Usage: "most tokens of a batch, padding included"},
	))
}

// quantizeFlag is --quantize of the commands that do not train.
func quantizeFlag() cli.Flag {
	return &cli.StringFlag{Name: "quantize", Usage: "bits of the base's maps: nf4, int8, keep for what its files hold quantised, or none (default: as the run had it, or keep)"}
}

// streamFlag is --stream-weights of the commands that do not train.
func streamFlag() cli.Flag {
	return &cli.BoolFlag{Name: "stream-weights", Usage: "leave weights in their files, or for a GPU in the host's memory, each block's at hand only while it computes; for models larger than memory"}
}

// baseFlag is --base-dtype of the commands that do not train.
func baseFlag() cli.Flag {
	return &cli.StringFlag{Name: "base-dtype", Value: "auto", Usage: "what the base's matrices are held in: fp32, bf16, fp16, or auto: the files' own 16 bits where products are computed in them"}
}

// lengthFlag is --max-length of the commands that take modelFlags and dataFlags.
func lengthFlag() []cli.Flag {
	return inGroup(groupData, &cli.IntFlag{Name: "max-length", Usage: "cut texts to this many tokens", DefaultText: "what the model can read"})
}

// dataFlags name one data file.
func dataFlags() []cli.Flag {
	return inGroup(groupData,
		&cli.StringFlag{Name: "data", Usage: "data file; - is standard input"},
		&cli.StringFlag{Name: "format", Usage: "csv, tsv, jsonl, json, parquet, text, vader or aclimdb", DefaultText: "by name and content"},
		&cli.StringFlag{Name: "text-column", Usage: "column with the text", DefaultText: "guessed"},
		&cli.StringFlag{Name: "label-column", Usage: "column with the label", DefaultText: "guessed"},
		&cli.IntFlag{Name: "limit", Usage: "read the first N rows only"},
		&cli.BoolFlag{Name: "skip-bad-rows", Usage: "count bad rows instead of failing on the first"},
	)
}

// taskFlag is --task of the commands that classify.
func taskFlag() []cli.Flag {
	return inGroup(groupModel, &cli.StringFlag{Name: "task", Usage: "classify, multi-label or regression", DefaultText: "as the head's files say, else classify"})
}

// askedProblem is what --task says the head scores; "" where it says nothing.
func askedProblem(c *cli.Context) (model.Problem, error) {
	task := c.String("task")
	if task == "" {
		return "", nil
	}
	if err := train.CheckTask(task); err != nil {
		return "", err
	}
	if task == train.TaskCausal {
		return "", train.Usage("--task causal: predict classifies; generate writes text")
	}
	return train.ProblemOf(task), nil
}

func openPredictor(c *cli.Context, s *bindings.Scope, group *dist.Group) (*infer.Predictor, error) {
	src, err := resolve(c)
	if err != nil {
		return nil, err
	}
	problem, err := askedProblem(c)
	if err != nil {
		return nil, err
	}
	p, err := infer.OpenPredictor(s, src, infer.PredictorOptions{Device: c.String("device"), AMP: c.String("amp"), BaseDType: c.String("base-dtype"), Quantize: c.String("quantize"), Stream: c.Bool("stream-weights"), Shard: c.Bool("shard-frozen"), Threads: c.Int("threads"),
		Batch: c.Int("batch-size"), MaxTokens: c.Int("max-tokens"), Problem: problem, Group: group})
	if err != nil {
		return nil, err
	}
	for _, note := range p.Notes() {
		newUI(c).Note("%s", note)
	}
	err = limitLength(c, p)
	if err == nil {
		err = p.Join(c.Context, s)
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// limitLength sets how many tokens of a text are read to --max-length, where that is given.
func limitLength(c *cli.Context, p *infer.Predictor) error {
	n := c.Int("max-length")
	if n > p.MaxLength {
		return &train.UsageError{Err: fmt.Errorf("--max-length is %d, the model reads at most %d tokens", n, p.MaxLength)}
	}
	if n > 0 {
		p.MaxLength = n
	}
	return nil
}

func openExamples(c *cli.Context, run *infer.Trained, kind data.Kind, labels []string, extra ...string) (*data.ExampleReader, error) {
	path := c.String("data")
	if path == "" {
		return nil, &train.UsageError{Err: errors.New("--data is missing: give a file, or - for standard input")}
	}
	o := data.LoadOptions{Read: rows.Options{Format: rows.Format(c.String("format")), Context: c.Context}, TextColumn: c.String("text-column"),
		LabelColumn: c.String("label-column"), Kind: kind, Labels: labels, NoLabels: labels == nil, SkipBadRows: c.Bool("skip-bad-rows"), Limit: c.Int("limit"), Extra: extra}
	if run != nil {
		o.LikelyText, o.LikelyLabel = run.Data.TextColumn, run.Data.LabelColumn
	}
	if path == "-" {
		in, err := rows.New(io.NopCloser(c.App.Reader), "standard input", o.Read)
		if err != nil {
			return nil, err
		}
		return data.NewExampleReader(in, "standard input", o)
	}
	return data.OpenExamples(path, o)
}

// saySkipped tells how many bad rows --skip-bad-rows has left out.
func saySkipped(u train.UI, in *data.ExampleReader) {
	if s := in.Stats(); s.Skipped > 0 {
		u.Note("%d bad rows skipped, the first: %v", s.Skipped, s.FirstSkipped)
	}
}

func predictCommand() *cli.Command {
	return &cli.Command{
		Name: "predict", Usage: "classify texts, or predict numbers: one JSON object per row, in input order",
		Flags: slices.Concat(taskFlag(), modelFlags(), distTimeoutFlag(), adaptersFlag(), dataFlags(), lengthFlag(),
			inGroup(groupOutput, &cli.StringFlag{Name: "out", Usage: "file to write", DefaultText: "standard output"}), uiFlags()),
		Action: func(c *cli.Context) error {
			return shared(c, func(group *dist.Group) error {
				if out := firstWrites(group, c.String("out")); out != "" {
					return writeFile(c.Context, out, func(w io.Writer) error { return predict(c, group, w) })
				}
				return predict(c, group, firstPrints(c, group))
			})
		},
	}
}

// predicted is one line of predict's output.
type predicted struct {
	ID      string             `json:"id,omitempty"`
	Label   string             `json:"label,omitempty"`
	Labels  *[]string          `json:"labels,omitempty"` // of multi-label; they may be none
	Values  map[string]float32 `json:"values,omitempty"` // of regression
	Probs   map[string]float32 `json:"probs,omitempty"`
	Logits  []float32          `json:"logits,omitempty"`
	Adapter string             `json:"adapter,omitempty"`
}

// predictedOf is what predict says of a row.
func predictedOf(id string, r infer.Prediction) predicted {
	line := predicted{ID: id, Logits: r.Logits}
	named := func(values []float32) map[string]float32 {
		out := map[string]float32{}
		for k, v := range values {
			out[r.Labels[k]] = v
		}
		return out
	}
	switch r.Problem {
	case model.Regression:
		line.Values, line.Logits = named(r.Logits), nil
	case model.AnyLabels:
		line.Labels, line.Probs = &[]string{}, named(r.Probs)
		for _, k := range r.Chosen {
			*line.Labels = append(*line.Labels, r.Labels[k])
		}
	default:
		line.Label, line.Probs = r.Labels[r.Label], named(r.Probs)
	}
	return line
}

func predict(c *cli.Context, group *dist.Group, w io.Writer) error {
	u := newUI(c)
	out := bufio.NewWriter(w)
	err := bindings.Do(c.Context, func(s *bindings.Scope) (err error) {
		p, err := openPredictor(c, s, group)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.Close()) }()
		in, err := openExamples(c, p.Run(), data.OneLabel, nil, "adapter")
		if err != nil {
			return err
		}
		defer in.Close()
		say := sync.OnceFunc(func() { u.Note("%s", in.Columns()) }) // known once the first row is read
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false)
		for part := range p.Stream(c.Context, in, stretch, p.MaxLength) {
			if part.Err != nil {
				return errors.Join(out.Flush(), part.Err)
			}
			say()
			adapters := make([]string, len(part.Examples))
			for i, x := range part.Examples {
				adapters[i] = x.Extra[0]
				if err := p.CheckAdapter(adapters[i]); err != nil {
					return fmt.Errorf("%s, row %d: %w", x.File, x.Row, err)
				}
			}
			results, err := p.PredictRows(c.Context, s, part, adapters)
			if err != nil {
				return err
			}
			for i, r := range results {
				line := predictedOf(part.Examples[i].ID, r)
				if p.Several() {
					line.Adapter = adapters[i]
				}
				if err := e.Encode(line); err != nil {
					return err
				}
			}
			if err := out.Flush(); err != nil {
				return err
			}
		}
		saySkipped(u, in)
		return c.Context.Err()
	})
	return err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
