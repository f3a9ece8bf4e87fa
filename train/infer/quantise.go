package infer

import (
	"context"
	"errors"
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/fsutil"
	"gopeft/model/hf"
	"gopeft/train"
)

// QuantiseOptions are what Quantise makes of a model.
type QuantiseOptions struct {
	Out     string          // folder to write
	To      hf.Quantisation // hf.NF4 or hf.Int8
	DType   string          // of the weights that are not quantised: fp32, bf16 or fp16; "": the files'
	Threads int
	Seal    Seal
}

// QuantisedFolder is what Quantise wrote.
type QuantisedFolder struct {
	Out        string   `json:"out"`
	Matrices   int      `json:"quantised_matrices"`
	Before     int64    `json:"bytes_before"` // of weights in files
	After      int64    `json:"bytes_after"`
	Compared   string   `json:"compared"` // "logits", or "hidden states" where there is no head
	Difference float64  `json:"largest_difference"`
	Largest    float64  `json:"largest_value"`
	Notes      []string `json:"notes,omitempty"`
}

// Quantise writes the model at path as a folder of bitsandbytes' form with the maps of its blocks quantised, one tensor at a
// time, and its tokenizer. The folder is read back and its outputs are compared with those of what was written; where they
// differ nothing is left behind.
func Quantise(ctx context.Context, s *bindings.Scope, path string, o QuantiseOptions) (r QuantisedFolder, err error) {
	s.SetThreads(train.Threads(o.Threads))
	file, err := model.FileDType(path)
	if err != nil {
		return r, err
	}
	d := file
	if o.DType != "" {
		if d, err = parseDType(o.DType); err != nil {
			return r, err
		}
	}
	mo := model.Options{Base: d, Quantise: o.To}
	if mo.Classify, err = hasHead(s, path, mo); err != nil {
		return r, err
	}
	m, err := model.Load(s, path, mo)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	for _, p := range m.Params().All() {
		if p.Quantised() {
			r.Matrices++
		}
	}
	if r.Matrices == 0 {
		return r, fmt.Errorf("model %s: none of its weights is quantised", path)
	}
	tok, noTok := train.OpenTokenizer(path)
	if noTok != nil {
		r.Notes = append(r.Notes, fmt.Sprintf("no tokenizer was written: %v", noTok))
	}
	ids := make([]int64, min(64, m.Info().Vocab, m.Info().MaxPositions))
	for i := range ids {
		ids[i] = int64(i * m.Info().Vocab / len(ids))
	}
	before, err := outputs(ctx, s, m, [][]int64{ids})
	if err != nil {
		return r, err
	}
	compared := Folded{}
	r.Out = o.Out
	err = writeOut(o.Out, fsutil.WriteDir, func(dir string) error {
		if err := errors.Join(model.SaveQuantised(s, dir, m, d), copyBeside(path, dir, tok)); err != nil {
			return err
		}
		back, err := model.Load(s, dir, model.Options{Base: d, Quantise: hf.Keep, Classify: mo.Classify})
		if err != nil {
			return fmt.Errorf("reading back what was written: %w", err)
		}
		after, err := outputs(ctx, s, back, [][]int64{ids})
		if err := errors.Join(err, back.Close()); err != nil {
			return err
		}
		compared.Tolerance = max(1e-4, rounding[d]) * before.largest() // vectors are rounded to d
		r.After, err = weightBytes(dir)
		if err := errors.Join(err, compared.compare(before, after)); err != nil {
			return err
		}
		return o.Seal.add(dir)
	})
	r.Compared, r.Difference, r.Largest = compared.Compared, compared.Difference, compared.Largest
	if err == nil {
		r.Before, err = weightBytes(path)
	}
	return r, err
}

// hasHead reports whether a model's files have a classification head.
func hasHead(s *bindings.Scope, path string, o model.Options) (bool, error) {
	o.Classify = true
	d, err := model.Describe(s, path, o)
	if err != nil {
		return false, err
	}
	for _, p := range d.Params {
		for _, head := range d.Heads {
			if ok, _ := model.Matches(head, p.Name); ok && p.DType == "" {
				return false, nil
			}
		}
	}
	return true, nil
}

// weightBytes is the size of a model's files of weights.
func weightBytes(path string) (n int64, err error) {
	c, err := hf.Open(path)
	if err != nil {
		return 0, err
	}
	for _, e := range c.Weights.Entries() {
		n += e.Bytes()
	}
	return n, c.Close()
}
