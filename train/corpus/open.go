package corpus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/data/spool"
	"gopeft/train/data/tokens"
)

// The parts' names in a file of tokens.
const (
	TrainPart = "train"
	ValPart   = "val"
	TestPart  = "test"
)

// Classification is a classifier's data.
type Classification struct {
	Source
	Orders  [][]string // of labels, that Load may put them in
	Encoder data.Encoder
	Load    func(ctx context.Context, on *spool.File) (*data.Splits, error)
}

// Causal is a language model's data.
type Causal struct {
	Source
	Encoder train.CausalEncoder
	Load    func(ctx context.Context, on *spool.File) (*data.CausalSplits, error)
}

// Open gives the data as tokens, nil if it stays in memory.
func (c Classification) Open(ctx context.Context) (*tokens.File, error) {
	return c.open(ctx, c.task(), c.build)
}

// Open gives the data as tokens, nil if it stays in memory.
func (c Causal) Open(ctx context.Context) (*tokens.File, error) {
	return c.open(ctx, c.task(), c.build)
}

// Hash gives the hashes of the data's parts: those in the file of tokens if there is one, else what reading the data gives.
func (c Classification) Hash(ctx context.Context) (string, error) {
	return c.hash(ctx, c.task(), func(ctx context.Context, on *spool.File) (all string, err error) {
		splits, err := c.Load(ctx, on)
		if err != nil {
			return "", err
		}
		return sum(ctx, splits.Train, splits.Val, splits.Test)
	})
}

// Hash gives the hashes of the data's parts: those in the file of tokens if there is one, else what reading the data gives.
func (c Causal) Hash(ctx context.Context) (string, error) {
	return c.hash(ctx, c.task(), func(ctx context.Context, on *spool.File) (all string, err error) {
		splits, err := c.Load(ctx, on)
		if err != nil {
			return "", err
		}
		return sum(ctx, splits.Train, splits.Val, splits.Test)
	})
}

// set is what both kinds of sets have.
type set interface {
	*data.Set | *data.CausalSet
	Len() int
	Sum(ctx context.Context) (string, error)
}

// sum joins the hashes of the parts there are.
func sum[S set](ctx context.Context, parts ...S) (all string, err error) {
	for _, part := range parts {
		if part == nil || part.Len() == 0 {
			continue
		}
		one, err := part.Sum(ctx)
		if err != nil {
			return "", err
		}
		all += one
	}
	return all, nil
}

func (c Classification) task() any { return []any{"classify", c.Orders} }

func (c Causal) task() any { return []any{"causal", c.Encoder.EOS, c.Encoder.TrainPrompt} }

func (s Source) hash(ctx context.Context, task any, read func(context.Context, *spool.File) (string, error)) (string, error) {
	folder, err := s.Folder()
	if err != nil {
		return "", err
	}
	if folder == "" {
		return read(ctx, nil)
	}
	key, err := s.key(ctx, task)
	if err != nil {
		return "", err
	}
	if hash := (tokens.Cache{Dir: folder}).Hash(key); hash != "" {
		return hash, nil
	}
	on, err := s.spool(folder)
	if err != nil {
		return "", err
	}
	defer on.Close()
	return read(ctx, on)
}

// spool makes the file for rows that wait to be tokenized.
func (s Source) spool(folder string) (*spool.File, error) {
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return nil, err
	}
	return spool.Create(folder)
}

func (s Source) open(ctx context.Context, task any, build func(context.Context, *spool.File, *tokens.Writer) error) (*tokens.File, error) {
	folder, err := s.Folder()
	if folder == "" || err != nil {
		return nil, err
	}
	key, err := s.key(ctx, task)
	if err != nil {
		return nil, err
	}
	made := false
	f, err := tokens.Cache{Dir: folder, Note: s.UI.Note}.Open(ctx, key, func(ctx context.Context, w *tokens.Writer) error {
		made = true
		s.UI.Note("tokens of the data: made once, in %s, for all epochs and later runs (--cache-dir)", folder)
		on, err := s.spool(folder)
		if err != nil {
			return err
		}
		return errors.Join(build(ctx, on, w), on.Close())
	})
	if err != nil {
		return nil, err
	}
	if !made {
		s.UI.Note("tokens of the data: made before, in %s", folder)
	}
	for _, note := range s.notes(f.Info()) {
		s.UI.Note("%s", note)
	}
	return f, nil
}

// notes are those of a file's builder, with the data's files as they are called now.
func (s Source) notes(info tokens.Info) []string {
	_, paths := s.paths()
	notes := append([]string(nil), info.Notes...)
	for i, was := range info.Files {
		if i >= len(paths) || was == paths[i] || was == "" {
			continue
		}
		for k := range notes {
			notes[k] = strings.ReplaceAll(notes[k], was, paths[i])
		}
	}
	return notes
}

