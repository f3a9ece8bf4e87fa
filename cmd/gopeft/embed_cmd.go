package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/dist"
	"gopeft/train/infer"
)

func embedCommand() *cli.Command {
	return &cli.Command{
		Name: "embed", Usage: "write one feature vector per text to a .npy or .safetensors file",
		Flags: slices.Concat(modelFlags(), distTimeoutFlag(), adapterFlag(), dataFlags(), lengthFlag(), inGroup(groupOutput,
			&cli.StringFlag{Name: "pool", Usage: "cls (first token), mean (over the tokens) or last", DefaultText: "cls of encoders, last of decoders"},
			&cli.BoolFlag{Name: "normalize", Usage: "scale every vector to length 1"},
			&cli.StringFlag{Name: "out", Usage: "file to write: .npy or .safetensors"},
		), uiFlags()),
		Action: func(c *cli.Context) error { return shared(c, func(group *dist.Group) error { return embed(c, group) }) },
	}
}

func embed(c *cli.Context, group *dist.Group) (err error) {
	out, pool := c.String("out"), c.String("pool")
	if out == "" {
		return &train.UsageError{Err: errors.New("--out is missing: give a file that ends in .npy or .safetensors")}
	}
	if !strings.HasSuffix(out, ".npy") && !strings.HasSuffix(out, ".safetensors") {
		return &train.UsageError{Err: fmt.Errorf("--out %q: give a file that ends in .npy or .safetensors", out)}
	}
	if err := train.CheckPool(pool); err != nil {
		return err
	}
	src, err := resolve(c)
	if err != nil {
		return err
	}
	src.Classifier = ""
	u := newUI(c)
	var kept *vectors
	defer func() { err = errors.Join(err, kept.close()) }()
	skipped := 0
	err = bindings.Do(c.Context, func(s *bindings.Scope) (err error) {
		e, err := infer.OpenEmbedder(s, src, infer.PredictorOptions{Device: c.String("device"), AMP: c.String("amp"), BaseDType: c.String("base-dtype"), Quantize: c.String("quantize"), Stream: c.Bool("stream-weights"), Shard: c.Bool("shard-frozen"),
			Threads: c.Int("threads"), Batch: c.Int("batch-size"), MaxTokens: c.Int("max-tokens"), Group: group})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, e.Close()) }()
		for _, note := range e.Notes() {
			u.Note("%s", note)
		}
		if err := limitLength(c, e); err != nil {
			return err
		}
		if err := e.Join(c.Context, s); err != nil {
			return err
		}
		rows, err := openExamples(c, src.Run, data.OneLabel, nil)
		if err != nil {
			return err
		}
		defer rows.Close()
		say := sync.OnceFunc(func() { u.Note("%s", rows.Columns()) }) // known once the first row is read
		if group.First() {
			if kept, err = newVectors(out, e.Model().Info().Hidden); err != nil {
				return err
			}
		}
		for part := range e.Stream(c.Context, rows, stretch, e.MaxLength) {
			if part.Err != nil {
				return part.Err
			}
			say()
			x, err := e.Embed(c.Context, s, part, pool)
			if err != nil {
				return err
			}
			if c.Bool("normalize") {
				infer.Normalize(x)
			}
			if kept == nil {
				continue
			}
			if err := kept.add(x); err != nil {
				return err
			}
		}
		saySkipped(u, rows)
		skipped = rows.Stats().Skipped
		return c.Context.Err()
	})
	if err != nil || !group.First() {
		return err
	}
	if err := kept.write(c.Context); err != nil {
		return err
	}
	u.Note("%d vectors of %d in %s", kept.rows, kept.cols, out)
	if c.Bool("json") {
		return printJSON(c.App.Writer, embedded{out, kept.rows, kept.cols, skipped})
	}
	return nil
}

// embedded is what embed prints with --json.
type embedded struct {
	File    string `json:"file"`
	Rows    int    `json:"rows"`
	Columns int    `json:"columns"` // values of a vector
	Skipped int    `json:"skipped"` // bad rows
}
