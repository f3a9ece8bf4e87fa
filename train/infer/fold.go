package infer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/fsutil"
	"gopeft/model/tokenizer"
	"gopeft/peft"
	"gopeft/train"
	"gopeft/train/data"
)

// FoldOptions are how Merge and Convert work and what they check their result on.
type FoldOptions struct {
	Out       string // folder (or, of some dialects, file) to write
	DType     string // of merged weights: fp32, bf16 or fp16
	BaseDType string // of the base's matrices, as --base-dtype has it; "": auto, the files' own 16 bits
	Quantize  string // bits that the base is held in, as PredictorOptions has it: what is folded into is what that makes of it
	Threads   int
	Data      *data.ExampleReader // texts to compare on; nil: sentences of our own
	MaxLength int                 // tokens of a text compared; 0: 64, or what the model can read
	Load      peft.LoadOptions    // how Convert reads the adapter
	Tolerance float64             // largest difference of a logit that passes; 0: for Merge by dtype
	Seal      Seal
}

// Seal is called with a folder that is complete and found right, before it goes to its place: it may add to it. nil: nothing is.
type Seal func(dir string) error

func (f Seal) add(dir string) error {
	if f == nil {
		return nil
	}
	return f(dir)
}

// Folded is what Merge and Convert found when they compared.
type Folded struct {
	Method     string  `json:"method"`
	Out        string  `json:"out"`
	Texts      int     `json:"texts"`
	Compared   string  `json:"compared"` // "logits", or "hidden states" where there is no head
	Difference float64 `json:"largest_difference"`
	Largest    float64 `json:"largest_value"`
	Tolerance  float64 `json:"tolerance"`
	// Folding is the largest difference before the weights are rounded to the dtype they are written in.
	Folding float64  `json:"folding_difference,omitempty"`
	Notes   []string `json:"notes,omitempty"` // on how the adapter was loaded
}

// sentences are compared on where no data is given.
var sentences = []string{
	"The museum opens at nine, but the queue starts forming well before eight.",
	"I wanted to like this film; the cast is strong and the first hour works, yet the ending throws it all away.",
	"How many litres of paint are needed for two walls of 3.5 by 2.4 metres?",
	"Shares of the shipping company fell 4 % after it cut its forecast for the third quarter.",
	"Boil the potatoes, drain them, and mash them with butter, warm milk and a little nutmeg.",
	"She said: \"No, I have never been to Kraków — but my brother lives there.\"",
	"What a waste of two hours.",
	"An absolute delight from start to finish!",
}

// foldTolerance is how much of an output may change by folding, all in fp32.
const foldTolerance = 1e-3

// rounding is how much of the largest output may change by rounding weights to a half precision.
var rounding = map[bindings.DType]float64{bindings.BFloat16: 0.04, bindings.Half: 0.005}

// Merge folds the source's adapter into its base model, in fp32, and writes a HuggingFace folder with the tokenizer.
// The folder is read back and its outputs are compared, in fp32 too, with those of base and adapter; above the
// tolerance nothing is left behind.
func Merge(ctx context.Context, s *bindings.Scope, src Source, o FoldOptions) (Folded, error) {
	var r Folded
	info, err := adapterOf(src)
	if err != nil {
		return r, err
	}
	if ok, reason := src.Methods.Mergeable(info.Method); !ok {
		return r, fmt.Errorf("%s cannot be merged: %s", info.Method, reason)
	}
	dtype, err := parseDType(o.DType)
	if err != nil {
		return r, err
	}
	s.SetThreads(train.Threads(o.Threads))
	r = Folded{Method: info.Method, Out: o.Out, Tolerance: o.Tolerance}
	tok, noTok := train.OpenTokenizer(src.Model)
	facts, err := model.ReadFacts(src.Model)
	if err != nil {
		return r, err
	}
	texts, err := foldTexts(o, facts.Room, tok, noTok)
	if err != nil {
		return r, err
	}
	merged, before, err := r.merge(ctx, s, src, info, o, dtype, texts)
	if err != nil {
		return r, err
	}
	closeMerged := sync.OnceValue(merged.Close)
	defer func() { _ = closeMerged() }() // where nothing could be written
	err = writeOut(o.Out, fsutil.WriteDir, func(dir string) error {
		// Two models at once would take twice the memory.
		if err := errors.Join(model.SaveAs(s, dir, merged, dtype), closeMerged()); err != nil {
			return err
		}
		if err := copyBeside(src.Model, dir, tok); err != nil {
			return err
		}
		m, err := model.Load(s, dir, model.Options{Classify: info.NumLabels > 0})
		if err != nil {
			return fmt.Errorf("reading back what was written: %w", err)
		}
		after, err := outputs(ctx, s, m, texts)
		if err := errors.Join(err, m.Close()); err != nil {
			return err
		}
		if err := r.compare(before, after); err != nil {
			return err
		}
		return o.Seal.add(dir)
	})
	return r, err
}

