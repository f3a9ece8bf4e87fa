package files

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func openGGUF(t *testing.T, path string) *GGUF {
	t.Helper()
	g, ok := mustOpen(t, path).(*GGUF)
	if !ok {
		t.Fatalf("%s is not opened as GGUF", path)
	}
	return g
}

func TestDequantisesAsTheReference(t *testing.T) {
	g := openGGUF(t, "testdata/blocks.gguf")
	reference := mustOpen(t, "testdata/blocks.safetensors")
	if len(g.Entries()) != len(reference.Entries()) {
		t.Fatalf("%d tensors, want %d", len(g.Entries()), len(reference.Entries()))
	}
	for _, e := range g.Entries() {
		t.Run(e.Name, func(t *testing.T) {
			want, found := reference.Lookup(e.Name)
			if !found {
				t.Fatal("the reference has no such tensor")
			}
			if diff := cmp.Diff(want.Shape, e.Shape); diff != "" {
				t.Fatal(diff)
			}
			wanted := make([]float32, want.Elements())
			if err := want.Float32(wanted, 0); err != nil {
				t.Fatal(err)
			}
			got := make([]float32, e.Elements())
			if err := e.Float32(got, 0); err != nil {
				t.Fatal(err)
			}
			for i := range got {
				if math.Float32bits(got[i]) != math.Float32bits(wanted[i]) {
					t.Fatalf("element %d is %g, want %g", i, got[i], wanted[i])
				}
			}
			// Row by row gives the same.
			columns := e.Shape[1]
			row := make([]float32, columns)
			for r := range e.Shape[0] {
				if err := e.Float32(row, r*columns); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(row, wanted[r*columns:(r+1)*columns]) {
					t.Errorf("row %d differs", r)
				}
			}
		})
	}
}

func TestReadsGGUFMetadataOfEveryType(t *testing.T) {
	g := openGGUF(t, "testdata/blocks.gguf")
	want := map[string]any{
		"general.architecture": "llama",
		"t.u8":                 int64(200), "t.i8": int64(-5), "t.u16": int64(60000), "t.i16": int64(-30000),
		"t.u32": int64(4000000000), "t.i32": int64(-2000000000), "t.u64": uint64(1 << 63), "t.i64": int64(-1 << 62),
		"t.f32": 0.5, "t.f64": 0.1, "t.bool": true, "t.string": "héllo",
		"t.strings": []string{"a", "", "▁b"}, "t.ints": []int64{1, -2, 3},
		"t.floats": []float64{0.5, -1.5}, "t.bools": []bool{true, false},
	}
	got := map[string]any{}
	for _, key := range g.Keys() {
		got[key], _ = g.Value(key)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	texts := g.Metadata()
	if texts["t.i8"] != "-5" || texts["t.f64"] != "0.1" || texts["t.bool"] != "true" || texts["t.string"] != "héllo" || len(texts) != 13 {
		t.Errorf("metadata as text: %v", texts)
	}
	if n, err := g.Int("t.u32"); err != nil || n != 4000000000 {
		t.Errorf("Int: %d %v", n, err)
	}
	if f, err := g.Float("t.i8"); err != nil || f != -5 {
		t.Errorf("Float of a whole number: %g %v", f, err)
	}
	if f, err := g.Float("t.f32"); err != nil || f != 0.5 {
		t.Errorf("Float: %g %v", f, err)
	}
	if b, err := g.Bool("t.bool"); err != nil || !b {
		t.Errorf("Bool: %v %v", b, err)
	}
	if s, err := g.Texts("t.strings"); err != nil || len(s) != 3 {
		t.Errorf("Texts: %v %v", s, err)
	}
	if n, err := g.Ints("t.ints"); err != nil || len(n) != 3 {
		t.Errorf("Ints: %v %v", n, err)
	}
	if f, err := g.Floats("t.floats"); err != nil || len(f) != 2 {
		t.Errorf("Floats: %v %v", f, err)
	}
	_, err := g.Int("t.string")
	wantError(t, err, "blocks.gguf", `"t.string"`, "a string, not a whole number")
	_, err = g.Int("t.u64")
	wantError(t, err, `"t.u64"`, "9223372036854775808")
	_, err = g.Texts("t.ints")
	wantError(t, err, `"t.ints"`, "an array of strings")
	_, err = g.Text("t.nothing")
	wantError(t, err, `"t.nothing"`)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v does not match fs.ErrNotExist", err)
	}
}

