package rows

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// The fixtures are pyarrow's and datasets': scripts/goldens/data_parquet.py.

// A page that unpacks to more than it says is refused before the library unpacks it.
func TestPagesThatHoldMoreThanTheySay(t *testing.T) {
	zeros := make([]byte, 1<<20)
	for name, pack := range map[format.CompressionCodec]func(io.Writer) io.WriteCloser{
		format.Gzip:   func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		format.Brotli: func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) },
		format.Zstd: func(w io.Writer) io.WriteCloser {
			z, err := zstd.NewWriter(w)
			if err != nil {
				t.Fatal(err)
			}
			return z
		},
		format.Snappy: nil,
	} {
		var packed bytes.Buffer
		if pack == nil {
			packed.Write(binary.AppendUvarint(nil, uint64(len(zeros)))) // the rest is not looked at
		} else {
			w := pack(&packed)
			if _, err := w.Write(zeros); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := checkInflated(bytes.NewReader(packed.Bytes()), name, int64(len(zeros))); err != nil {
			t.Errorf("%v: %v", name, err)
		}
		wantError(t, checkInflated(bytes.NewReader(packed.Bytes()), name, 100), "more than the 100 bytes")
	}
	if err := checkInflated(nil, format.Uncompressed, 1); err != nil {
		t.Error(err)
	}
}

func TestNumbersAsText(t *testing.T) {
	for want, v := range map[string]any{
		"1234567": 1234567.0, "4.1": float32(4.1), "0.1": 0.1, "-3": -3.0, "1e+21": 1e21, "3": int64(3), "1.5e-07": 1.5e-7, "0": 0.0, "100000000000000000000": 1e20,
	} {
		row := Row{names: []string{"n"}, values: []any{v}}
		if got, err := row.Text("n"); err != nil || got != want {
			t.Errorf("%v is %s (%v), want %s", v, got, err, want)
		}
	}
}

func TestParquetNestedColumnsInEveryCodec(t *testing.T) {
	turn := func(role, content string) any { return map[string]any{"role": role, "content": content} }
	columns := []string{"messages", "input_ids", "meta.lang", "meta.stars", "score", "flag", "dict"}
	want := map[string][]any{
		"messages": {
			[]any{turn("user", "Hi"), turn("assistant", "Hello!")},
			[]any{turn("system", "Be brief."), turn("user", "1+1?"), turn("assistant", "2")},
			[]any{}, []any{},
		},
		"input_ids":  {[]any{int64(1), int64(2), int64(3)}, []any{int64(4)}, []any{}, []any{}},
		"meta.stars": {int64(5), nil, nil, int64(1)},
		"meta.lang":  {"en", "de", nil, nil},
		"score":      {0.5, nil, math.NaN(), -1.0},
		"flag":       {true, false, nil, true},
		"dict":       {"a", "b", "a", nil},
	}
	for _, codec := range []string{"none", "snappy", "gzip", "zstd", "brotli", "lz4"} {
		t.Run(codec, func(t *testing.T) {
			rows, bad, err := readAll(t, "testdata/nested_"+codec+".parquet", Options{})
			if codec == "lz4" {
				wantError(t, err, "LZ4", "snappy")
				return
			}
			if err != nil || bad != nil {
				t.Fatal(err, bad)
			}
			if len(rows) != 4 {
				t.Fatalf("%d rows", len(rows))
			}
			for _, column := range columns {
				for i, row := range rows {
					got, ok := row.Lookup(column)
					if !ok {
						t.Fatalf("no column %q among %q", column, row.Columns())
					}
					if diff := cmp.Diff(want[column][i], got, cmpopts.EquateNaNs()); diff != "" {
						t.Errorf("%s, row %d (-want +got):\n%s", column, i, diff)
					}
				}
			}
			if _, ok := rows[0].Lookup("deep"); ok {
				t.Error("a list of lists is read")
			}
		})
	}
}

func TestParquetTextThatIsNotUTF8(t *testing.T) {
	rows, bad, err := readAll(t, "testdata/latin1.parquet", Options{})
	if err != nil || len(rows) != 1 || len(bad) != 1 {
		t.Fatal(rows, bad, err)
	}
	wantError(t, bad[0], "latin1.parquet: row 2", `column "text"`, "not UTF-8")
	rows, bad, err = readAll(t, "testdata/latin1.parquet", Options{Encoding: Windows1252})
	if err != nil || bad != nil {
		t.Fatal(bad, err)
	}
	if got, _ := rows[1].Lookup("text"); got != "café" {
		t.Errorf("got %q", got)
	}
}

