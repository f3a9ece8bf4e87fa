package rows

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// flat is a row as its values, for comparing.
func flat(rows []Row) [][]any {
	var out [][]any
	for _, r := range rows {
		out = append(out, r.values)
	}
	return out
}

func TestRowsOfEveryTextFormat(t *testing.T) {
	long := strings.Repeat("wörd ", 40_000)     // 240 kB: beyond bufio's and csv's buffers
	longer := strings.Repeat("wörd\n", 200_000) // 1.2 MB: the parser is made anew
	cases := []struct {
		name, file, content string
		opts                Options
		want                [][]any
		lines               []int
	}{
		{"csv", "a.csv", "text,label\nhi,1\nyou,0\n", Options{}, [][]any{{"hi", "1"}, {"you", "0"}}, []int{2, 3}},
		{"csv without last newline", "a.csv", "text,label\nhi,1", Options{}, [][]any{{"hi", "1"}}, []int{2}},
		{"csv header alone", "a.csv", "text,label\n", Options{}, nil, nil},
		{"csv with BOM and CRLF", "a.csv", "\xef\xbb\xbftext,label\r\nhi,1\r\n", Options{}, [][]any{{"hi", "1"}}, []int{2}},
		{"csv with BOM before a quoted header", "a.csv", "\xef\xbb\xbf\"text\",\"label\"\nhi,1\n", Options{}, [][]any{{"hi", "1"}}, []int{2}},
		{"csv quotes, commas, newlines", "a.csv", "text,label\n\"a \"\"b\"\", c\nd\r\ne\",1\nf,0\n", Options{}, [][]any{{"a \"b\", c\nd\ne", "1"}, {"f", "0"}}, []int{2, 5}},
		{"csv blank lines are no rows", "a.csv", "text,label\n\nhi,1\n\n\n", Options{}, [][]any{{"hi", "1"}}, []int{3}},
		{"csv empty values", "a.csv", "text,label\n,1\n\"\",0\n", Options{}, [][]any{{"", "1"}, {"", "0"}}, []int{2, 3}},
		{"csv long value", "a.csv", "text,label\n\"" + long + "\",1\n", Options{}, [][]any{{long, "1"}}, []int{2}},
		{"csv values of many lines", "a.csv", "text,label\n\"" + longer + "\",1\n\na,0\n\"" + longer + "\",\"" + longer + "\"\nb,0\n", Options{},
			[][]any{{longer, "1"}, {"a", "0"}, {longer, longer}, {"b", "0"}}, []int{2, 200_004, 200_005, 600_006}},
		{"csv by semicolon", "a.csv", "text;label\na,b;1\n", Options{Comma: ';'}, [][]any{{"a,b", "1"}}, []int{2}},
		{"csv latin1 replaced", "a.csv", "text,label\ncaf\xe9,1\n", Options{Encoding: ReplaceUTF8}, [][]any{{"caf\ufffd", "1"}}, []int{2}},
		{"csv windows-1252", "a.csv", "text,label\ncaf\xe9 \x93q\x94,1\nnaïve,0\n", Options{Encoding: Windows1252}, [][]any{{"café “q”", "1"}, {"naïve", "0"}}, []int{2, 3}},
		{"csv header is trimmed", "a.csv", " text , label\nhi, 1\n", Options{}, [][]any{{"hi", " 1"}}, []int{2}},
		{"tsv", "a.tsv", "label\ttext\n1\thi, you\n", Options{}, [][]any{{"1", "hi, you"}}, []int{2}},
		{"tsv quotes are characters", "a.tsv", "label\ttext\n1\t\"so\" he said\n0\tit's 5\" wide\n1\t\"\n", Options{}, [][]any{{"1", `"so" he said`}, {"0", `it's 5" wide`}, {"1", `"`}}, []int{2, 3, 4}},
		{"tsv quoted dialect", "a.tsv", "label\ttext\n1\t\"so\"\"\tq\nx\"\n", Options{QuotedTSV: true}, [][]any{{"1", "so\"\tq\nx"}}, []int{2}},
		{"tsv CRLF, blank lines, empty values", "a.tsv", "label\ttext\r\n1\t\r\n\r\n0\ta\r\n", Options{}, [][]any{{"1", ""}, {"0", "a"}}, []int{2, 4}},
		{"tsv long line", "a.tsv", "label\ttext\n1\t" + long + "\n", Options{}, [][]any{{"1", long}}, []int{2}},
		{"jsonl", "a.jsonl", "{\"text\":\"a\\nb\",\"label\":1}\n\n {\"text\":\"\",\"label\":\"x\"} \r\n", Options{}, [][]any{{"a\nb", json.Number("1")}, {"", "x"}}, []int{1, 3}},
		{"jsonl keys are case-exact", "a.jsonl", `{"Text":"A","text":"b"}`, Options{}, [][]any{{"A", "b"}}, []int{1}},
		{"jsonl with BOM", "a.jsonl", "\xef\xbb\xbf{\"text\":\"a\"}", Options{}, [][]any{{"a"}}, []int{1}},
		{"jsonl big integers stay exact", "a.jsonl", `{"id":9007199254740993}`, Options{}, [][]any{{json.Number("9007199254740993")}}, []int{1}},
		{"jsonl lone surrogate", "a.jsonl", `{"text":"a\ud800b"}`, Options{}, [][]any{{"a\ufffdb"}}, []int{1}},
		{"jsonl long line", "a.jsonl", `{"text":"` + long + `"}`, Options{}, [][]any{{long}}, []int{1}},
		{"jsonl windows-1252", "a.jsonl", "{\"text\":\"caf\xe9\"}", Options{Encoding: Windows1252}, [][]any{{"café"}}, []int{1}},
		{"json array", "a.json", "[\n{\"text\": \"a]}\\\"\"},\n {\"text\":\n\"b\"} ]\n", Options{}, [][]any{{`a]}"`}, {"b"}}, []int{2, 3}},
		{"json empty array", "a.json", " [ ] ", Options{}, nil, nil},
		{"json nested", "a.json", `[{"m":[{"a":[1]}],"n":null,"b":true}]`, Options{}, [][]any{{[]any{map[string]any{"a": []any{json.Number("1")}}}, nil, true}}, []int{1}},
		{"json objects in a row", "a.json", "{\"text\":\"a\"}\n{\n\"text\":\"b\"\n}{\"text\":\"c\"}", Options{}, [][]any{{"a"}, {"b"}, {"c"}}, []int{1, 2, 4}},
		{"text", "a.txt", "one\r\n\n\"two\", 3\t4\n", Options{}, [][]any{{"one"}, {""}, {`"two", 3` + "\t4"}}, []int{1, 2, 3}},
		{"text empty", "a.txt", "", Options{}, nil, nil},
		{"text long line", "a.txt", long, Options{}, [][]any{{long}}, []int{1}},
		{"format given", "data", "text,label\nhi,1\n", Options{Format: CSV}, [][]any{{"hi", "1"}}, []int{2}},
		{"unknown ending, looks like JSONL", "data", "\n{\"a\":\"b\"}", Options{}, [][]any{{"b"}}, []int{2}},
		{"unknown ending, looks like JSON", "data", "[{\"a\":\"b\"}]", Options{}, [][]any{{"b"}}, []int{1}},
		{"unknown ending, text", "data", "hello", Options{}, [][]any{{"hello"}}, []int{1}},
		{"gzip", "a.csv.gz", gzipped(t, "text,label\nhi,1\n"), Options{}, [][]any{{"hi", "1"}}, []int{2}},
		{"gzip by content alone", "a.csv", gzipped(t, "\xef\xbb\xbftext,label\nhi,1\n"), Options{}, [][]any{{"hi", "1"}}, []int{2}},
		{"gzip of two members", "a.txt.GZ", gzipped(t, "one\n") + gzipped(t, "two\n"), Options{}, [][]any{{"one"}, {"two"}}, []int{1, 2}},
		{"vader", "x_GroundTruth.txt", "1\t2.5\tgood \"film\"\ta\r\n2\t0.0\tmeh\r\n3\t-0.25\tbad", Options{}, [][]any{{"1", "2.5", "good \"film\"\ta", "positive"}, {"3", "-0.25", "bad", "negative"}}, []int{1, 3}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			rows, bad, err := readAll(t, write(t, c.file, c.content), c.opts)
			if err != nil || bad != nil {
				t.Fatalf("error %v, bad rows %v", err, bad)
			}
			if diff := cmp.Diff(c.want, flat(rows)); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
			var lines []int
			for _, r := range rows {
				lines = append(lines, r.Line)
			}
			if diff := cmp.Diff(c.lines, lines); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
}

// Bad rows name file and line, and the rows around them are still read.
func TestBadRowsNameTheirLine(t *testing.T) {
	cases := []struct {
		name, file, content string
		opts                Options
		want                [][]any // the rows that remain
		bad                 [][]string
	}{
		{"csv too many columns", "a.csv", "text,label\na,1\nb,c,0\nd,0\n", Options{}, [][]any{{"a", "1"}, {"d", "0"}},
			[][]string{{"a.csv: line 3: 3 columns where the header has 2"}}},
		{"csv too few columns", "a.csv", "text,label\nb\nd,0\n", Options{}, [][]any{{"d", "0"}},
			[][]string{{"line 2: 1 columns where the header has 2"}}},
		{"csv bare quote", "a.csv", "text,label\nsay \"x\",1\nd,0\n", Options{}, [][]any{{"d", "0"}},
			[][]string{{"line 2", `bare "`}}},
		{"csv text after a quote", "a.csv", "text,label\n\"x\"y,1\nd,0\n", Options{}, [][]any{{"d", "0"}},
			[][]string{{"line 2", `stray or unclosed "`}}},
		{"csv quote closed lines below", "a.csv", "text,label\na,1\n\"b,0\nc\"x,1\nd,0\n", Options{}, [][]any{{"a", "1"}, {"d", "0"}},
			[][]string{{"line 3", "not closed"}}},
		{"csv line after an embedded newline", "a.csv", "text,label\n\"a\nb\",1\nx\n", Options{}, [][]any{{"a\nb", "1"}},
			[][]string{{"line 4: 1 columns"}}},
		{"csv not UTF-8", "a.csv", "text,label\ncaf\xe9,1\nd,0\n", Options{}, [][]any{{"d", "0"}},
			[][]string{{"line 2: not UTF-8", "windows-1252"}}},
		{"csv row over the limit", "a.csv", "text,label\n" + strings.Repeat("x", 200) + ",1\nd,0\n", Options{MaxRowBytes: 100}, [][]any{{"d", "0"}},
			[][]string{{"line 2: longer than 100 bytes"}}},
		{"tsv columns", "a.tsv", "label\ttext\n1\ta\tb\nx\n0\tc\n", Options{}, [][]any{{"0", "c"}},
			[][]string{{"a.tsv: line 2: 3 columns where the header has 2"}, {"line 3: 1 columns"}}},
		{"tsv not UTF-8", "a.tsv", "label\ttext\n1\t\xff\n0\tc\n", Options{}, [][]any{{"0", "c"}}, [][]string{{"line 2: not UTF-8"}}},
		{"tsv line over the limit", "a.tsv", "label\ttext\n1\t" + strings.Repeat("x", 200_000) + "\n0\tc\n", Options{MaxRowBytes: 100}, [][]any{{"0", "c"}},
			[][]string{{"line 2: longer than 100 bytes"}}},
		{"jsonl no JSON", "a.jsonl", "{\"a\":1}\nhello\n{\"a\":2}\n", Options{}, [][]any{{json.Number("1")}, {json.Number("2")}},
			[][]string{{"a.jsonl: line 2: bad JSON"}}},
		{"jsonl no object", "a.jsonl", "[1]\n\"x\"\n3\nnull\n", Options{}, nil,
			[][]string{{"line 1", "object is wanted"}, {"line 2", "object is wanted"}, {"line 3", "object is wanted"}, {"line 4", "object is wanted"}}},
		{"jsonl cut off", "a.jsonl", "{\"a\":1\n{\"a\n{\"a\":\n{\n{\"a\":2}", Options{}, [][]any{{json.Number("2")}},
			[][]string{{"line 1", "cut off"}, {"line 2"}, {"line 3"}, {"line 4", "cut off"}}},
		{"jsonl more after the object", "a.jsonl", "{\"a\":1} {\"a\":2}\n{\"a\":1},\n", Options{}, nil,
			[][]string{{"line 1", "after the object"}, {"line 2", "after the object"}}},
		{"jsonl values without end", "a.jsonl", `{"a":[[` + strings.Repeat("1,", 1<<20) + "2],[" + strings.Repeat("3,", 1<<20) + "4]]}\n{\"a\":1}", Options{}, [][]any{{json.Number("1")}},
			[][]string{{"line 1: more than 2097152 values"}}},
		{"jsonl key twice", "a.jsonl", `{"a":1,"a":2}`, Options{}, nil, [][]string{{`line 1: key "a" twice`}}},
		{"jsonl not UTF-8", "a.jsonl", "{\"a\":\"\xff\"}", Options{}, nil, [][]string{{"line 1: not UTF-8"}}},
		{"jsonl NaN", "a.jsonl", `{"a":NaN}`, Options{}, nil, [][]string{{"line 1: bad JSON"}}},
		{"jsonl too deep", "a.jsonl", `{"a":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + "}\n{\"a\":null}", Options{}, [][]any{{nil}}, [][]string{{"line 1: bad JSON", "depth"}}},
		{"jsonl line over the limit", "a.jsonl", `{"a":"` + strings.Repeat("x", 1000) + "\"}\n{\"a\":null}", Options{MaxRowBytes: 500}, [][]any{{nil}}, [][]string{{"line 1: longer than 500 bytes"}}},
		{"json bad object among good ones", "a.json", "[{\"a\":1},\n{\"a\":x},\n{\"a\":2}]", Options{}, [][]any{{json.Number("1")}, {json.Number("2")}}, [][]string{{"line 2: bad JSON"}}},
		{"vader columns", "a_GroundTruth.txt", "1\t2.0\tx\n2\tgood\n3\tx\ty\n4\tNaN\ty\n5\t99\ty\n6\t1\t\xff\n", Options{}, [][]any{{"1", "2.0", "x", "positive"}},
			[][]string{{"line 2: 2 columns"}, {"line 3", `rating "x"`}, {"line 4", `rating "NaN"`}, {"line 5", "-4 to 4"}, {"line 6: not UTF-8"}}},
		{"text not UTF-8", "a.txt", "a\n\xff\nb\n", Options{}, [][]any{{"a"}, {"b"}}, [][]string{{"a.txt: line 2: not UTF-8"}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			rows, bad, err := readAll(t, write(t, c.file, c.content), c.opts)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, flat(rows)); diff != "" {
				t.Errorf("rows (-want +got):\n%s", diff)
			}
			if len(bad) != len(c.bad) {
				t.Fatalf("bad rows: %v, want %q", bad, c.bad)
			}
			for i, parts := range c.bad {
				wantError(t, bad[i], parts...)
			}
		})
	}
}

// What no row can be blamed for ends the reading with an error that names the file.
func TestFilesThatCannotBeRead(t *testing.T) {
	var table strings.Builder
	table.WriteString("text,label\n")
	for i := range 5000 {
		fmt.Fprintf(&table, "word %d,1\n", i*i*7919%100_003)
	}
	whole := gzipped(t, table.String())
	cases := []struct {
		name, file, content string
		opts                Options
		want                []string
	}{
		{"csv empty", "a.csv", "", Options{}, []string{"a.csv: empty"}},
		{"csv BOM alone", "a.csv", "\xef\xbb\xbf", Options{}, []string{"a.csv: empty"}},
		{"csv column twice", "a.csv", "text,text\n", Options{}, []string{`line 1: two columns are named "text"`}},
		{"csv header not UTF-8", "a.csv", "t\xe9xt,label\na,b\n", Options{}, []string{"line 1: not UTF-8"}},
		{"csv too wide", "a.csv", strings.Repeat("a,", 5000), Options{}, []string{"line 1: 5001 columns"}},
		{"csv header without end", "a.csv", strings.Repeat("a", 2<<20), Options{}, []string{"longer than 1048576 bytes"}},
		{"csv separators without end", "a.csv", "text,label\n" + strings.Repeat(",", 5<<20), Options{}, []string{"byte 11", "more than 2097152 ','"}},
		{"csv quote swallows the file", "a.csv", "text,label\n\"" + strings.Repeat("words, and more\n", 20_000), Options{MaxRowBytes: 1000}, []string{"longer than 1000 bytes", "quote unclosed"}},
		{"csv unclosed quote", "a.csv", "text,label\na,1\n\"b,0\nc,1\n", Options{}, []string{"line 3", "never closed", "line 4"}},
		{"csv of an old Mac", "a.csv", "text,label\rgood,1\rbad,0\r", Options{}, []string{"line 1", "carriage return"}},
		{"csv bad comma", "a.csv", "a", Options{Comma: '"'}, []string{"cannot separate"}},
		{"tsv empty", "a.tsv", "\n\n", Options{}, []string{"a.tsv: empty"}},
		{"tsv too wide", "a.tsv", strings.Repeat("\t", 8000), Options{}, []string{"line 1: 8001 columns"}},
		{"tsv column twice", "a.tsv", "a\ta\n", Options{}, []string{"two columns"}},
		{"json empty", "a.json", " \n", Options{}, []string{"a.json: empty"}},
		{"json scalar", "a.json", "3", Options{}, []string{`starts with '3'`}},
		{"json not closed", "a.json", "[{\"a\":1}", Options{}, []string{"not closed"}},
		{"json object not closed", "a.json", "[\n{\"a\":\"]}", Options{}, []string{"line 2 is not closed"}},
		{"json no comma", "a.json", "[{\"a\":1} {\"a\":1}]", Options{}, []string{"line 1", "comma"}},
		{"json last comma", "a.json", "[{\"a\":1},]", Options{}, []string{"where an object should start"}},
		{"json comma at the end", "a.json", "[{\"a\":1},", Options{}, []string{"not closed"}},
		{"json scalars in the array", "a.json", "[\n1]", Options{}, []string{"line 2", "object should start"}},
		{"json more after the array", "a.json", "[]x", Options{}, []string{"after the array's end"}},
		{"json object over the limit", "a.json", "[{\"a\":\"" + strings.Repeat("x", 1000) + "\"}]", Options{MaxRowBytes: 100}, []string{"line 1 is longer than 100 bytes"}},
		{"json objects then junk", "a.json", "{} x", Options{}, []string{"object should start"}},
		{"gzip cut off", "a.csv.gz", whole[:len(whole)/2], Options{}, []string{"a.csv.gz", "unexpected EOF"}},
		{"gzip damaged", "a.txt.gz", whole[:2000] + "\x00\x00\x00\x00" + whole[2004:], Options{}, []string{"a.txt.gz"}},
		{"gzip header alone", "a.csv.gz", whole[:5], Options{}, []string{"a.csv.gz", "unexpected EOF"}},
		{"gzip in name only", "a.csv.gz", "text,label\n", Options{}, []string{"a.csv.gz: not gzip"}},
		{"utf-16", "a.csv", "\xff\xfet\x00e\x00", Options{}, []string{"UTF-16"}},
		{"zip", "a.csv", "PK\x03\x04....", Options{}, []string{"zip"}},
		{"zstd", "a.csv", "\x28\xb5\x2f\xfd....", Options{}, []string{"zstd"}},
		{"tar.gz", "a.tar.gz", gzipped(t, strings.Repeat("\x00", 257)+"ustar"+strings.Repeat("\x00", 300)), Options{}, []string{"tar archive"}},
		{"unknown format", "a.csv", "a", Options{Format: "xls"}, []string{`unknown format "xls"`}},
		{"unknown encoding", "a.csv", "a", Options{Encoding: "latin9"}, []string{`unknown encoding "latin9"`}},
		{"parquet through gzip", "a.parquet.gz", "x", Options{}, []string{"a.parquet.gz"}},
		{"folder format on a file", "a.csv", "a", Options{Format: Folder}, []string{"folder"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, bad, err := readAll(t, write(t, c.file, c.content), c.opts)
			if err == nil && len(bad) > 0 {
				err = bad[0]
			}
			wantError(t, err, c.want...)
		})
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent.csv"), Options{}); !os.IsNotExist(unwrapAll(err)) {
		t.Errorf("absent file: %v", err)
	}
}

func unwrapAll(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err
		}
		err = u.Unwrap()
		if os.IsNotExist(err) {
			return err
		}
	}
}