// adapterOf says what the source's adapter is.
func adapterOf(src Source) (peft.Info, error) {
	switch {
	case src.Classifier != "":
		return peft.Info{}, fmt.Errorf("%s is a classic classifier, not an adapter", src.Classifier)
	case src.Adapter == "":
		return peft.Info{}, fmt.Errorf("%s is a whole model: there is no adapter; give one with --adapter", src.Model)
	}
	return src.Methods.Probe(src.Adapter)
}

// merge loads the model with the adapter and folds it, and gives the outputs as they were before. r is left with the
// tolerance for what is written in dtype. The caller closes the model.
func (r *Folded) merge(ctx context.Context, s *bindings.Scope, src Source, info peft.Info, o FoldOptions, dtype bindings.DType, texts [][]int64) (model.Model, outcome, error) {
	m, method, err := loadWithAdapter(s, src, info, o, dtype)
	if err != nil {
		return nil, outcome{}, err
	}
	before, err := r.fold(ctx, s, m, method, dtype, texts)
	if err != nil {
		return nil, outcome{}, errors.Join(err, m.Close())
	}
	return m, before, nil
}

func (r *Folded) fold(ctx context.Context, s *bindings.Scope, m model.Model, method peft.Method, dtype bindings.DType, texts [][]int64) (out outcome, err error) {
	r.Notes = method.Notes()
	quantised := model.Quantised(m)
	if out, err = outputs(ctx, s, m, texts); err != nil { // closing the model frees the method too
		return out, err
	}
	if err := peft.Merge(s, method, m); err != nil {
		return out, err
	}
	given := r.Tolerance
	if r.Tolerance == 0 {
		r.Tolerance = foldTolerance
	}
	share := rounding[dtype]
	if quantised && given == 0 && share > 0 { // its maps are folded into weights of dtype
		r.Tolerance = share * out.largest()
		return out, nil
	}
	if share > 0 { // else what is read back is what was folded
		folded, err := outputs(ctx, s, m, texts)
		if err != nil {
			return out, err
		}
		if err := r.compare(out, folded); err != nil {
			return out, err
		}
		if r.Folding, r.Difference = r.Difference, 0; given == 0 {
			r.Tolerance = share * r.Largest
		}
	}
	return out, nil
}

// loadWithAdapter loads the source, to be computed with in fp32. Its matrices stay in the files' 16 bits, which loses
// nothing, or quantised: what is folded into such has dtype d.
func loadWithAdapter(s *bindings.Scope, src Source, info peft.Info, o FoldOptions, d bindings.DType) (model.Model, peft.Method, error) {
	file, err := model.FileDType(src.Model)
	if err != nil {
		return nil, nil, err
	}
	base, err := src.base(o.BaseDType, o.Quantize, train.Precision{DType: file})
	if err != nil {
		return nil, nil, err
	}
	mo := model.Options{As: info.Family, Classify: info.NumLabels > 0, Labels: info.Labels, Base: base.DType, Quantise: base.Quantise}
	if described, err := model.Describe(s, src.Model, mo); err != nil {
		return nil, nil, err
	} else if described.Quantised {
		mo.Base = d
	}
	m, err := model.Load(s, src.Model, mo)
	if err != nil {
		return nil, nil, err
	}
	method, err := src.Methods.LoadWith(s, src.Adapter, m, o.Load)
	if err != nil {
		return nil, nil, errors.Join(err, m.Close())
	}
	return m, method, nil
}

// copyBeside puts the tokenizer and generation_config.json of a model into dir.
func copyBeside(from, dir string, tok *tokenizer.Tokenizer) error {
	if tok != nil {
		if err := tok.Save(dir); err != nil {
			return err
		}
	}
	const name = "generation_config.json"
	raw, err := fsutil.ReadSmall(filepath.Join(from, name), fsutil.MaxSettings)
	if err != nil {
		return nil // most models have none, and a GGUF file is no folder
	}
	return os.WriteFile(filepath.Join(dir, name), raw, 0o666)
}

// Convert writes the source's adapter in another dialect, reads it back and compares the outputs; above the
// tolerance nothing is left behind.
func Convert(ctx context.Context, s *bindings.Scope, src Source, d peft.Dialect, o FoldOptions) (r Folded, err error) {
	info, err := adapterOf(src)
	if err != nil {
		return r, err
	}
	s.SetThreads(train.Threads(o.Threads))
	if o.Tolerance == 0 {
		o.Tolerance = 1e-5
	}
	r = Folded{Method: info.Method, Out: o.Out, Tolerance: o.Tolerance}
	m, method, err := loadWithAdapter(s, src, info, o, bindings.Float)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	tok, noTok := src.tokenizer()
	texts, err := foldTexts(o, m.Info().MaxPositions-m.Hooks().PromptLen(), tok, noTok)
	if err != nil {
		method.Close()
		return r, err
	}
	r.Notes = method.Notes()
	before, err := outputs(ctx, s, m, texts)
	method.Close()
	if err != nil {
		return r, err
	}
	into := func(path string) error {
		if err := src.Methods.Convert(s, src.Adapter, path, d, m, o.Load); err != nil {
			return err
		}
		method, err := src.Methods.Load(s, path, m)
		if err != nil {
			return fmt.Errorf("reading back what was written: %w", err)
		}
		defer method.Close()
		after, err := outputs(ctx, s, m, texts)
		if err != nil {
			return err
		}
		if err := r.compare(before, after); err != nil || d.IsFile() {
			return err
		}
		return o.Seal.add(path)
	}
	write := writeThrough
	if !d.IsFile() {
		write = fsutil.WriteDir
	}
	err = writeOut(o.Out, write, into)
	return r, err
}

