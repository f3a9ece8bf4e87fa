package corpus_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/parquet-go/parquet-go"

	"gopeft/train"
	"gopeft/train/corpus"
	"gopeft/train/data"
	"gopeft/train/data/spool"
)

// words tokenizes by words: their lengths are the ids.
type words struct{}

func (words) EncodeIDs(dst []int64, text string, maxLength int) ([]int64, error) {
	for _, w := range strings.Fields(text) {
		if len(dst) == maxLength && maxLength > 0 {
			break
		}
		dst = append(dst, int64(len(w)))
	}
	return dst, nil
}

// watch is a UI that notes how much memory is in use, and what is said.
type watch struct {
	most  uint64
	notes []string
}

func (w *watch) Note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

func (w *watch) Progress(_ string, done, total int, _ string) {
	if done%(1<<10) < 8 || done == total {
		w.most = max(w.most, inUse())
	}
}

// inUse is how much memory is needed, without garbage.
func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

type row struct {
	Text  string `parquet:"text"`
	Label string `parquet:"label"`
}

// writeReviews writes so many bytes of reviews in each format.
func writeReviews(t *testing.T, format string, bytes int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "reviews."+format)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	write := func(r row) error {
		_, err := fmt.Fprintf(w, "{\"text\": %q, \"label\": %q}\n", r.Text, r.Label)
		return err
	}
	end := func() error { return nil }
	switch format {
	case "csv":
		fmt.Fprintln(w, "text,label")
		write = func(r row) error { _, err := fmt.Fprintf(w, "%s,%s\n", r.Text, r.Label); return err }
	case "parquet":
		p := parquet.NewGenericWriter[row](w, parquet.MaxRowsPerRowGroup(2000), parquet.Compression(&parquet.Snappy))
		write = func(r row) error { _, err := p.Write([]row{r}); return err }
		end = p.Close
	}
	r := rand.New(rand.NewPCG(1, 2))
	for written := 0; written < bytes; {
		var b strings.Builder
		for range 20 + r.IntN(1000) {
			b.WriteString("a bb ccc dddd eeeee"[:1+r.IntN(18)] + " ")
		}
		if err := write(row{b.String(), []string{"neg", "pos"}[r.IntN(2)]}); err != nil {
			t.Fatal(err)
		}
		written += b.Len()
	}
	if err := errors.Join(end(), w.Flush()); err != nil {
		t.Fatal(err)
	}
	return path
}

// classification is data whose tokens are words.
func classification(t *testing.T, ui train.UI, s data.Settings) corpus.Classification {
	t.Helper()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "config.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	return corpus.Classification{
		Source:  corpus.Source{Settings: s, Seed: 5, Model: folder, MaxLength: 2000, Vocab: 100, UI: ui, Workers: 2},
		Encoder: words{},
		Load: func(ctx context.Context, on *spool.File) (*data.Splits, error) {
			o := s.LoadOptions(nil, 5)
			o.Spool = on
			return data.LoadSplits(ctx, s.Sources(5), o)
		},
	}
}

