package generate

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// support draws often and returns how often each token came.
func support(o Options, logits []float32, ids []int64) map[int64]int {
	s := newSampler(o, 0)
	got := map[int64]int{}
	for range 4000 {
		id, ok := s.next(slices.Clone(logits), ids)
		if !ok {
			got[-1]++
		}
		got[id]++
	}
	return got
}

func keys(m map[int64]int) []int64 {
	var out []int64
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func TestFilters(t *testing.T) {
	logits := make([]float32, 6) // probabilities 0.1, 0.4, 0.05, 0.25, 0.15, 0.05
	for i, p := range []float64{0.1, 0.4, 0.05, 0.25, 0.15, 0.05} {
		logits[i] = float32(math.Log(p))
	}
	for _, c := range []struct {
		name string
		o    Options
		ids  []int64
		want []int64
	}{
		{"greedy", Options{}, nil, []int64{1}},
		{"all", Options{Temperature: 1}, nil, []int64{0, 1, 2, 3, 4, 5}},
		{"top-k", Options{Temperature: 1, TopK: 3}, nil, []int64{1, 3, 4}},
		{"top-k ties take the lowest id", Options{Temperature: 1, TopK: 5}, nil, []int64{0, 1, 2, 3, 4}},
		{"top-p", Options{Temperature: 1, TopP: 0.6}, nil, []int64{1, 3}},
		{"top-p keeps one", Options{Temperature: 1, TopP: 0.01}, nil, []int64{1}},
		{"top-p of top-k", Options{Temperature: 1, TopK: 2, TopP: 0.7}, nil, []int64{1, 3}},
		{"min-p", Options{Temperature: 1, MinP: 0.3}, nil, []int64{1, 3, 4}},
		{"penalty", Options{RepetitionPenalty: 3}, []int64{1, 1, 4}, []int64{3}},
		{"cold", Options{Temperature: 0.01}, nil, []int64{1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, keys(support(c.o, logits, c.ids))); diff != "" {
				t.Error(diff)
			}
		})
	}
	drawn := support(Options{Temperature: 1, Seed: 3}, logits, nil)
	for id, p := range []float64{0.1, 0.4, 0.05, 0.25, 0.15, 0.05} {
		if got := float64(drawn[int64(id)]) / 4000; math.Abs(got-p) > 0.03 {
			t.Errorf("token %d was drawn with frequency %v, want %v", id, got, p)
		}
	}
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1))} {
		if _, ok := newSampler(Options{Temperature: 1}, 0).next([]float32{1, bad, 2}, nil); ok {
			t.Errorf("%v was accepted", bad)
		}
	}
	if id, ok := newSampler(Options{Temperature: 1}, 0).next([]float32{float32(math.Inf(-1)), 1}, nil); !ok || id != 1 {
		t.Errorf("a forbidden token was drawn: %d, %v", id, ok)
	}
}

// letters decodes an id as its character, holding back 'é' halves: 1 then 2.
type letters struct{ half bool }

func (l *letters) Push(id int64) string {
	switch {
	case id == 1:
		l.half = true
		return ""
	case l.half:
		l.half = false
		return "é"
	}
	return string(rune(id))
}

func (l *letters) Flush() string {
	if l.half {
		return "\uFFFD"
	}
	return ""
}

func TestStopStringsAreCutOff(t *testing.T) {
	for _, c := range []struct {
		name, text string
		stop       []string
		want       string
		pieces     string
		stopped    bool
	}{
		{"none", "abc", nil, "abc", "a|b|c|", false},
		{"held back", "a\n\nUser: hi", []string{"\n\nUser:"}, "a", "a|||||||", true},
		{"false alarm", "a\n\nUses", []string{"\n\nUser:"}, "a\n\nUses", "a||||||\n\nUses|", false},
		{"overlap", "aab", []string{"ab"}, "a", "|a|", true},
		{"first of two", "xyzw", []string{"zw", "y"}, "x", "x|", true},
		{"at the end", "ab", []string{"bc"}, "ab", "a||b", false},
		{"half a character", "a\x01", nil, "a\uFFFD", "a||\uFFFD", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newTextStream(Options{Stop: c.stop, Decode: func([]int64) Decoder { return &letters{} }}, nil)
			var pieces []string
			stopped := false
			for _, r := range c.text {
				piece, over := s.push(int64(r))
				if pieces = append(pieces, piece); over {
					stopped = true
					break
				}
			}
			rest, _ := s.flush()
			if !stopped {
				pieces = append(pieces, rest)
			}
			if s.String() != c.want || strings.Join(pieces, "|") != c.pieces || stopped != c.stopped {
				t.Errorf("got %q in pieces %q, stopped %v", s.String(), strings.Join(pieces, "|"), stopped)
			}
		})
	}
}

func TestGroupsHaveLikeLengths(t *testing.T) {
	var prompts [][]int64
	for _, n := range []int{5, 100, 6, 97, 3, 40, 5} {
		prompts = append(prompts, make([]int64, n))
	}
	if diff := cmp.Diff([][]int{{1, 3}, {5}, {2, 0, 6}, {4}}, groups(prompts, []int{0, 1, 2, 3, 4, 5, 6}, 3)); diff != "" {
		t.Error(diff)
	}
}

func TestPromptsAreReadInBoundedPieces(t *testing.T) {
	for _, c := range []struct {
		rows, width int64
		padded      bool
		want        int64
	}{
		{1, 8000, false, 8000}, {1, 8000, true, 512}, {1, 512, true, 512}, {1, 9000, false, 512}, {16, 512, true, 512}, {16, 512, false, 512},
		{16, 600, false, 512}, {64, 600, false, 128}, {64, 200, true, 128}, {10_000, 20, false, 16},
	} {
		if got := pieceOf(c.rows, c.width, c.padded); got != c.want {
			t.Errorf("%d rows of %d, padded %v: %d, want %d", c.rows, c.width, c.padded, got, c.want)
		}
	}
}

func TestDefaults(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func() Options {
		o, err := Defaults(dir)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	write("config.json", `{"eos_token_id": 2}`)
	if diff := cmp.Diff(Options{EOS: []int64{2}}, read()); diff != "" {
		t.Error(diff)
	}
	write("generation_config.json", `{"eos_token_id": [128001, 128009], "do_sample": true, "temperature": 0.6, "top_p": 0.9}`)
	if diff := cmp.Diff(Options{EOS: []int64{128001, 128009}, Temperature: 0.6, TopP: 0.9, TopK: 50}, read()); diff != "" {
		t.Error(diff)
	}
	write("generation_config.json", `{"temperature": 0.6, "eos_token_id": null, "repetition_penalty": 1.2}`)
	if diff := cmp.Diff(Options{EOS: []int64{2}, RepetitionPenalty: 1.2}, read()); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{`{"eos_token_id": "x"}`, `{"do_sample": true, "top_p": 3}`, `[`} {
		write("generation_config.json", bad)
		if _, err := Defaults(dir); err == nil || !strings.Contains(err.Error(), "generation_config.json") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