// ggufBuilder writes GGUF piece by piece, right or wrong.
type ggufBuilder struct{ bytes.Buffer }

func (b *ggufBuilder) u32(n uint32) *ggufBuilder {
	b.Write(binary.LittleEndian.AppendUint32(nil, n))
	return b
}

func (b *ggufBuilder) u64(n uint64) *ggufBuilder {
	b.Write(binary.LittleEndian.AppendUint64(nil, n))
	return b
}

func (b *ggufBuilder) text(s string) *ggufBuilder {
	b.u64(uint64(len(s)))
	b.WriteString(s)
	return b
}

func (b *ggufBuilder) key(name string, kind uint32) *ggufBuilder { return b.text(name).u32(kind) }

func (b *ggufBuilder) tensor(name string, kind uint32, offset uint64, dims ...uint64) *ggufBuilder {
	b.text(name).u32(uint32(len(dims)))
	for _, d := range dims {
		b.u64(d)
	}
	return b.u32(kind).u64(offset)
}

// data pads to the alignment and adds so many bytes.
func (b *ggufBuilder) data(count int) []byte {
	for b.Len()%32 != 0 {
		b.WriteByte(0)
	}
	b.Write(make([]byte, count))
	return b.Bytes()
}

func gguf(version uint32, tensors, keys uint64) *ggufBuilder {
	b := &ggufBuilder{}
	b.WriteString("GGUF")
	return b.u32(version).u64(tensors).u64(keys)
}

