package data

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCollate(t *testing.T) {
	seqs := [][]int64{{1, 2, 3}, {4}}
	cases := []struct {
		name string
		opts CollateOptions
		want Batch
	}{
		{"right", CollateOptions{}, Batch{Rows: 2, Width: 3, IDs: []int64{1, 2, 3, 4, 0, 0}, Mask: []int64{1, 1, 1, 1, 0, 0}}},
		{"left", CollateOptions{Left: true, PadID: 9}, Batch{Rows: 2, Width: 3, IDs: []int64{1, 2, 3, 9, 9, 4}, Mask: []int64{1, 1, 1, 0, 0, 1}}},
		{"multiple", CollateOptions{Multiple: 4}, Batch{Rows: 2, Width: 4, IDs: []int64{1, 2, 3, 0, 4, 0, 0, 0}, Mask: []int64{1, 1, 1, 0, 1, 0, 0, 0}}},
		{"width", CollateOptions{Width: 5, Left: true}, Batch{Rows: 2, Width: 5, IDs: []int64{0, 0, 1, 2, 3, 0, 0, 0, 0, 4}, Mask: []int64{0, 0, 1, 1, 1, 0, 0, 0, 0, 1}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.want.Labels, c.want.Tokens = []int64{1, 0}, 4
			got, err := Collate(seqs, []int64{1, 0}, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for name, try := range map[string]func() (Batch, error){
		"nothing":        func() (Batch, error) { return Collate(nil, nil, CollateOptions{}) },
		"empty sequence": func() (Batch, error) { return Collate([][]int64{{1}, {}}, nil, CollateOptions{}) },
		"too wide":       func() (Batch, error) { return Collate(seqs, nil, CollateOptions{Width: 2}) },
		"labels":         func() (Batch, error) { return Collate(seqs, []int64{1}, CollateOptions{}) },
		"targets":        func() (Batch, error) { return CollateCausal([]Sequence{{IDs: []int64{1, 2}}}, CollateOptions{}) },
		"packed left":    func() (Batch, error) { return CollatePacked([][]Sequence{{}}, CollateOptions{Left: true}) },
		"packed empty":   func() (Batch, error) { return CollatePacked([][]Sequence{{}}, CollateOptions{}) },
		"packed sequence": func() (Batch, error) {
			return CollatePacked([][]Sequence{{{}, {IDs: []int64{1}, Targets: []int64{1}}}}, CollateOptions{})
		},
	} {
		if _, err := try(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if b, err := Collate(seqs, nil, CollateOptions{}); err != nil || b.Labels != nil {
		t.Error("labels of unlabelled data", err)
	}
}

func TestSequences(t *testing.T) {
	const no = IgnoreTarget
	prompt, answer := []int64{1, 5, 6}, []int64{7, 2}
	for _, c := range []struct {
		max         int
		trainPrompt bool
		want        Sequence
		targets     int
	}{
		{0, false, Sequence{[]int64{1, 5, 6, 7, 2}, []int64{no, no, no, 7, 2}}, 2},
		{0, true, Sequence{[]int64{1, 5, 6, 7, 2}, []int64{1, 5, 6, 7, 2}}, 4},
		{4, false, Sequence{[]int64{1, 5, 6, 7}, []int64{no, no, no, 7}}, 1},
		{3, false, Sequence{[]int64{1, 5, 6}, []int64{no, no, no}}, 0},
	} {
		got := NewSequence(prompt, answer, c.max, c.trainPrompt)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if got.NumTargets() != c.targets {
			t.Errorf("%d targets, want %d", got.NumTargets(), c.targets)
		}
	}
	if diff := cmp.Diff([]int64{1, 5, 6}, prompt); diff != "" {
		t.Error("the prompt was written to")
	}
}

func TestCollateCausal(t *testing.T) {
	const no = IgnoreTarget
	seqs := []Sequence{NewSequence([]int64{1, 5}, []int64{7, 2}, 0, false), NewSequence(nil, []int64{1, 8}, 0, true)}
	for _, c := range []struct {
		left    bool
		ids     []int64
		targets []int64
	}{
		{false, []int64{1, 5, 7, 2, 1, 8, 0, 0}, []int64{no, no, 7, 2, no, 8, no, no}},
		{true, []int64{1, 5, 7, 2, 0, 0, 1, 8}, []int64{no, no, 7, 2, no, no, no, 8}},
	} {
		got, err := CollateCausal(seqs, CollateOptions{Left: c.left})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.ids, got.IDs); diff != "" {
			t.Errorf("ids (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(c.targets, got.Targets); diff != "" {
			t.Errorf("targets (-want +got):\n%s", diff)
		}
		if got.NumTargets != 3 || got.Tokens != 6 {
			t.Errorf("%d targets of %d tokens", got.NumTargets, got.Tokens)
		}
	}
}

func TestCollatePacked(t *testing.T) {
	const no = IgnoreTarget
	a, b, c := NewSequence([]int64{1, 5}, []int64{7}, 0, false), NewSequence(nil, []int64{1, 8}, 0, true), NewSequence(nil, []int64{1}, 0, true)
	got, err := CollatePacked([][]Sequence{{a, b}, {c}}, CollateOptions{PadID: 3, Multiple: 3})
	if err != nil {
		t.Fatal(err)
	}
	want := Batch{
		Rows: 2, Width: 6, Tokens: 6, NumTargets: 2,
		IDs:       []int64{1, 5, 7, 1, 8, 3, 1, 3, 3, 3, 3, 3},
		Mask:      []int64{1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0},
		Targets:   []int64{no, no, 7, no, 8, no, no, no, no, no, no, no},
		Segments:  []int64{1, 1, 1, 2, 2, 0, 1, 0, 0, 0, 0, 0},
		Positions: []int64{0, 1, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0},
		Lengths:   [][]int{{3, 2}, {1}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got.NumTargets != a.NumTargets()+b.NumTargets()+c.NumTargets() {
		t.Error("packing changes the number of targets")
	}
}

func TestPack(t *testing.T) {
	for _, c := range []struct {
		name    string
		lengths []int
		width   int
		want    [][]int
	}{
		{"mixed", []int{3, 7, 5, 5, 2, 8}, 10, [][]int{{5, 4}, {1, 0}, {2, 3}}},
		{"greedy wastes", []int{6, 5, 4}, 10, [][]int{{0, 2}, {1}}},
		{"all full", []int{4, 4}, 4, [][]int{{0}, {1}}},
		{"none", nil, 4, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Pack(c.lengths, c.width)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("first fit (-want +got):\n%s", diff)
			}
		})
	}
	for _, bad := range [][]int{{11}, {0}, {-1}} {
		if _, err := Pack(bad, 10); err == nil {
			t.Errorf("%v is packed", bad)
		}
	}
}

// Against the plain O(n²) first fit, and against the bound on rows.
func TestPackManyIsFirstFit(t *testing.T) {
	all := lengths(3000)
	const width = 512
	rows, err := Pack(all, width)
	if err != nil {
		t.Fatal(err)
	}
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return all[b] - all[a] })
	var want [][]int
	var room []int
	total := 0
	for _, i := range order {
		total += all[i]
		at := slices.IndexFunc(room, func(r int) bool { return r >= all[i] })
		if at < 0 {
			at = len(room)
			room, want = append(room, width), append(want, nil)
		}
		room[at] -= all[i]
		want[at] = append(want[at], i)
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if fewest := (total + width - 1) / width; len(rows) > fewest*11/9+1 {
		t.Errorf("%d rows where %d might do", len(rows), fewest)
	}
	t.Logf("%d examples in %d rows, %.1f %% full", len(all), len(rows), 100*float64(total)/float64(len(rows)*width))
}
