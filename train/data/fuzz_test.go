package data

import (
	"bytes"
	"io"
	"testing"

	"gopeft/train/data/rows"
)

// FuzzExamples goes on to examples and causal examples, whatever the columns hold.
func FuzzExamples(f *testing.F) {
	f.Add([]byte(`{"text":"a","label":1}`))
	f.Add([]byte(`{"input_ids":[1,2],"labels":[-100,1],"label":"x"}`))
	f.Add([]byte(`{"messages":[{"role":"user","content":[{"text":"x"}]},{"role":"assistant","content":"y"}]}`))
	f.Add([]byte(`{"instruction":"a","instances":[{"input":"","output":"b"}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		open := func() rows.Reader {
			r, err := rows.New(io.NopCloser(bytes.NewReader(content)), "fuzzed", rows.Options{Format: rows.JSONL})
			if err != nil {
				t.Skip("no rows: FuzzJSONL has such input")
			}
			return r
		}
		examples, err := NewExampleReader(open(), "fuzzed", LoadOptions{SkipBadRows: true})
		if err != nil {
			t.Fatal(err)
		}
		if set, err := loadAll(t.Context(), examples); err == nil {
			set.Hash()
			for _, ex := range set.Examples {
				if ex.Label < 0 || ex.Label >= len(set.Labels) {
					t.Fatalf("label %d of %q", ex.Label, set.Labels)
				}
			}
		}
		causal, err := NewCausalReader(open(), "fuzzed", CausalOptions{SkipBadRows: true})
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = causal.Next()
		}
		if rows.IsBad(err) {
			t.Errorf("a bad row is not skipped: %v", err)
		}
	})
}

func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"{a} -> {b}", `{{\n}}`, "{", "{}", `\`, "{a}{a}"} {
		f.Add(s)
	}
	row := rowOf(f, `{"a":"x","b":"y"}`)
	f.Fuzz(func(t *testing.T, s string) {
		prompt, answer, err := SplitTemplate(s)
		if err != nil {
			return
		}
		whole, err := ParseTemplate(s)
		if err != nil {
			t.Fatal(err)
		}
		text, err := whole.Render(row)
		if err != nil {
			return
		}
		p, _ := prompt.Render(row)
		a, _ := answer.Render(row)
		if p+a != text {
			t.Errorf("%q: %q and %q are not %q", s, p, a, text)
		}
	})
}