func malformedGGUF() []struct {
	name string
	file []byte
	want []string
} {
	nested := gguf(3, 0, 1).key("k", ggufArray)
	for range 10 {
		nested.u32(ggufArray).u64(1)
	}
	return []struct {
		name string
		file []byte
		want []string
	}{
		{"only the magic", []byte("GGUF"), []string{"cut short"}},
		{"another magic", []byte("GGML\x03\x00\x00\x00"), []string{"does not begin with GGUF"}},
		{"version 1", gguf(1, 0, 0).Bytes(), []string{"version 1"}},
		{"version 0", gguf(0, 0, 0).Bytes(), []string{"version 0"}},
		{"version 4", gguf(4, 0, 0).Bytes(), []string{"version 4"}},
		{"big-endian", gguf(3<<24, 0, 0).Bytes(), []string{"big-endian"}},
		{"no counts", gguf(3, 0, 0).Bytes()[:12], []string{"cut short"}},
		{"absurd tensor count", gguf(3, 1<<60, 0).Bytes(), []string{"1152921504606846976 tensors"}},
		{"absurd key count", gguf(3, 0, 1<<60).Bytes(), []string{"metadata keys"}},
		{"fewer keys than said", gguf(3, 0, 2).key("a", ggufU8).Bytes(), []string{`"a"`, "cut short"}},
		{"key longer than the file", gguf(3, 0, 1).u64(1 << 40).Bytes(), []string{"key 1 of 1", "cut short"}},
		{"key length of all ones", gguf(3, 0, 1).u64(math.MaxUint64).Bytes(), []string{"key 1 of 1", "cut short"}},
		{"unknown value type", gguf(3, 0, 1).key("a", 13).u64(0).Bytes(), []string{`"a"`, "value type 13"}},
		{"truth value 2", gguf(3, 0, 1).key("a", ggufBool).u32(2).Bytes(), []string{`"a"`, "neither 0 nor 1"}},
		{"string longer than the file", gguf(3, 0, 1).key("a", ggufString).u64(1 << 30).Bytes(), []string{`"a"`, "cut short"}},
		{"array longer than the file", gguf(3, 0, 1).key("a", ggufArray).u32(ggufU32).u64(1 << 20).Bytes(), []string{`"a"`, "cut short"}},
		{"absurd array", gguf(3, 0, 1).key("a", ggufArray).u32(ggufU8).u64(1 << 62).Bytes(), []string{`"a"`, "array of"}},
		{"array of an unknown type", gguf(3, 0, 1).key("a", ggufArray).u32(99).u64(1).Bytes(), []string{`"a"`, "type 99"}},
		{"arrays nested too deep", nested.Bytes(), []string{`"k"`, "nested"}},
		{"array cut short", gguf(3, 0, 1).key("a", ggufArray).u32(ggufString).u64(2).u64(0).u64(9).Bytes(), []string{`"a"`, "cut short"}},
		{"array element too large", gguf(3, 0, 1).key("a", ggufArray).u32(ggufU64).u64(1).u64(1 << 63).Bytes(), []string{`"a"`, "too large"}},
		{"a key twice", gguf(3, 0, 2).key("a", ggufU32).u32(1).key("a", ggufU32).u32(1).Bytes(), []string{`"a" appears twice`}},
		{"one part of a split", gguf(3, 0, 1).key("split.count", ggufU32).u32(3).Bytes(), []string{"3 parts", "gguf-split"}},
		{"alignment 0", gguf(3, 0, 1).key("general.alignment", ggufU32).u32(0).Bytes(), []string{"general.alignment"}},
		{"alignment 33", gguf(3, 0, 1).key("general.alignment", ggufU32).u32(33).Bytes(), []string{"general.alignment"}},
		{"alignment is text", gguf(3, 0, 1).key("general.alignment", ggufString).text("32").Bytes(), []string{"general.alignment"}},
		{"fewer tensors than said", gguf(3, 2, 0).tensor("a", 0, 0, 8).data(32), []string{"tensor 2 of 2"}},
		{"tensor name longer than the file", gguf(3, 1, 0).u64(1 << 40).Bytes(), []string{"tensor 1 of 1", "cut short"}},
		{"tensor without a name", gguf(3, 1, 0).tensor("", 0, 0, 8).data(32), []string{"empty name"}},
		{"tensor name that is not UTF-8", gguf(3, 1, 0).tensor("a\xff", 0, 0, 8).data(32), []string{"UTF-8"}},
		{"5 dimensions", gguf(3, 1, 0).tensor("a", 0, 0, 1, 1, 1, 1, 8).data(32), []string{`"a"`, "5 dimensions"}},
		{"absurd dimension count", gguf(3, 1, 0).text("a").u32(1 << 30).data(32), []string{`"a"`, "dimensions"}},
		{"dimension above 2^63", gguf(3, 1, 0).tensor("a", 0, 0, 1<<63).data(32), []string{`"a"`, "overflows"}},
		{"shape product overflows", gguf(3, 1, 0).tensor("a", 0, 0, 1<<32, 1<<32).data(32), []string{`"a"`, "overflows"}},
		{"byte size overflows", gguf(3, 1, 0).tensor("a", 0, 0, 1<<61).data(32), []string{`"a"`, "overflows"}},
		{"a type that exists", gguf(3, 1, 0).tensor("blk.0.ffn_up.weight", 20, 0, 32).data(32), []string{`"blk.0.ffn_up.weight"`, "IQ4_NL"}},
		{"a type that does not", gguf(3, 1, 0).tensor("a", 77, 0, 32).data(32), []string{`"a"`, "type 77"}},
		{"rows of half a block", gguf(3, 1, 0).tensor("a", 2, 0, 48, 2).data(64), []string{`"a"`, "whole Q4_0 blocks"}},
		{"a block type without dimensions", gguf(3, 1, 0).tensor("a", 2, 0).data(64), []string{`"a"`, "whole Q4_0 blocks"}},
		{"offset off the alignment", gguf(3, 1, 0).tensor("a", 0, 4, 8).data(64), []string{`"a"`, "alignment 32"}},
		{"offset of all ones", gguf(3, 1, 0).tensor("a", 0, math.MaxUint64, 8).data(64), []string{`"a"`, "overflows"}},
		{"offset past the end", gguf(3, 1, 0).tensor("a", 0, 1<<40, 8).data(32), []string{`"a"`, "cut short"}},
		{"data past the end", gguf(3, 1, 0).tensor("a", 0, 0, 9).data(32), []string{`"a"`, "cut short"}},
		{"no data at all", gguf(3, 1, 0).tensor("a", 0, 0, 8).Bytes(), []string{`"a"`, "cut short"}},
		{"overlap", gguf(3, 2, 0).tensor("a", 0, 0, 16).tensor("b", 0, 32, 8).data(64), []string{`"b"`, "overlap"}},
		{"the same range twice", gguf(3, 2, 0).tensor("a", 0, 0, 8).tensor("b", 0, 0, 8).data(32), []string{`"b"`, "overlap"}},
		{"a name twice", gguf(3, 2, 0).tensor("a", 0, 0, 8).tensor("a", 0, 32, 8).data(64), []string{`"a" appears twice`}},
	}
}

