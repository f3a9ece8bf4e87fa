package corpus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"gopeft/model/fsutil"
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

// Hash gives the hashes of the data's parts. Large data becomes a file of tokens then, as by Open.
func (c Classification) Hash(ctx context.Context) (string, error) {
	task := c.task()
	c.UI = silent{c.UI}
	return c.hash(ctx, task, c.build, func(ctx context.Context) (string, error) {
		splits, err := c.Load(ctx, nil)
		if err != nil {
			return "", err
		}
		return splits.Sum(ctx)
	})
}

// Hash gives the hashes of the data's parts. Large data becomes a file of tokens then, as by Open.
func (c Causal) Hash(ctx context.Context) (string, error) {
	task := c.task()
	c.UI = silent{c.UI}
	return c.hash(ctx, task, c.build, func(ctx context.Context) (string, error) {
		splits, err := c.Load(ctx, nil)
		if err != nil {
			return "", err
		}
		return splits.Sum(ctx)
	})
}

// silent keeps notes to itself: whoever opens the data afterwards says them.
type silent struct{ train.UI }

// Note implements train.UI.
func (silent) Note(string, ...any) {}

func (c Classification) task() any { return []any{"classify", c.Orders} }

func (c Causal) task() any { return []any{"causal", c.Encoder.EOS, c.Encoder.TrainPrompt} }

// builder makes a file of tokens, its rows on disk meanwhile.
type builder func(ctx context.Context, on *spool.File, w *tokens.Writer) error

func (s Source) hash(ctx context.Context, task any, build builder, read func(context.Context) (string, error)) (string, error) {
	f, err := s.open(ctx, task, build)
	if err != nil {
		return "", err
	}
	if f == nil {
		return read(ctx)
	}
	return f.Hash(), f.Close()
}

func (s Source) open(ctx context.Context, task any, build builder) (*tokens.File, error) {
	folder, err := s.Folder()
	if folder == "" || err != nil {
		return nil, err
	}
	before, err := s.stamps()
	if err != nil {
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
		return s.make(ctx, folder, before, build, w)
	})
	switch {
	case err == nil:
	case s.memoryWill(err):
		s.UI.Note("%v: the data stays in memory", err)
		return nil, nil
	default:
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

// memoryWill reports whether an error is of a folder that holds no tokens, and need not: nobody has named it, or all that
// it lacks are locks.
func (s Source) memoryWill(err error) bool {
	unasked := s.Settings.CacheDir == ""
	return errors.Is(err, fsutil.ErrNoLocks) || unasked && (errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS))
}

// make calls build with a file for rows that wait to be tokenized. The data files must be what they were when the key was
// made of them, whose stamps are given.
func (s Source) make(ctx context.Context, folder, stamps string, build builder, w *tokens.Writer) error {
	on, err := spool.Create(folder)
	if err != nil {
		return err
	}
	defer on.Close()
	total := max(1, int(s.size()>>20))
	on.Grown = func(size int64) { s.UI.Progress(readPhase, min(int(size>>20), total-1), total, "MiB") }
	if err := build(ctx, on, w); err != nil {
		return err
	}
	now, err := s.stamps()
	if err == nil && now != stamps {
		err = errors.New("a data file was changed while it was read: run again once it is whole")
	}
	return err
}

// readPhase is the reading of rows, up to the first example that is tokenized.
const readPhase = "read data"

// notes are those of a file's builder, with the data's files as they are called now.
func (s Source) notes(info tokens.Info) []string {
	_, paths := s.paths()
	var renamed [][2]string
	for i, was := range info.Files {
		if i < len(paths) && was != "" {
			renamed = append(renamed, [2]string{was, paths[i]})
		}
	}
	// A path may begin with another: the longest that fits is meant. One that is still called so takes part for that.
	slices.SortStableFunc(renamed, func(a, b [2]string) int { return len(b[0]) - len(a[0]) })
	var pairs []string
	for _, r := range renamed {
		pairs = append(pairs, r[:]...)
	}
	replacer := strings.NewReplacer(pairs...)
	notes := make([]string, len(info.Notes))
	for i, note := range info.Notes {
		notes[i] = replacer.Replace(note)
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
func stream[T any](ctx context.Context, s Source, name string, n int, w *tokens.Writer, encode func(i int) (T, error), use func(T) error) error {
	const chunk = 8 // examples that a goroutine makes at a time: few, for texts may be long
	if err := w.Begin(name); err != nil {
		return err
	}
	workers := max(1, s.Workers)
	chunks := data.Prefetch(ctx, (n+chunk-1)/chunk, 2*workers, workers, func(_ context.Context, c int) ([]T, error) {
		made := []T{}
		for i := c * chunk; i < min((c+1)*chunk, n); i++ {
			x, err := encode(i)
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
