package files

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// shape-and-name summary of an archive, in file order.
func describeEntries(a Archive) []string {
	var lines []string
	for _, e := range a.Entries() {
		lines = append(lines, fmt.Sprintf("%s %s %v %d", e.Name, e.DType, e.Shape, len(e.Data)))
	}
	return lines
}

func writeTemp(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustOpen(t testing.TB, path string) Archive {
	t.Helper()
	a, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// wantError checks that a message is one line and holds every part.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error has more than one line: %v", err)
	}
	if len(err.Error()) > 600 {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
}

func TestReadsWhatTheReferenceWrites(t *testing.T) {
	a := mustOpen(t, "testdata/every_type.safetensors")
	want := []string{
		"ids I64 [4] 32",
		"double F64 [2 1 2] 32",
		"empty F32 [0 4] 0",
		"layer.0.bias F32 [3] 12",
		"layer.0.weight F32 [3 4] 48",
		`näme <&> "q" F32 [1] 4`,
		"scalar F32 [] 4",
		"int I32 [3] 12",
		"brain BF16 [2 3] 12",
		"half F16 [5] 10",
		"short I16 [3] 6",
		"byte I8 [7] 7",
		"ubyte U8 [2] 2",
		"mask BOOL [3] 3",
	}
	if diff := cmp.Diff(want, describeEntries(a)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"format": "pt"}, a.Metadata()); diff != "" {
		t.Error(diff)
	}
	e, found := a.Lookup("scalar")
	if !found || !bytes.Equal(e.Data, []byte{0, 0, 0x20, 0x40}) || !e.Mapped() || e.File != "testdata/every_type.safetensors" {
		t.Errorf("scalar: %v %v", e, found)
	}
	if _, found := a.Lookup("missing"); found {
		t.Error("found a tensor that is not there")
	}
}

