package rows

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
		opts := Options{Format: format, MaxRowBytes: 1 << 16}
		r, err := New(io.NopCloser(bytes.NewReader(content)), "fuzzed", opts)
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
				if IsBad(err) {
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
		r, err := Open(path, Options{Format: Parquet})
		if err == nil {
			defer r.Close()
		}
		// A few bytes can stand for many rows of nulls: they stream, so look at some.
		for n := 0; n < 5000 && (err == nil || IsBad(err)); n++ {
			_, err = r.Next()
		}
		if err != nil && !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "fuzzed.parquet") {
			t.Errorf("error %q", err)
		}
	})
}