// labelled is an example as tokens, beside what it was.
type labelled struct {
	ex  data.Example
	ids []int64
}

func (c Classification) build(ctx context.Context, on *spool.File, w *tokens.Writer) error {
	splits, err := c.Load(ctx, on)
	if err != nil {
		return err
	}
	_, paths := c.paths()
	w.Describe(tokens.Options{Vocab: c.Vocab, Sources: splits.Train.Sources() != nil}, tokens.Info{Labels: splits.Train.Labels, Notes: splits.Notes(), Files: paths})
	for _, p := range []struct {
		name string
		set  *data.Set
	}{{TrainPart, splits.Train}, {ValPart, splits.Val}, {TestPart, splits.Test}} {
		if p.set == nil || p.set.Len() == 0 {
			continue
		}
		h, at := p.set.Hasher(), 0
		err := stream(ctx, c.Source, p.name, p.set.Len(), w, func(i int) (x labelled, err error) {
			if x.ex, err = p.set.Example(i); err == nil {
				x.ids, err = data.Encode(c.Encoder, x.ex, c.MaxLength, c.Vocab)
			}
			return x, err
		}, func(x labelled) error {
			h.Add(x.ex)
			return w.Add(tokens.Example{IDs: x.ids, Label: x.ex.Label, Source: next(p.set.Sources(), &at)})
		})
		if err != nil {
			return fmt.Errorf("%s: %w", p.set.File, err)
		}
		if err := w.End(h.Sum()); err != nil {
			return err
		}
	}
	return nil
}

// learned is a causal example as tokens, beside what it was.
type learned struct {
	ex  data.CausalExample
	seq data.Sequence
}

func (c Causal) build(ctx context.Context, on *spool.File, w *tokens.Writer) error {
	splits, err := c.Load(ctx, on)
	if err != nil {
		return err
	}
	_, paths := c.paths()
	w.Describe(tokens.Options{Vocab: c.Vocab, Causal: true, Sources: splits.Train.Sources() != nil}, tokens.Info{Notes: splits.Notes(), Files: paths})
	for _, p := range []struct {
		name string
		set  *data.CausalSet
	}{{TrainPart, splits.Train}, {ValPart, splits.Val}, {TestPart, splits.Test}} {
		if p.set == nil || p.set.Len() == 0 {
			continue
		}
		h, at, targets := p.set.Hasher(), 0, 0
		err := stream(ctx, c.Source, p.name, p.set.Len(), w, func(i int) (x learned, err error) {
			if x.ex, err = p.set.Example(i); err == nil {
				x.seq, err = c.Encoder.EncodeRow(x.ex)
			}
			return x, err
		}, func(x learned) error {
			h.AddCausal(x.ex)
			targets += x.seq.NumTargets()
			return w.Add(tokens.Example{IDs: x.seq.IDs, Targets: x.seq.Targets, Source: next(p.set.Sources(), &at)})
		})
		if err != nil {
			return err
		}
		if targets == 0 {
			return c.Encoder.NoTargets(p.set.File)
		}
		if err := w.End(h.Sum()); err != nil {
			return err
		}
	}
	return nil
}

// next gives the source of example at, 0 where there is one file, and moves on.
func next(sources []uint16, at *int) (source int) {
	if sources != nil {
		source = int(sources[*at])
	}
	*at++
	return source
}

// stream begins a part and passes its examples, made on several goroutines, to use one after the other. The error is that
// of the first example that fails.
func stream[T any](ctx context.Context, s Source, name string, n int, w *tokens.Writer, make func(i int) (T, error), use func(T) error) error {
	const chunk = 64 // examples that a goroutine makes at a time
	if err := w.Begin(name); err != nil {
		return err
	}
	workers := max(1, s.Workers)
	chunks := data.Prefetch(ctx, (n+chunk-1)/chunk, 2*workers, workers, func(_ context.Context, c int) ([]T, error) {
		made := []T{}
		for i := c * chunk; i < min((c+1)*chunk, n); i++ {
			x, err := make(i)
			if err != nil {
				return nil, err
			}
			made = append(made, x)
		}
		return made, nil
	})
	done := 0
	for made, err := range chunks {
		if err != nil {
			return err
		}
		for _, x := range made {
			if err := use(x); err != nil {
				return err
			}
		}
		done += len(made)
		s.UI.Progress("tokenize "+name, done, n, "")
	}
	return ctx.Err()
}