func TestWritesTheReferenceBytes(t *testing.T) {
	want, err := os.ReadFile("testdata/every_type.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	var tensors []Tensor
	for _, e := range mustOpen(t, "testdata/every_type.safetensors").Entries() {
		tensors = append(tensors, Tensor{Name: e.Name, DType: e.DType, Shape: e.Shape, Data: e.Data})
	}
	slices.Reverse(tensors)
	var got bytes.Buffer
	if err := EncodeSafetensors(&got, tensors, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got.Bytes()) {
		t.Errorf("got\n%q\nwant\n%q", got.Bytes(), want)
	}
}

// st builds a safetensors file from a header and a number of data bytes.
func st(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	return append(b, make([]byte, data)...)
}

// one is a header with a single F32 tensor "w" of shape [2].
const one = `{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`

var malformedSafetensors = []struct {
	name string
	file []byte
	want []string
}{
	{"shorter than the length", []byte("\x01\x00\x00"), []string{"3 bytes are too few"}},
	{"length above the cap", binary.LittleEndian.AppendUint64(nil, 100_000_001), []string{"header of 100000001 bytes, more than"}},
	{"length of all ones", []byte("\xff\xff\xff\xff\xff\xff\xff\xff{}"), []string{"more than 100000000"}},
	{"length past the end", binary.LittleEndian.AppendUint64(nil, 64), []string{"cut short"}},
	{"empty header", st("", 0), []string{"does not begin with {"}},
	{"header with leading space", st(" "+one, 8), []string{"does not begin with {"}},
	{"header is an array", st("[]", 0), []string{"does not begin with {"}},
	{"header cut in the middle", st(one[:30], 8), []string{`"w"`, "JSON"}},
	{"header with a trailing comma", st(`{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},}`, 8), []string{"JSON"}},
	{"text after the header", st(one+"x", 8), []string{"goes on after its end"}},
	{"a second object after the header", st(one+"{}", 8), []string{"goes on after its end"}},
	{"invalid UTF-8", st("{\"w\xff\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8), []string{"not valid UTF-8"}},
	{"a lone surrogate in a name", st(strings.Replace(one, `"w"`, `"\ud800"`, 1), 8), []string{"not valid UTF-8"}},
	{"an empty name", st(strings.Replace(one, `"w"`, `""`, 1), 8), []string{"empty name"}},
	{"a name of 5000 bytes", st(strings.Replace(one, `"w"`, `"`+strings.Repeat("n", 5000)+`"`, 1), 8), []string{"5000 bytes"}},
	{"tensor is a number", st(`{"w":3}`, 0), []string{`"w"`, "where { was expected"}},
	{"tensor is null", st(`{"w":null}`, 0), []string{`"w"`}},
	{"no dtype", st(`{"w":{"shape":[2],"data_offsets":[0,8]}}`, 8), []string{`"w"`, "no dtype"}},
	{"no shape", st(`{"w":{"dtype":"F32","data_offsets":[0,8]}}`, 8), []string{`"w"`, "no shape"}},
	{"no offsets", st(`{"w":{"dtype":"F32","shape":[2]}}`, 8), []string{`"w"`, "no data_offsets"}},
	{"dtype twice", st(`{"w":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}}`, 8), []string{`"w"`, "dtype appears twice"}},
	{"unknown dtype", st(strings.Replace(one, "F32", "F8_E4M3", 1), 8), []string{`"w"`, `"F8_E4M3" is not supported`}},
	{"block dtype", st(strings.Replace(one, "F32", "Q4_0", 1), 8), []string{`"w"`, "not a safetensors type"}},
	{"dtype is a number", st(strings.Replace(one, `"F32"`, `4`, 1), 8), []string{`"w"`, "not a string"}},
	{"negative dimension", st(strings.Replace(one, "[2]", "[-2]", 1), 8), []string{`"w"`, `"-2"`}},
	{"fractional dimension", st(strings.Replace(one, "[2]", "[2.0]", 1), 8), []string{`"w"`, `"2.0"`}},
	{"exponent dimension", st(strings.Replace(one, "[2]", "[2e0]", 1), 8), []string{`"w"`, `"2e0"`}},
	{"dimension is text", st(strings.Replace(one, "[2]", `["2"]`, 1), 8), []string{`"w"`, "not a number"}},
	{"dimension above 2^63", st(strings.Replace(one, "[2]", "[9223372036854775808]", 1), 8), []string{`"w"`, "2^63-1"}},
	{"shape product overflows", st(strings.Replace(one, "[2]", "[4294967296,4294967296]", 1), 8), []string{`"w"`, "overflows"}},
	{"shape product wraps to the right size", st(strings.Replace(one, "[2]", "[4611686018427387904,2,2,2]", 1), 8), []string{`"w"`, "overflows"}},
	{"byte size overflows", st(strings.Replace(one, "[2]", "[2305843009213693952]", 1), 8), []string{`"w"`, "overflows"}},
	{"zero after an overflow", st(strings.Replace(one, "[2]", "[4294967296,4294967296,0]", 1), 8), []string{`"w"`, "overflows"}},
	{"65 dimensions", st(strings.Replace(one, "[2]", "[2"+strings.Repeat(",1", 64)+"]", 1), 8), []string{`"w"`, "more than 64"}},
	{"shape is nested", st(strings.Replace(one, "[2]", "[[2]]", 1), 8), []string{`"w"`, "not a number"}},
	{"three offsets", st(strings.Replace(one, "[0,8]", "[0,4,8]", 1), 8), []string{`"w"`, "more than 2"}},
	{"one offset", st(strings.Replace(one, "[0,8]", "[8]", 1), 8), []string{`"w"`, "has 1 numbers"}},
	{"offsets backwards", st(strings.Replace(one, "[0,8]", "[8,0]", 1), 8), []string{`"w"`, "backwards"}},
	{"negative offset", st(strings.Replace(one, "[0,8]", "[-8,0]", 1), 8), []string{`"w"`, `"-8"`}},
	{"offsets too small for the shape", st(strings.Replace(one, "[0,8]", "[0,4]", 1), 4), []string{`"w"`, "takes 8 bytes"}},
	{"offsets outside the file", st(one, 4), []string{`"w"`, "outside the 4 bytes"}},
	{"hole at the start", st(strings.Replace(one, "[0,8]", "[8,16]", 1), 16), []string{`"w"`, "hole"}},
	{"bytes after the last tensor", st(one, 9), []string{"1 bytes of data belong to no tensor"}},
	{"data without tensors", st("{}", 8), []string{"8 bytes of data belong to no tensor"}},
	{"overlap", st(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}`, 12), []string{`"b"`, "overlap"}},
	{"the same range twice", st(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, 8), []string{`"b"`, "overlap"}},
	{"hole between", st(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}`, 12), []string{`"b"`, "hole"}},
	{"a name twice", st(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8), []string{`"a"`, "appears twice"}},
	{"a name twice, once escaped", st(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\u0061":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`, 8), []string{`"a"`, "appears twice"}},
	{"metadata is a list", st(`{"__metadata__":[]}`, 0), []string{"where { was expected"}},
	{"metadata value is a number", st(`{"__metadata__":{"a":1}}`, 0), []string{`"a"`, "not a string"}},
	{"metadata twice", st(`{"__metadata__":{},"__metadata__":{}}`, 0), []string{"__metadata__ appears twice"}},
	{"metadata key twice", st(`{"__metadata__":{"a":"1","a":"2"}}`, 0), []string{`"a" appears twice`}},
	{"an unknown field nested too deep", st(`{"w":{"x":`+strings.Repeat("[", 20000)+`}}`, 0), []string{`"w"`, "JSON"}},
}

func TestRefusesMalformedSafetensors(t *testing.T) {
	for _, c := range malformedSafetensors {
		t.Run(c.name, func(t *testing.T) {
			path := writeTemp(t, "bad.safetensors", c.file)
			_, err := OpenSafetensors(path)
			wantError(t, err, append(c.want, path)...)
			_, err = DecodeSafetensors(c.file)
			wantError(t, err, c.want...)
		})
	}
}

func TestDecodesSafetensorsInMemory(t *testing.T) {
	content, err := os.ReadFile("testdata/every_type.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	a, err := DecodeSafetensors(content)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(describeEntries(mustOpen(t, "testdata/every_type.safetensors")), describeEntries(a)); diff != "" {
		t.Error(diff)
	}
	for _, e := range a.Entries() {
		if e.Mapped() {
			t.Errorf("%s is a view of a file", e.Name)
		}
		if err := e.Release(); err != nil {
			t.Error(err)
		}
	}
	if e, _ := a.Lookup("scalar"); !bytes.Equal(e.Data, []byte{0, 0, 0x20, 0x40}) {
		t.Errorf("scalar holds % x", e.Data)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

func TestAcceptsUnusualButValidSafetensors(t *testing.T) {
	cases := []struct {
		name string
		file []byte
		want []string
	}{
		{"no tensors", st("{}", 0), nil},
		{"padding of the header", st(one+"  \n", 8), []string{"w F32 [2] 8"}},
		{"an unknown field", st(strings.Replace(one, `"dtype"`, `"note":{"a":[1,2]},"dtype"`, 1), 8), []string{"w F32 [2] 8"}},
		{"header order is not file order", st(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 2), []string{"b U8 [1] 1", "a U8 [1] 1"}},
		{"an empty tensor between", st(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"e":{"dtype":"F32","shape":[3,0],"data_offsets":[1,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), []string{"a U8 [1] 1", "e F32 [3 0] 0", "b U8 [1] 1"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a := mustOpen(t, writeTemp(t, "x.safetensors", c.file))
			if diff := cmp.Diff(c.want, describeEntries(a)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzSafetensors(f *testing.F) {
	for _, c := range malformedSafetensors {
		f.Add(c.file)
	}
	f.Add(st(one, 8))
	if valid, err := os.ReadFile("testdata/every_type.safetensors"); err == nil {
		f.Add(valid)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		entries, _, err := parseSafetensors(&mapping{data: file})
		if err != nil {
			return
		}
		for _, e := range entries {
			if size, err := byteSize(e.DType, e.Shape); err != nil || size != int64(len(e.Data)) {
				t.Fatalf("tensor %q: %d bytes for %s%v", e.Name, len(e.Data), e.DType, e.Shape)
			}
		}
	})
}
