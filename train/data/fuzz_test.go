package data

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// fuzzFormat feeds bytes to one format: it must end, without a panic, in rows
// whose texts are UTF-8 and in errors of one line that name the file.
func fuzzFormat(f *testing.F, format Format, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		check := func(err error) {
			if !strings.Contains(err.Error(), "fuzzed") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q", err)
			}
		}
		opts := ReadOptions{Format: format, MaxRowBytes: 1 << 16}
		r, err := NewReader(io.NopCloser(bytes.NewReader(content)), "fuzzed", opts)
		if err != nil {
			check(err)
			return
		}
		defer r.Close()
		for last := 0; ; {
			row, err := r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				check(err)
				if isRowError(err) {
					continue
				}
				return
			}
			if row.Number <= last || row.Line <= 0 || len(row.names) != len(row.values) {
				t.Fatalf("row %d after %d: %+v", row.Number, last, row)
			}
			last = row.Number
			for _, v := range row.values {
				if s, ok := v.(string); ok && !utf8.ValidString(s) {
					t.Fatalf("value %q is not UTF-8", s)
				}
			}
		}
	})
}

func FuzzCSV(f *testing.F) {
	fuzzFormat(f, CSV, "text,label\nhi,1\n", "\xef\xbb\xbf\"a\",b\r\n\"x\"\"\n\",\r\n", "a\n\"", "a,a\n", "\x1f\x8b\x08", "a\n\xff")
}

func FuzzTSV(f *testing.F) {
	fuzzFormat(f, TSV, "label\ttext\n1\t\"hi\n", "a\tb\r\n\r\n\t\n", "\t\n", "a\n\xff")
}

func FuzzJSONL(f *testing.F) {
	fuzzFormat(f, JSONL, `{"text":"a","label":1}`, "{}\n[]\nnull\n{\"a\":{\"b\":[1e999]}}", `{"a":"\ud800"}`, `{"a":1,"a":2} x`)
}

func FuzzJSON(f *testing.F) {
	fuzzFormat(f, JSON, `[{"a":"]\"}"},{"b":[{}]}]`, "{}{\n}", "[", "[{}", "[{},]", "[{]}]", `[{"a":1]]`)
}

func FuzzText(f *testing.F) { fuzzFormat(f, PlainText, "a\r\n\nb", "\xff\n", "") }

func FuzzVader(f *testing.F) {
	fuzzFormat(f, Vader, "1\t2.0\tgood\r\n2\t0\tso\n", "1\tx\ty", "1\t-1e-300\t\xff")
}

func FuzzGzip(f *testing.F) {
	fuzzFormat(f, PlainText, gzipped(f, "a\nb\n"), gzipped(f, ""), gzipped(f, "a")[:12])
}

// FuzzParquet reads files, the only way Parquet comes.
func FuzzParquet(f *testing.F) {
	for _, name := range []string{"hf_classlabel", "nested_none", "nested_zstd", "latin1"} {
		content, err := os.ReadFile("testdata/" + name + ".parquet")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content)
	}
	path := filepath.Join(f.TempDir(), "fuzzed.parquet")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o666); err != nil {
			t.Fatal(err)
		}
		r, err := Open(path, ReadOptions{Format: Parquet})
		if err == nil {
			defer r.Close()
		}
		// A few bytes can stand for many rows of nulls: they stream, so look at some.
		for n := 0; n < 5000 && (err == nil || isRowError(err)); n++ {
			_, err = r.Next()
		}
		if err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "fuzzed.parquet") {
			t.Errorf("error %q", err)
		}
	})
}

// FuzzExamples goes on to examples and causal examples, whatever the columns hold.
func FuzzExamples(f *testing.F) {
	f.Add([]byte(`{"text":"a","label":1}`))
	f.Add([]byte(`{"input_ids":[1,2],"labels":[-100,1],"label":"x"}`))
	f.Add([]byte(`{"messages":[{"role":"user","content":[{"text":"x"}]},{"role":"assistant","content":"y"}]}`))
	f.Add([]byte(`{"instruction":"a","instances":[{"input":"","output":"b"}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		open := func() RowReader {
			r, err := NewReader(io.NopCloser(bytes.NewReader(content)), "fuzzed", ReadOptions{Format: JSONL})
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
		if isRowError(err) {
			t.Errorf("a bad row is not skipped: %v", err)
		}
	})
}

func FuzzTemplate(f *testing.F) {
	for _, s := range []string{"{a} -> {b}", `{{\n}}`, "{", "{}", `\`, "{a}{a}"} {
		f.Add(s)
	}
	row := Row{names: []string{"a", "b"}, values: []any{"x", "y"}}
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