// writeOut makes path with write, which names it in its errors, and build. An error of build that is of no file, such as
// outputs that differ, is returned as it is: nothing failed in writing.
func writeOut(path string, write func(string, func(string) error) error, build func(string) error) error {
	var own error
	err := write(path, func(dir string) error {
		err := build(dir)
		if file := syscall.Errno(0); err != nil && !errors.As(err, &file) {
			own = err
		}
		return err
	})
	if own != nil {
		return own
	}
	return err
}

// writeThrough lets write make a file elsewhere in the folder of path, and moves it there when that succeeds.
func writeThrough(path string, write func(path string) error) (err error) {
	if path, err = fsutil.Target(path); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), ".gopeft-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	made := filepath.Join(dir, filepath.Base(path))
	if err := write(made); err != nil {
		return err
	}
	return os.Rename(made, path)
}

// foldTexts are the token sequences to compare on, which fit into room.
func foldTexts(o FoldOptions, room int, tok *tokenizer.Tokenizer, noTok error) ([][]int64, error) {
	enc := train.Encoder{Tokenizer: tok, Missing: noTok}
	asked := o.MaxLength
	if asked == 0 {
		asked = min(64, room)
	}
	length, err := train.ClampLength(asked, room)
	if err != nil {
		return nil, err
	}
	if o.Data == nil {
		if tok == nil {
			return nil, errors.Join(errors.New("the model has no tokenizer: give rows of input_ids to compare on with --data"), noTok)
		}
		ids := make([][]int64, len(sentences))
		for i, text := range sentences {
			if ids[i], err = enc.EncodeIDs(nil, text, length); err != nil {
				return nil, err
			}
		}
		return ids, nil
	}
	var out [][]int64
	for {
		x, err := o.Data.Next()
		if errors.Is(err, io.EOF) {
			if len(out) == 0 {
				return nil, errors.New("--data holds no texts to compare on")
			}
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		ids := x.IDs
		if ids == nil {
			if ids, err = enc.EncodeIDs(nil, x.Text, length); err != nil {
				return nil, err
			}
		}
		ids = ids[:min(len(ids), length)]
		out = append(out, ids)
	}
}

// outcome is a model's output for some texts.
type outcome struct {
	what   string
	values [][]float32
}

// outputs computes class scores, token scores, or without any head the last hidden states.
func outputs(ctx context.Context, s *bindings.Scope, m model.Model, texts [][]int64) (outcome, error) {
	o := outcome{what: "logits"}
	lm, _ := m.(model.CausalLM)
	if lm != nil && lm.LMHead() == nil && m.Hooks().Unembed == nil {
		lm = nil
	}
	if len(m.Labels()) == 0 && lm == nil {
		o.what = "hidden states"
	}
	dev := m.Params().All()[0].Device()
	for _, ids := range texts {
		if err := ctx.Err(); err != nil {
			return o, err
		}
		err := s.Run(func(s *bindings.Scope) error {
			s.Inference(func() {
				in := model.Input{IDs: s.Int64sOn(dev, ids, 1, int64(len(ids)))}
				out := m.Forward(s, in)
				var y bindings.Tensor
				switch {
				case len(m.Labels()) > 0:
					y = m.Classify(s, in, out)
				case lm != nil:
					y = lm.Logits(s, s.Narrow(out.Hidden, 1, int64(out.Virtual), int64(len(ids))))
				default:
					y = s.Narrow(out.Hidden, 1, int64(out.Virtual), int64(len(ids)))
				}
				o.values = append(o.values, s.To(y, bindings.Float).Float32s())
			})
			return nil
		})
		if err != nil {
			return o, err
		}
	}
	return o, nil
}

// largest is the largest value.
func (o outcome) largest() (most float64) {
	for _, row := range o.values {
		for _, v := range row {
			most = max(most, math.Abs(float64(v)))
		}
	}
	return most
}

// compare records the largest difference, and fails when it is above the tolerance or no number.
func (r *Folded) compare(before, after outcome) error {
	r.Compared, r.Texts = before.what, len(before.values)
	for i, row := range before.values {
		if len(row) != len(after.values[i]) {
			return fmt.Errorf("text %d: %d values before, %d after", i+1, len(row), len(after.values[i]))
		}
		for k, v := range row {
			d := math.Abs(float64(v) - float64(after.values[i][k]))
			if !(d <= r.Difference) { // not a number stays
				r.Difference = d
			}
			r.Largest = max(r.Largest, math.Abs(float64(v)))
		}
	}
	if !(r.Difference <= r.Tolerance) {
		return fmt.Errorf("%s differ by up to %.3g (values up to %.3g), more than the tolerance of %g: nothing was kept", r.Compared, r.Difference, r.Largest, r.Tolerance)
	}
	return nil
}