// Files of many row groups and pages, written by the library itself, with a
// classic repeated field.
func TestParquetManyRows(t *testing.T) {
	type record struct {
		ID    int64    `parquet:"id"`
		Text  string   `parquet:"text,dict"`
		Label int32    `parquet:"label"`
		Tags  []string `parquet:"tags"`
	}
	var records []record
	for i := range 5000 {
		records = append(records, record{ID: int64(i), Text: fmt.Sprint("text ", i%7), Label: int32(i % 3), Tags: make([]string, i%3)})
	}
	var b bytes.Buffer
	if err := parquet.Write(&b, records, parquet.MaxRowsPerRowGroup(700)); err != nil {
		t.Fatal(err)
	}
	path := write(t, "many.bin", b.String()) // known by content
	rows, bad, err := readAll(t, path, Options{})
	if err != nil || bad != nil || len(rows) != 5000 {
		t.Fatal(len(rows), bad, err)
	}
	for i, row := range rows {
		want := []any{int64(i), fmt.Sprint("text ", i%7), int64(i % 3)}
		if diff := cmp.Diff(want, row.values[:3]); diff != "" {
			t.Fatalf("row %d (-want +got):\n%s", i, diff)
		}
		if tags := row.values[3].([]any); len(tags) != i%3 {
			t.Fatalf("row %d has %d tags", i, len(tags))
		}
	}
}

// A damaged file is an error, or at worst other values; never a panic.
func TestParquetDamaged(t *testing.T) {
	whole, err := os.ReadFile("testdata/nested_snappy.parquet")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 4, 8, 100, len(whole) / 2, len(whole) - 9, len(whole) - 1} {
		_, _, err := readAll(t, write(t, "cut.parquet", string(whole[:n])), Options{})
		wantError(t, err, "cut.parquet")
	}
	dir := t.TempDir()
	for i := 0; i < len(whole); i += 3 {
		broken := bytes.Clone(whole)
		broken[i] ^= 0x55
		path := filepath.Join(dir, "broken.parquet")
		if err := os.WriteFile(path, broken, 0o666); err != nil {
			t.Fatal(err)
		}
		readAll(t, path, Options{})
	}
}

// Lengths that lie about what follows are refused before they are believed.
func TestParquetLengthsAreChecked(t *testing.T) {
	page := func(fields ...byte) []byte { return append(fields, 0) }
	for _, c := range []struct {
		name string
		raw  []byte
		want string // "": fine
	}{
		{"empty struct", page(), ""},
		{"one of everything", page(
			0x11, 0x12, 0x13, 0xff, 0x15, 0x80, 0x01, // true, false, byte, i32
			0x17, 1, 2, 3, 4, 5, 6, 7, 8, 0x18, 2, 'h', 'i', // double, binary
			0x19, 0x23, 7, 7, 0x1b, 1, 0x85, 1, 'x', 3, // list, map
			0x1c, 0x11, 0, 0x05, 0x40, 9), ""}, // struct, numbered field
		{"empty map", page(0x1b, 0), ""},
		{"no end", []byte{0x11}, "cut off"},
		{"binary of 2 GB", page(0x18, 0xff, 0xff, 0xff, 0xff, 0x07), "cut off"},
		{"list of 2 billion", page(0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07), "cut off"},
		{"map of 2 billion", page(0x1b, 0xff, 0xff, 0xff, 0xff, 0x07, 0x33), "cut off"},
		{"map cut off", []byte{0x1b, 1}, "cut off"},
		{"list cut off", []byte{0x19}, "cut off"},
		{"number of 80 bits", page(0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01), "overflow"},
		{"unknown type", page(0x1e), "unknown type 14"},
		{"nested without end", bytes.Repeat([]byte{0x1c}, 100_000), "too deep"},
		{"lists without end", append([]byte{0x19}, bytes.Repeat([]byte{0x19}, 100_000)...), "too deep"},
	} {
		end, err := thriftLength(c.raw)
		switch {
		case c.want != "":
			wantError(t, err, c.want)
		case err != nil || end != len(c.raw):
			t.Errorf("%s: ends at %d of %d, %v", c.name, end, len(c.raw), err)
		}
	}

	footer := func(length uint32) string {
		return "PAR1" + string(binary.LittleEndian.AppendUint32(nil, length)) + "PAR1"
	}
	for content, want := range map[string]string{
		footer(0):                      "cut off", // an empty footer lacks even its end
		footer(4_000_000_000):          "a footer of 4000000000 bytes",
		"PAR1 and then some text":      "it ends in",
		"PAR1PARE":                     "8 bytes are no parquet",
		"PAR1\x00\x00\x00\x00\x00PARE": "it ends in",
	} {
		_, _, err := readAll(t, write(t, "a.parquet", content), Options{})
		wantError(t, err, "a.parquet", want)
	}

	// A page whose header claims more than there is.
	whole, err := os.ReadFile("testdata/nested_none.parquet")
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open("testdata/nested_none.parquet", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pq := r.(*parquetReader)
	meta := pq.file.Metadata().RowGroups[0].Columns[0].MetaData
	at := meta.DataPageOffset
	if meta.DictionaryPageOffset != 0 {
		at = meta.DictionaryPageOffset
	}
	_, n, err := pq.pageHeader(at, at+meta.TotalCompressedSize)
	if err != nil {
		t.Fatal(err)
	}
	leaves := 0
	for i := range n {
		for _, b := range []byte{0x7f, 0xff} {
			broken := bytes.Clone(whole)
			broken[at+i] = b
			_, _, err := readAll(t, write(t, "a.parquet", string(broken)), Options{})
			if err != nil && strings.Contains(err.Error(), "leaves the column") {
				leaves++
			}
		}
	}
	if leaves == 0 {
		t.Error("no damage to a page header made its size wrong")
	}
}
