package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/model/hf"
	"gopeft/model/hub"
	"gopeft/train"
	"gopeft/train/infer"
)

func quantizeCommand() *cli.Command {
	return &cli.Command{
		Name: "quantize", Usage: "write a model with its linear maps in 4 or 8 bits, as bitsandbytes does",
		Flags: append(append(inGroup(groupModel,
			&cli.StringFlag{Name: "model", Usage: "model folder, or name on the hub"},
			&cli.StringFlag{Name: "to", Usage: "nf4 (4 bits, double quantised) or int8"},
			&cli.StringFlag{Name: "dtype", Usage: "of the other weights: fp32, bf16 or fp16", DefaultText: "the files'"},
		), inGroup(groupOutput,
			&cli.StringFlag{Name: "out", Usage: "folder to write"},
			&cli.BoolFlag{Name: "overwrite", Usage: "replace what --out holds"},
		)...), append(inGroup(groupMachine,
			&cli.IntFlag{Name: "threads", Usage: "CPU threads", DefaultText: "all cores"},
		), uiFlags()...)...),
		Action: quantize,
	}
}

func quantize(c *cli.Context) error {
	kinds := map[string]hf.Quantisation{"nf4": hf.NF4, "int8": hf.Int8}
	o := infer.QuantiseOptions{Out: c.String("out"), DType: c.String("dtype"), Threads: c.Int("threads")}
	var known bool
	switch o.To, known = kinds[c.String("to")]; {
	case c.String("model") == "":
		return train.Usage("--model is missing: give a model folder, or a name on the hub")
	case c.String("to") == "":
		return train.Usage("--to is missing: nf4 or int8")
	case !known:
		return train.Usage("--to %q is not known (nf4, int8)", c.String("to"))
	case o.Out == "":
		return train.Usage("--out is missing: give a folder to write")
	}
	ui := newUI(c)
	path, err := hub.Find(c.Context, c.String("model"), ui)
	if err != nil {
		return err
	}
	if err := freeOut(c, o.Out, path); err != nil {
		return err
	}
	if o.Seal, err = sealed(c, path, ""); err != nil {
		return err
	}
	var r infer.QuantisedFolder
	err = bindings.Do(c.Context, func(s *bindings.Scope) (err error) {
		r, err = infer.Quantise(c.Context, s, path, o)
		return err
	})
	if err != nil {
		return err
	}
	for _, note := range r.Notes {
		ui.Note("%s", note)
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, r)
	}
	_, err = fmt.Fprintf(c.App.Writer, "%d matrices in %s: %s\n%.0f MB of weights became %.0f MB; read back, %s differ by at most %.3g (values up to %.3g)\n",
		r.Matrices, c.String("to"), r.Out, float64(r.Before)/1e6, float64(r.After)/1e6, r.Compared, r.Difference, r.Largest)
	return err
}
