package infer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/data/rows"
	"gopeft/train/infer"
)

func examples(t *testing.T, r io.Reader) *data.ExampleReader {
	t.Helper()
	in, err := rows.New(io.NopCloser(r), "rows", rows.Options{Format: "jsonl"})
	if err != nil {
		t.Fatal(err)
	}
	x, err := data.NewExampleReader(in, "rows", data.LoadOptions{NoLabels: true})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestStreamRowsKeepsTheOrderAndEndsWithTheError(t *testing.T) {
	text := strings.Repeat("{\"input_ids\": [1, 2]}\n", 7)
	for _, c := range []struct {
		text, want string
		sizes      []int
	}{{text, "", []int{3, 3, 1}}, {text + "{broken\n", "rows", []int{3, 3, 1}}, {"", "", nil}} {
		var sizes []int
		var failed error
		for part := range infer.StreamRows(context.Background(), examples(t, strings.NewReader(c.text)), 3, train.Encoder{}, 8, 0, 1) {
			if failed != nil {
				t.Error("a value behind the error")
			}
			if failed = part.Err; failed == nil {
				sizes = append(sizes, len(part.IDs))
			}
		}
		if len(sizes) != len(c.sizes) || (failed != nil) != (c.want != "") || failed != nil && !strings.Contains(failed.Error(), c.want) {
			t.Errorf("%d rows: parts of %v, %v; want %v and %q", strings.Count(c.text, "\n"), sizes, failed, c.sizes, c.want)
		}
	}
}

// A row that cannot be used is told behind those before it, or counted.
func TestStreamRowsWithUnknownTokens(t *testing.T) {
	text := "{\"input_ids\": [1]}\n{\"input_ids\": [2]}\n{\"input_ids\": [99]}\n{\"input_ids\": [3]}\n"
	for _, skip := range []bool{false, true} {
		r, err := rows.New(io.NopCloser(strings.NewReader(text)), "rows.jsonl", rows.Options{})
		if err != nil {
			t.Fatal(err)
		}
		reader, err := data.NewExampleReader(r, "rows.jsonl", data.LoadOptions{NoLabels: true, SkipBadRows: skip})
		if err != nil {
			t.Fatal(err)
		}
		var ids []int64
		var failed error
		for part := range infer.StreamRows(context.Background(), reader, 10, train.Encoder{}, 8, 50, 1) {
			for _, row := range part.IDs {
				ids = append(ids, row...)
			}
			failed = part.Err
		}
		want, skipped := []int64{1, 2}, 0
		if skip {
			want, skipped = []int64{1, 2, 3}, 1
		}
		if !slices.Equal(ids, want) || (failed == nil) != skip || failed != nil && !strings.Contains(failed.Error(), "line 3") || reader.Stats().Skipped != skipped {
			t.Errorf("skip %t: %v, %v, %+v", skip, ids, failed, reader.Stats())
		}
	}
}

func TestLeavingStreamRowsLeavesNothingRunning(t *testing.T) {
	base := runtime.NumGoroutine()
	for range infer.StreamRows(context.Background(), examples(t, strings.NewReader(strings.Repeat("{\"input_ids\": [1]}\n", 1000))), 2, train.Encoder{}, 8, 0, 1) {
		break
	}
	for begun := time.Now(); runtime.NumGoroutine() > base; time.Sleep(time.Millisecond) {
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), base)
		}
	}
}

func TestCancellingStreamRowsDoesNotWaitForAPipe(t *testing.T) {
	pipe, in := io.Pipe()
	defer in.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { _, _ = in.Write(bytes.Repeat([]byte("{\"input_ids\": [1]}\n"), 10_000)) }() // and nothing more
	reader := examples(t, pipe)
	time.AfterFunc(10*time.Millisecond, cancel)
	var failed error
	for part := range infer.StreamRows(ctx, reader, 1<<20, train.Encoder{}, 8, 0, 1) {
		failed = part.Err
	}
	if !errors.Is(failed, context.Canceled) {
		t.Errorf("got %v", failed)
	}
}

// The loop is left, as an error in a row leaves it, while a pipe has nothing more to read.
func TestCancellingALeftStreamDoesNotWaitForAPipe(t *testing.T) {
	pipe, in := io.Pipe()
	defer in.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { _, _ = in.Write(bytes.Repeat([]byte("{\"input_ids\": [1]}\n"), 10_000)) }() // and nothing more
	left := make(chan struct{})
	go func() {
		defer close(left)
		for range infer.StreamRows(ctx, examples(t, pipe), 5000, train.Encoder{}, 8, 0, 1) {
			time.AfterFunc(10*time.Millisecond, cancel)
			break
		}
	}()
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Error("still waiting for the pipe")
	}
}

func TestLongRowsMakeShortStretches(t *testing.T) {
	row := "{\"input_ids\": [" + strings.Repeat("1,", 600_000) + "1]}\n" // 4.8 MB of ids
	var sizes []int
	for part := range infer.StreamRows(context.Background(), examples(t, strings.NewReader(strings.Repeat(row, 5))), 1024, train.Encoder{}, 8, 0, 1) {
		if part.Err != nil {
			t.Fatal(part.Err)
		}
		sizes = append(sizes, len(part.IDs))
	}
	if !slices.Equal(sizes, []int{2, 2, 1}) {
		t.Errorf("stretches of %v rows", sizes)
	}
}
