package data

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPrefetchKeepsOrder(t *testing.T) {
	for _, c := range []struct{ n, depth, workers int }{{0, 4, 2}, {1, 1, 1}, {100, 1, 1}, {100, 4, 2}, {100, 3, 8}, {100, 200, 7}, {10, 0, 0}} {
		next := 0
		for v, err := range Prefetch(t.Context(), c.n, c.depth, c.workers, func(_ context.Context, i int) (int, error) {
			if i%3 == 0 {
				runtime.Gosched()
			}
			return i * i, nil
		}) {
			if err != nil || v != next*next {
				t.Fatalf("%+v: value %d is %d, %v", c, next, v, err)
			}
			next++
		}
		if next != c.n {
			t.Errorf("%+v: %d values", c, next)
		}
	}
}

func TestPrefetchIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var started atomic.Int64
		read := 0
		for _, err := range Prefetch(t.Context(), 50, 4, 3, func(context.Context, int) (int, error) {
			started.Add(1)
			return 0, nil
		}) {
			if err != nil {
				t.Fatal(err)
			}
			read++
			synctest.Wait() // every worker is idle or blocked
			if ahead := int(started.Load()) - read; ahead > 4 {
				t.Fatalf("%d values ahead", ahead)
			}
		}
	})
}

// Whatever ends the loop, no goroutine stays: synctest fails if one does.
func TestPrefetchEnds(t *testing.T) {
	boom := errors.New("boom")
	compute := func(ctx context.Context, i int) (int, error) {
		switch {
		case i == 5:
			return 0, boom
		case i == 7:
			panic("ouch")
		}
		return i, nil
	}
	synctest.Test(t, func(t *testing.T) {
		got, errs := 0, 0
		for v, err := range Prefetch(t.Context(), 20, 6, 3, compute) {
			if err != nil {
				if !errors.Is(err, boom) || v != 0 {
					t.Errorf("%v, %v", v, err)
				}
				errs++
				continue
			}
			got++
		}
		if got != 5 || errs != 1 {
			t.Errorf("%d values, %d errors", got, errs)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		for v, err := range Prefetch(t.Context(), 20, 6, 3, compute) {
			if err != nil || v == 2 {
				break
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var last error
		for _, err := range Prefetch(t.Context(), 3, 2, 1, func(_ context.Context, i int) (int, error) { panic("ouch") }) {
			last = err
		}
		wantError(t, last, "panic: ouch")
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		var last error
		for _, err := range Prefetch(ctx, 1_000_000, 2, 2, func(ctx context.Context, i int) (int, error) {
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(time.Millisecond):
				return i, nil
			}
		}) {
			last = err
			if n++; n == 10 {
				cancel()
			}
		}
		if !errors.Is(last, context.Canceled) {
			t.Errorf("cancelled: %v", last)
		}
		cancel()
	})
}

// wordLengths is an encoder for tests: a word's id is its length.
type wordLengths struct{}

func (wordLengths) EncodeIDs(dst []int64, text string, maxLength int) ([]int64, error) {
	if strings.Contains(text, "bad") {
		return nil, errors.New("cannot")
	}
	for i, word := range strings.Fields(text) {
		if maxLength > 0 && i == maxLength {
			break
		}
		dst = append(dst, int64(len(word)))
	}
	return dst, nil
}

func TestEncodeAll(t *testing.T) {
	var examples []Example
	var want [][]int64
	for i := range 500 {
		examples = append(examples, Example{Text: strings.Repeat("x", 1+i) + " yy zzz"})
		want = append(want, []int64{int64(i) + 1, 2})
	}
	examples = append(examples, Example{IDs: []int64{7, 8, 9}}, Example{IDs: []int64{7}})
	want = append(want, []int64{7, 8}, []int64{7})
	for _, workers := range []int{0, 1, 4, 100} {
		got, err := EncodeAll(t.Context(), wordLengths{}, examples, 2, 0, workers)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d workers (-want +got):\n%s", workers, diff)
		}
	}
	for _, i := range []int{70, 300, 450} {
		examples[i] = Example{Text: "bad", File: "f.csv", Line: i}
	}
	for range 20 {
		_, err := EncodeAll(t.Context(), wordLengths{}, examples, 0, 0, 4)
		if err == nil || err.Error() != "f.csv: line 70: tokenize: cannot" {
			t.Fatalf("%v", err)
		}
	}
	for _, empty := range []Example{{File: "f.csv", Line: 3}, {File: "f.csv", Line: 3, IDs: []int64{}}} {
		_, err := EncodeAll(t.Context(), wordLengths{}, []Example{{Text: "a"}, empty}, 0, 0, 1)
		wantError(t, err, "f.csv: line 3: the text is empty")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := EncodeAll(ctx, wordLengths{}, examples, 0, 0, 4); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if got, err := EncodeAll(t.Context(), wordLengths{}, nil, 0, 0, 4); err != nil || len(got) != 0 {
		t.Error(got, err)
	}
	err := ForEach(t.Context(), 3, 2, func(i int) error { panic(fmt.Sprint("at ", i)) })
	wantError(t, err, "panic: at 0")
}