func TestFolderOfReviews(t *testing.T) {
	root := t.TempDir()
	put := func(name, text string) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	put("train/pos/1_9.txt", "good\n\nfilm")
	put("train/pos/0_8.txt", "\xef\xbb\xbffine")
	put("train/neg/0_1.txt", "bad")
	put("train/unsup/0_0.txt", "unknown")
	put("train/pos/urls.lst", "no text file")
	put("test/pos/0_10.txt", "great")
	put("test/neg/0_2.txt", "caf\xe9")
	put("README", "x")

	rows, bad, err := readAll(t, root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := [][]any{
		{"bad", "neg", "train/neg/0_1", "train"},
		{"fine", "pos", "train/pos/0_8", "train"},
		{"good\n\nfilm", "pos", "train/pos/1_9", "train"},
		{"great", "pos", "test/pos/0_10", "test"},
	}
	if diff := cmp.Diff(want, flat(rows)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	if len(bad) != 1 {
		t.Fatalf("bad rows: %v", bad)
	}
	wantError(t, bad[0], filepath.Join("test", "neg", "0_2.txt"), "not UTF-8")

	rows, _, err = readAll(t, filepath.Join(root, "train"), Options{})
	if err != nil || len(rows) != 3 {
		t.Errorf("one part: %d rows, %v", len(rows), err)
	}
	_, bad, err = readAll(t, filepath.Join(root, "train"), Options{MaxRowBytes: 4})
	if err != nil || len(bad) != 2 {
		t.Errorf("over the limit: %v, %v", bad, err)
	}
	_, err = Open(filepath.Join(root, "train", "pos"), Options{})
	wantError(t, err, "pos/", "name a data file")
	_, err = Open(root, Options{Format: CSV})
	wantError(t, err, "is a folder")
}

// Values are what encoding/json makes of them.
func TestValuesOfJSON(t *testing.T) {
	for _, text := range []string{
		`{}`, ` { } `, `{"a":{},"b":[],"c":[ ],"d":{ }}`, `{"a" : [1 , -2.5e+3,0.1E-7 ,true,false , null,"x"]}`, `{"a":{"b":{"c":[[],[{}],[[1],2]]}},"d":-0}`,
		`{"a":"\"quoted\" \\\\ \u00e9 \ud83d\ude00 \ud800 \n","\u0061b":"]}{["}`, `{"a":{"k":1,"k":2}}`, "{\"a\"\t:\r\n\"漢\"}", `{"":""}`, `{"a":1e999}`,
	} {
		r, err := New(io.NopCloser(strings.NewReader(text)), "a.json", Options{})
		if err != nil {
			t.Fatal(err)
		}
		row, err := r.Next()
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		want := map[string]any{}
		if err := d.Decode(&want); err != nil {
			t.Fatal(err)
		}
		got := map[string]any{}
		for i, name := range row.names {
			got[name] = row.values[i]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", text, diff)
		}
	}
}

// A line without end is told as soon as it is too long, not at its end.
// Behind a row for which the parser was made anew, bad rows still say where they are.
func TestBadRowsBehindALongOne(t *testing.T) {
	longer := strings.Repeat("word\n", 300_000)
	head := "text,label\n\"" + longer + "\",1\n"
	for text, want := range map[string]string{"x\n": "line 300003: 1 columns where the header has 2", "x\"y,1\n": `line 300003: a bare "`, "\"x\n\ny": "line 300003: a quote opened here is never closed (read to line 300005"} {
		r, err := Open(write(t, "a.csv", head+text), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		r.Close()
	}
}

func TestEndlessLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.jsonl")
	if err := os.Symlink("/dev/zero", path); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		r, err := Open(path, Options{MaxRowBytes: 1 << 20})
		if err == nil {
			_, err = r.Next()
			err = errors.Join(err, r.Close())
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "line 1: longer than") {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it is read away")
	}
}
