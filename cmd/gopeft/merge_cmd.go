package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/peft"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/data/rows"
	"gopeft/train/infer"
)

// foldFlags are what merge and convert share.
func foldFlags() []cli.Flag {
	return slices.Concat(inGroup(groupModel,
		&cli.StringFlag{Name: "model", Usage: "the base model, where the adapter does not name it; or the folder of a run"},
		baseFlag(), quantizeFlag(),
	), adapterFlag(), inGroup(groupOutput,
		&cli.StringFlag{Name: "out", Usage: "folder to write"},
		&cli.BoolFlag{Name: "overwrite", Usage: "replace what --out holds"},
	), inGroup(groupCheck,
		&cli.StringFlag{Name: "data", Usage: "texts to compare outputs on before and after", DefaultText: "sentences of gopeft's own"},
		&cli.StringFlag{Name: "text-column", Usage: "column with the text", DefaultText: "guessed"},
		&cli.IntFlag{Name: "limit", Value: 16, Usage: "compare on the first N texts"},
		&cli.IntFlag{Name: "max-length", Usage: "cut texts to this many tokens", DefaultText: "64, or what the model can read"},
	), inGroup(groupMachine,
		&cli.IntFlag{Name: "threads", Usage: "CPU threads", DefaultText: "all cores"},
	))
}

func mergeCommand() *cli.Command {
	return &cli.Command{
		Name: "merge", Usage: "fold an adapter into its base model and write a HuggingFace folder",
		Flags: slices.Concat(foldFlags(), inGroup(groupOutput,
			&cli.StringFlag{Name: "dtype", Value: "fp32", Usage: "of the weights written: fp32, bf16 or fp16"},
		), inGroup(groupCheck,
			&cli.Float64Flag{Name: "tolerance", Usage: "fail when an output changes by more", DefaultText: "0.001; of bf16 4 % and of fp16 0.5 % of the largest output, after folding to 0.001"},
		), uiFlags()),
		Action: func(c *cli.Context) error {
			return fold(c, "merged", func(s *bindings.Scope, src infer.Source, o infer.FoldOptions) (infer.Folded, error) {
				o.DType = c.String("dtype")
				return infer.Merge(c.Context, s, src, o)
			})
		},
	}
}

// dialects are what convert writes.
func dialects() (names []string) {
	for _, d := range peft.Dialects() {
		names = append(names, string(d))
	}
	return names
}

func convertCommand() *cli.Command {
	return &cli.Command{
		Name: "convert", Usage: "write an adapter in the files of another library",
		Flags: slices.Concat(foldFlags(), inGroup(groupOutput,
			&cli.StringFlag{Name: "to", Usage: "whose files to write: " + strings.Join(dialects(), ", ")},
		), inGroup(groupModel,
			&cli.IntFlag{Name: "adapter-length", Usage: "length of the prompts in a checkpoint of LLaMA-Adapter, where its shapes do not tell", DefaultText: "told by the file"},
		), inGroup(groupCheck,
			&cli.Float64Flag{Name: "tolerance", Usage: "fail when an output changes by more", DefaultText: "0.00001"},
		), uiFlags()),
		Action: func(c *cli.Context) error {
			to := c.String("to")
			if to == "" {
				return train.Usage("--to is missing: one of %s", strings.Join(dialects(), ", "))
			}
			if !slices.Contains(dialects(), to) {
				return &train.UsageError{Err: fmt.Errorf("--to %q is not known: one of %s", to, strings.Join(dialects(), ", "))}
			}
			length := c.Int("adapter-length")
			if c.IsSet("adapter-length") && length < 1 {
				return &train.UsageError{Err: fmt.Errorf("--adapter-length is %d, want more than 0", length)}
			}
			return fold(c, "converted to "+to, func(s *bindings.Scope, src infer.Source, o infer.FoldOptions) (infer.Folded, error) {
				o.Load.AdapterLength = length
				return infer.Convert(c.Context, s, src, peft.Dialect(to), o)
			})
		},
	}
}

// fold runs merge or convert.
func fold(c *cli.Context, done string, do func(*bindings.Scope, infer.Source, infer.FoldOptions) (infer.Folded, error)) error {
	o := infer.FoldOptions{Out: c.String("out"), Threads: c.Int("threads"), MaxLength: c.Int("max-length"), BaseDType: c.String("base-dtype"), Quantize: c.String("quantize"), Tolerance: c.Float64("tolerance")}
	if o.Out == "" {
		return &train.UsageError{Err: errors.New("--out is missing: give a folder to write")}
	}
	if c.IsSet("tolerance") && !(o.Tolerance > 0) {
		return &train.UsageError{Err: fmt.Errorf("--tolerance is %v, want more than 0", o.Tolerance)}
	}
	src, err := resolve(c)
	if err != nil {
		return err
	}
	if err := freeOut(c, o.Out, src.Model, src.Adapter); err != nil {
		return err
	}
	if o.Seal, err = sealed(c, src.Model, src.Adapter); err != nil {
		return err
	}
	if path := c.String("data"); path != "" {
		o.Data, err = data.OpenExamples(path, data.LoadOptions{Read: rows.Options{Context: c.Context}, NoLabels: true, TextColumn: c.String("text-column"), Limit: c.Int("limit")})
		if err != nil {
			return err
		}
		defer o.Data.Close()
	}
	var r infer.Folded
	err = bindings.Do(c.Context, func(s *bindings.Scope) (err error) {
		r, err = do(s, src, o)
		return err
	})
	if err != nil {
		return err
	}
	for _, note := range r.Notes {
		newUI(c).Note("%s", note)
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, r)
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s %s: %s\n%s of %d texts differ by at most %.3g (values up to %.3g, tolerance %g)\n",
		r.Method, done, r.Out, r.Compared, r.Texts, r.Difference, r.Largest, r.Tolerance)
	return err
}

// freeOut makes sure that out may be written, and holds none of the inputs: those that flags name, and what else is read.
func freeOut(c *cli.Context, out string, read ...string) error {
	in := inputs(c)
	for _, path := range read {
		if path != "" {
			in = append(in, named{"model", path})
		}
	}
	if err := apart(c, named{"out", out}, in); err != nil {
		return err
	}
	if peft.Dialect(c.String("to")).IsFile() {
		return freeFile(out, c.Bool("overwrite"))
	}
	return freeFolder(out, c.Bool("overwrite"))
}