func TestRefusesMalformedGGUF(t *testing.T) {
	for _, c := range malformedGGUF() {
		t.Run(c.name, func(t *testing.T) {
			path := writeTemp(t, "bad.gguf", c.file)
			_, err := OpenGGUF(path)
			wantError(t, err, append(c.want, path)...)
		})
	}
}

func TestReadsGGUFInFileOrderWithReversedShapes(t *testing.T) {
	file := gguf(2, 2, 0).tensor("second", 0, 32, 3).tensor("first", 0, 0, 4, 2).data(64)
	g := openGGUF(t, writeTemp(t, "x.gguf", file))
	if diff := cmp.Diff([]string{"first F32 [2 4] 32", "second F32 [3] 12"}, describeEntries(g)); diff != "" {
		t.Error(diff)
	}
	if g.Version != 2 {
		t.Errorf("version %d", g.Version)
	}
}

func TestFloat32RefusesPartsOfBlocksAndRangesOutside(t *testing.T) {
	g := openGGUF(t, "testdata/blocks.gguf")
	q, _ := g.Lookup("Q4_K")
	for _, c := range []struct {
		first int64
		count int
		want  string
	}{{0, 255, "whole Q4_K blocks"}, {128, 256, "whole Q4_K blocks"}, {-256, 256, "elements -256"}, {1536, 256, "of 1536"}, {1 << 62, 256, "of 1536"}} {
		err := q.Float32(make([]float32, c.count), c.first)
		wantError(t, err, "blocks.gguf", `"Q4_K"`, c.want)
	}
	wantError(t, Entry{Name: "x", Shape: []int64{1}}.Float32(make([]float32, 1), 0), `"x"`, "invalid dtype")
	wantError(t, Entry{Name: "x", DType: F32, Shape: []int64{2}, Data: make([]byte, 4)}.Float32(make([]float32, 1), 0), `"x"`, "4 bytes")
}

func FuzzGGUF(f *testing.F) {
	for _, c := range malformedGGUF() {
		f.Add(c.file)
	}
	if valid, err := os.ReadFile("testdata/blocks.gguf"); err == nil {
		f.Add(valid[:len(valid)-32])
		f.Add(valid)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		g, err := parseGGUF("fuzz.gguf", &mapping{data: file})
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("more than one line: %v", err)
			}
			return
		}
		for _, e := range g.Entries() {
			if err := e.Float32(make([]float32, e.Elements()), 0); err != nil {
				t.Fatal(err)
			}
		}
	})
}
