package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/model/fsutil"
	"gopeft/train"
	"gopeft/train/classic"
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

func embed(c *cli.Context, group *dist.Group) error {
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
	var x classic.Matrix
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
		rows, err := openExamples(c, src.Run, nil)
		if err != nil {
			return err
		}
		defer rows.Close()
		say := sync.OnceFunc(func() { u.Note("%s", rows.Columns()) }) // known once the first row is read
		x.Cols = e.Model().Info().Hidden
		for part := range e.Stream(c.Context, rows, stretch, e.MaxLength) {
			if part.Err != nil {
				return part.Err
			}
			say()
			y, err := e.Embed(c.Context, s, part.IDs, pool)
			if err != nil {
				return err
			}
			x.Rows += y.Rows
			x.Data = append(x.Data, y.Data...)
		}
		saySkipped(u, rows)
		skipped = rows.Stats().Skipped
		return c.Context.Err()
	})
	if err != nil || !group.First() {
		return err
	}
	if c.Bool("normalize") {
		infer.Normalize(x)
	}
	fsutil.Sweep(out)
	if strings.HasSuffix(out, ".npy") {
		err = fsutil.WriteFile(out, func(w io.Writer) error { return writeNPY(w, x) })
	} else {
		err = classic.WriteMatrix(out, x, nil)
	}
	if err != nil {
		return err
	}
	u.Note("%d vectors of %d in %s", x.Rows, x.Cols, out)
	if c.Bool("json") {
		return printJSON(c.App.Writer, embedded{out, x.Rows, x.Cols, skipped})
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

// writeNPY writes a matrix in NumPy's format, version 1.0, fp32 in C order.
func writeNPY(w io.Writer, x classic.Matrix) error {
	header := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", x.Rows, x.Cols)
	// The header follows 10 bytes of magic, version and length, and is padded so that the data begin at a multiple of 64.
	header += strings.Repeat(" ", (64-(10+len(header)+1)%64)%64) + "\n"
	if _, err := io.WriteString(w, "\x93NUMPY\x01\x00"); err != nil {
		return err
	}
	if err := binary.Write(w, binary.LittleEndian, uint16(len(header))); err != nil {
		return err
	}
	if _, err := io.WriteString(w, header); err != nil {
		return err
	}
	return binary.Write(w, binary.LittleEndian, x.Data)
}
