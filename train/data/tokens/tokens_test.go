package tokens

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gopeft/model/fsutil"
)

func ExampleCache_Open() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	f, err := Cache{Dir: dir}.Open(context.Background(), "key", func(_ context.Context, w *Writer) error {
		w.Describe(Options{Vocab: 30522}, Info{Labels: []string{"negative", "positive"}})
		if err := w.Begin("train"); err != nil {
			return err
		}
		for _, e := range []Example{{IDs: []int64{101, 7592, 102}, Label: 1}, {IDs: []int64{101, 102}}} {
			if err := w.Add(e); err != nil {
				return err
			}
		}
		return w.End("hash of the texts")
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	e, err := f.Part("train").Example(0)
	fmt.Println(f.Part("train").Len(), e.IDs, f.Info().Labels[e.Label], err)
	// Output: 2 [101 7592 102] positive <nil>
}

// some makes examples of all kinds.
func some(n int, o Options) []Example {
	r := rand.New(rand.NewPCG(3, 4))
	top := int64(o.Vocab)
	if top == 0 {
		top = math.MaxInt32
	}
	all := make([]Example, n)
	for i := range all {
		e := Example{IDs: make([]int64, r.IntN(40)), Label: r.IntN(5) - 1}
		if o.Causal {
			e.Label, e.Targets = 0, make([]int64, len(e.IDs))
		}
		if o.Sources {
			e.Source = r.IntN(3)
		}
		kind := r.IntN(3)
		for k := range e.IDs {
			e.IDs[k] = r.Int64N(top)
			if !o.Causal {
				continue
			}
			if e.Targets[k] = e.IDs[k]; k%7 < kind*2 {
				e.Targets[k] = noTarget
			}
			if kind == 2 && i%5 == 0 {
				e.Targets[k] = r.Int64N(top) // another token than the one there
			}
		}
		all[i] = e
	}
	return all
}

// fill writes two parts.
func fill(o Options, all []Example) func(context.Context, *Writer) error {
	return func(_ context.Context, w *Writer) error {
		w.Describe(o, Info{Notes: []string{"a note"}, Files: []string{"f"}})
		for i, part := range [][]Example{all[:len(all)/2], all[len(all)/2:]} {
			if err := w.Begin([]string{"train", "val"}[i]); err != nil {
				return err
			}
			for _, e := range part {
				if err := w.Add(e); err != nil {
					return err
				}
			}
			if err := w.End(fmt.Sprint("hash", i)); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestExamplesComeBack(t *testing.T) {
	for _, o := range []Options{{Vocab: 1 << 16}, {Vocab: 1<<16 + 1}, {}, {Vocab: 300, Causal: true}, {Causal: true, Sources: true}, {Sources: true}} {
		t.Run(fmt.Sprintf("%+v", o), func(t *testing.T) {
			all := some(201, o)
			c := Cache{Dir: filepath.Join(t.TempDir(), "new", "folder")}
			f, err := c.Open(context.Background(), "k", fill(o, all))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if f.Hash() != "hash0hash1" || f.Info().Notes[0] != "a note" || f.Part("test") != nil {
				t.Errorf("%q, %+v", f.Hash(), f.Info())
			}
			for i, want := range all {
				p, k := f.Part("train"), i
				if half := len(all) / 2; i >= half {
					p, k = f.Part("val"), i-half
				}
				lengths, err := p.Lengths()
				if err != nil || lengths[k] != len(want.IDs) || len(lengths) != p.Len() {
					t.Fatalf("example %d: length %d, want %d, %v", i, lengths[k], len(want.IDs), err)
				}
				if o.Sources {
					sources, err := p.Sources()
					if err != nil || int(sources[k]) != want.Source {
						t.Fatalf("example %d: source %v, %v", i, sources[k], err)
					}
				}
				want.Source = 0
				got, err := p.Example(k)
				if diff := cmp.Diff(want, got); diff != "" || err != nil {
					t.Fatalf("example %d: %v (-want +got)\n%s", i, err, diff)
				}
			}
			for _, i := range []int{-1, f.Part("train").Len()} {
				if _, err := f.Part("train").Example(i); err == nil {
					t.Errorf("example %d: no error", i)
				}
			}
		})
	}
}

func TestWriterRefuses(t *testing.T) {
	for name, build := range map[string]func(w *Writer) error{
		"id over 2 bytes": func(w *Writer) error {
			w.Describe(Options{Vocab: 10}, Info{})
			return errors.Join(w.Begin("train"), w.Add(Example{IDs: []int64{1 << 16}}))
		},
		"negative id": func(w *Writer) error { return errors.Join(w.Begin("train"), w.Add(Example{IDs: []int64{-1}})) },
		"targets": func(w *Writer) error {
			w.Describe(Options{Causal: true}, Info{})
			return errors.Join(w.Begin("train"), w.Add(Example{IDs: []int64{1}}))
		},
		"no part":    func(w *Writer) error { return w.Add(Example{}) },
		"no begin":   func(w *Writer) error { return w.End("") },
		"two parts":  func(w *Writer) error { return errors.Join(w.Begin("train"), w.Begin("val")) },
		"unfinished": func(w *Writer) error { return w.Begin("train") },
	} {
		dir := t.TempDir()
		_, err := Cache{Dir: dir}.Open(context.Background(), "k", func(_ context.Context, w *Writer) error { return build(w) })
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*"+ending)); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
}

// Every bit counts: whatever is flipped, cut off or put behind, the file is not used.
func TestDamagedFilesAreMadeAnew(t *testing.T) {
	o := Options{Vocab: 500, Causal: true}
	all := some(12, o)
	var notes []string
	builds := 0
	c := Cache{Dir: t.TempDir(), Note: func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }}
	build := func(ctx context.Context, w *Writer) error { builds++; return fill(o, all)(ctx, w) }
	f, err := c.Open(context.Background(), "k", build)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	path := filepath.Join(c.Dir, "k"+ending)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, raw []byte) {
		t.Helper()
		notes, builds = nil, 0
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := c.Open(context.Background(), "k", build)
		if err != nil || builds != 1 || len(notes) != 1 || !strings.Contains(notes[0], "made anew") {
			t.Fatalf("%s: %d builds, notes %q, %v", what, builds, notes, err)
		}
		f.Close()
		if now, _ := os.ReadFile(path); !bytes.Equal(now, good) {
			t.Fatalf("%s: another file", what)
		}
	}
	for at := 0; at < len(good); at += 1 + len(good)/60 {
		flipped := bytes.Clone(good)
		flipped[at] ^= 1 << (at % 8)
		try(fmt.Sprint("bit of byte ", at), flipped)
		try(fmt.Sprint("cut off at ", at), good[:at])
	}
	try("longer", append(bytes.Clone(good), 0))
	try("last byte", good[:len(good)-1])

	other, err := c.Open(context.Background(), "other", build)
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	raw, err := os.ReadFile(filepath.Join(c.Dir, "other"+ending))
	if err != nil {
		t.Fatal(err)
	}
	try("of another key", raw)
}

// A pipe has no other end: neither reading what would be in it nor writing it anew may wait.
func TestPipeInPlaceOfAFileIsAnError(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	if err := syscall.Mkfifo(filepath.Join(c.Dir, "k"+ending), 0o600); err != nil {
		t.Fatal(err)
	}
	o := Options{Vocab: 500}
	if _, err := c.Open(context.Background(), "k", fill(o, some(1, o))); err == nil || !strings.Contains(err.Error(), "not a regular file (--cache-dir") {
		t.Errorf("got %v", err)
	}
}

func TestMappedFileThatIsShortenedIsAnError(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	f, err := c.Open(context.Background(), "k", fill(Options{}, some(5000, Options{})))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(filepath.Join(c.Dir, "k"+ending), 10); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Part("val").Example(2000); err == nil || !strings.Contains(err.Error(), "shortened") {
		t.Errorf("got %v", err)
	}
}

// Many that want the same get it built once.
func TestOneBuildsWhileOthersWait(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	var builds, waits atomic.Int32
	c.Note = func(format string, _ ...any) {
		if strings.Contains(format, "waiting") {
			waits.Add(1)
		}
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			f, err := c.Open(context.Background(), "k", func(ctx context.Context, w *Writer) error {
				builds.Add(1)
				time.Sleep(300 * time.Millisecond)
				return fill(Options{}, some(10, Options{}))(ctx, w)
			})
			if err != nil {
				t.Error(err)
				return
			}
			f.Close()
		})
	}
	wg.Wait()
	if builds.Load() != 1 || waits.Load() != 3 {
		t.Errorf("built %d times, %d waited", builds.Load(), waits.Load())
	}
}

func TestWaitingCanBeCancelled(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	lock, err := c.lock(context.Background(), "k")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Open(ctx, "k", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := lock.Release(); err != nil {
		t.Error(err)
	}
}

// Whatever runs full in the folder, the file or what its builder keeps there: the advice is given, and once.
func TestFullDisk(t *testing.T) {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		c := Cache{Dir: t.TempDir()}
		_, err := c.Open(context.Background(), "k", func(context.Context, *Writer) error { return &fs.PathError{Op: "write", Path: "rows", Err: full} })
		if err == nil || !errors.Is(err, full) || strings.Count(err.Error(), "--cache-dir") != 1 {
			t.Errorf("got %v", err)
		}
	}
}

func TestFailedBuildLeavesNothing(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	want := errors.New("line 7 is bad")
	_, err := c.Open(context.Background(), "k", func(context.Context, *Writer) error { return want })
	if err != want {
		t.Errorf("got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(c.Dir, "*"+ending+"*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// What a process left that was killed while it built is gone once another has built.
func TestKilledBuilderLeavesNoTrace(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(c.Dir, ".k.tokens.tmp-9"), []byte(magic), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := c.Open(context.Background(), "k", fill(Options{}, some(9, Options{})))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if left, _ := filepath.Glob(filepath.Join(c.Dir, ".*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// A header whose checksum holds is checked all the same.
func TestHeaderThatPointsElsewhere(t *testing.T) {
	const end = 1000
	good := func() *header {
		return &header{Width: 2, Parts: []part{{Name: "train", Count: 10, Records: section{16, 200}, Lengths: section{216, 40}, Ends: section{256, 80}, Labels: section{336, 40}}}}
	}
	if err := good().check(end); err != nil {
		t.Fatal(err)
	}
	for what, edit := range map[string]func(h *header, p *part){
		"width":            func(h *header, _ *part) { h.Width = 3 },
		"negative count":   func(_ *header, p *part) { p.Count = -1 },
		"count":            func(_ *header, p *part) { p.Count = 11 },
		"huge count":       func(_ *header, p *part) { p.Count = 1 << 62 },
		"before the body":  func(_ *header, p *part) { p.Records.At = 0 },
		"negative place":   func(_ *header, p *part) { p.Ends.At = -80 },
		"behind the body":  func(_ *header, p *part) { p.Records.At = end + 1 },
		"over the end":     func(_ *header, p *part) { p.Records.Size = end },
		"overflow":         func(_ *header, p *part) { p.Records.Size = math.MaxInt64 },
		"negative size":    func(_ *header, p *part) { p.Records.Size = -1 },
		"labels too short": func(_ *header, p *part) { p.Labels.Size = 36 },
		"no ends":          func(_ *header, p *part) { p.Ends = section{} },
		"some sources":     func(_ *header, p *part) { p.Sources = section{336, 4} },
	} {
		h := good()
		edit(h, &h.Parts[0])
		if err := h.check(end); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestPruneRemovesTheLeastRecentlyUsed(t *testing.T) {
	c := Cache{Dir: t.TempDir()}
	build := fill(Options{}, some(100, Options{}))
	use := func(key string, age time.Duration) int64 {
		f, err := c.Open(context.Background(), key, build)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		path := filepath.Join(c.Dir, key+ending)
		then := time.Now().Add(-age)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	size := use("oldest", 4*time.Hour)
	use("held", 3*time.Hour)
	use("old", 2*time.Hour)
	use("new", time.Hour)
	lock, err := c.lock(context.Background(), "held")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Release() }()
	for _, name := range []string{".killed.tokens.tmp-1", ".held.tokens.tmp-1", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(c.Dir, name), make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	making, err := fsutil.LockFile(filepath.Join(c.Dir, ".held.tokens.tmp-1")) // as who makes it does
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = making.Release() }()
	c.Limit = 3*size + size/2
	use("newest", 0)
	var left []string
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		left = append(left, e.Name())
	}
	want := []string{".held.tokens.tmp-1", "held.lock", "held.tokens", "new.tokens", "newest.tokens", "notes.txt"}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

func FuzzRecord(f *testing.F) {
	for _, e := range some(9, Options{Vocab: 300, Causal: true}) {
		for _, width := range []int{2, 4} {
			raw, err := appendRecord(nil, width, e.IDs, e.Targets)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw, width, len(e.IDs), true)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, width, n int, causal bool) {
		if width != 2 {
			width = 4
		}
		ids, targets, err := decodeRecord(raw, width, n, causal)
		if err != nil {
			return
		}
		if len(ids) != n || causal && len(targets) != n || !causal && targets != nil {
			t.Errorf("%d ids, %d targets for %d", len(ids), len(targets), n)
		}
	})
}