// However large the data: what making the file takes is bounded, and so is what reading all of it does.
func TestDataLargerThanMemory(t *testing.T) {
	const size, limit = 32 << 20, 8 << 20
	for _, format := range []string{"jsonl", "csv", "parquet"} {
		t.Run(format, func(t *testing.T) {
			path := writeReviews(t, format, size)
			seen := &watch{}
			before := inUse()
			c := classification(t, seen, data.Settings{Data: path, Split: []float64{0.8, 0.1, 0.1}, Stratify: true, CacheDir: t.TempDir()})
			f, err := c.Open(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if grown := int64(seen.most) - int64(before); grown > limit {
				t.Errorf("%d MiB of memory for %d MiB of data", grown>>20, size>>20)
			}
			t.Logf("%d KiB of memory for %d MiB of data", (int64(seen.most)-int64(before))>>10, size>>20)
			want, err := c.Load(context.Background(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if hash := want.Train.Hash() + want.Val.Hash() + want.Test.Hash(); f.Hash() != hash {
				t.Error("another hash than in memory")
			}
			part := f.Part(corpus.TrainPart)
			for i, ex := range want.Train.Examples {
				got, err := part.Example(i)
				if err != nil || len(got.IDs) != min(2000, len(strings.Fields(ex.Text))) || got.Label != ex.Label {
					t.Fatalf("example %d: %d tokens of class %d, %v", i, len(got.IDs), got.Label, err)
				}
			}
		})
	}
}

func ExampleSource_Folder() {
	s := corpus.Source{Settings: data.Settings{Train: os.DevNull, CacheDir: corpus.None}}
	folder, err := s.Folder()
	fmt.Printf("%q %v\n", folder, err)
	// Output: "" <nil>
}

func TestFolder(t *testing.T) {
	home := t.TempDir()
	t.Setenv("GOPEFT_HOME", home)
	small, large := filepath.Join(t.TempDir(), "small.csv"), filepath.Join(t.TempDir(), "large.csv")
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	compressed, less := filepath.Join(t.TempDir(), "rows.parquet"), filepath.Join(t.TempDir(), "rows.csv.GZ")
	for path, size := range map[string]int64{small: 10, large: corpus.FromSize - 10, compressed: corpus.FromSize / 4, less: corpus.FromSize/4 - 2} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
	}
	texts, none := t.TempDir(), t.TempDir()
	for _, class := range []string{"pos", "neg"} {
		if err := os.Mkdir(filepath.Join(texts, class), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for want, cases := range map[string][]data.Settings{
		"": {
			{Data: none, CacheDir: "x"}, // which its reader will say holds no data
			{Train: small}, {Train: small, CacheDir: corpus.None}, {Train: large}, {Train: large, Val: small, CacheDir: corpus.None}, {Train: less},
			{Train: "-", CacheDir: "x"}, {Train: pipe, CacheDir: "x"}, {Data: filepath.Join(home, "none.csv"), CacheDir: "x"},
		},
		filepath.Join(home, "tokens"): {{Train: large, Val: small}, {Train: compressed}, {Train: less, Val: small}, {Data: large + "\n" + small}, {Data: large + ":1\n" + small + ":2"}},
		"x":                           {{Train: small, CacheDir: "x"}, {Data: texts, CacheDir: "x"}},
	} {
		for _, s := range cases {
			if got, err := (corpus.Source{Settings: s}).Folder(); err != nil || got != want {
				t.Errorf("%+v: %q, %v, want %q", s, got, err, want)
			}
		}
	}
}

// A process that is told to stop while it makes the file leaves none.
func TestInterruptedMaking(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	c := classification(t, &stopper{cancel: cancel}, data.Settings{Data: writeReviews(t, "csv", 1<<20), CacheDir: dir})
	if _, err := c.Open(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if filepath.Ext(e.Name()) != ".lock" {
			t.Errorf("left %s", e.Name())
		}
	}
}

type stopper struct {
	train.Quiet
	cancel func()
}

func (s *stopper) Progress(string, int, int, string) { s.cancel() }

// A file that is changed under way gives no tokens under the name of what it was.
func TestDataThatChangesWhileItIsRead(t *testing.T) {
	s := data.Settings{Train: writeReviews(t, "csv", 1<<16), CacheDir: t.TempDir()}
	c := classification(t, train.Quiet{}, s)
	load := c.Load
	c.Load = func(ctx context.Context, on *spool.File) (*data.Splits, error) {
		f, err := os.OpenFile(s.Train, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		_, err = f.WriteString("more,pos\n")
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		return load(ctx, on)
	}
	if _, err := c.Open(context.Background()); err == nil || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("got %v", err)
	}
	c.Load = load
	f, err := c.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// The error of a folder that cannot be written to says what to do.
func TestFolderThatCannotBeWritten(t *testing.T) {
	home := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(home, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := classification(t, train.Quiet{}, data.Settings{Train: writeReviews(t, "csv", 1<<16), CacheDir: filepath.Join(home, "tokens")})
	if _, err := c.Open(context.Background()); err == nil || !strings.Contains(err.Error(), "--cache-dir") {
		t.Errorf("got %v", err)
	}
}

// Notes are said of files as they are called now, and the hash alone reads no data.
func TestAFileServesItsDataElsewhere(t *testing.T) {
	s := data.Settings{Train: writeReviews(t, "csv", 1<<16), CacheDir: t.TempDir()}
	first := &watch{}
	c := classification(t, first, s)
	f, err := c.Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	moved := filepath.Join(t.TempDir(), "reviews.csv")
	if err := copyFile(moved, s.Train); err != nil {
		t.Fatal(err)
	}
	c.Settings.Train = moved
	c.Load = func(context.Context, *spool.File) (*data.Splits, error) { return nil, errors.New("the data is read") }
	silent := &watch{}
	c.UI = silent
	if hash, err := c.Hash(context.Background()); err != nil || hash != f.Hash() {
		t.Errorf("hash %q, %v", hash, err)
	}
	if len(silent.notes) != 0 {
		t.Errorf("for the hash alone it says %q", silent.notes)
	}
	again := &watch{}
	c.UI = again
	if f, err = c.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	f.Close()
	// Beside where the tokens are.
	ofData := func(notes []string) []string {
		return slices.DeleteFunc(notes, func(note string) bool { return strings.HasPrefix(note, "tokens of the data: made ") })
	}
	want := ofData(first.notes)
	for i := range want {
		want[i] = strings.ReplaceAll(want[i], s.Train, moved)
	}
	if got := ofData(again.notes); len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("notes %q, want %q", got, want)
	}
}

// The key is of what the reader reads: links are followed, other files make no difference.
func TestFolderOfLinks(t *testing.T) {
	write := func(path, content string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere, folder := t.TempDir(), t.TempDir()
	for i := range 10 {
		write(filepath.Join(folder, "neg", fmt.Sprintf("%d.txt", i)), "bad bad")
		write(filepath.Join(elsewhere, fmt.Sprintf("%d.txt", i)), "good")
	}
	if err := os.Symlink(elsewhere, filepath.Join(folder, "pos")); err != nil {
		t.Fatal(err)
	}
	c := classification(t, train.Quiet{}, data.Settings{Data: folder, CacheDir: t.TempDir()})
	read := 0
	load := c.Load
	c.Load = func(ctx context.Context, on *spool.File) (*data.Splits, error) { read++; return load(ctx, on) }
	open := func() string {
		t.Helper()
		f, err := c.Open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return f.Hash() + fmt.Sprint(f.Close())
	}
	first := open()
	write(filepath.Join(folder, "neg", "notes.md"), "not read")
	write(filepath.Join(folder, "unsup", "1.txt"), "not read")
	if again := open(); again != first || read != 1 {
		t.Errorf("a file that is not read: hash %s, at first %s, read %d times", again, first, read)
	}
	write(filepath.Join(elsewhere, "3.txt"), "very good indeed")
	if again := open(); again == first || read != 2 {
		t.Errorf("a file behind a link that was changed: hash %s, read %d times", again, read)
	}
	if err := syscall.Mkfifo(filepath.Join(elsewhere, "pipe.txt"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := c.Open(context.Background()); f != nil || err != nil {
		t.Errorf("with a pipe in it: %v, %v, want the data in memory", f, err)
	}
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
