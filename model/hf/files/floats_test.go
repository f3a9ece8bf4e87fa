package files

import (
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sort"
	"testing"
)

// float64 value of a half by the definition of the format.
func halfByDefinition(h uint16) float64 {
	sign := 1.0
	if h&0x8000 != 0 {
		sign = -1
	}
	exponent, mantissa := int(h>>10&31), float64(h&0x3ff)
	switch exponent {
	case 0:
		return sign * mantissa * 0x1p-24
	case 31:
		if mantissa != 0 {
			return math.NaN()
		}
		return sign * math.Inf(1)
	}
	return sign * math.Ldexp(1+mantissa/1024, exponent-15)
}

func TestEveryHalfConvertsExactlyAndBack(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		want, got := halfByDefinition(h), F16ToFloat32(h)
		if want != want {
			if got == got {
				t.Fatalf("%#04x is %g, want NaN", h, got)
			}
			if back := F16FromFloat32(got); back&0x7fff <= 0x7c00 {
				t.Fatalf("NaN became %#04x", back)
			}
			continue
		}
		if float64(got) != want || math.Signbit(float64(got)) != math.Signbit(want) {
			t.Fatalf("%#04x is %g, want %g", h, got, want)
		}
		if back := F16FromFloat32(got); back != h {
			t.Fatalf("%#04x came back as %#04x", h, back)
		}
	}
}

// nearest rounds by search among all non-negative finite values of a format plus
// the one that infinity stands for, ties to the even code.
func nearest(values []float64, f float64) uint16 {
	a := math.Abs(f)
	i := sort.SearchFloat64s(values, a)
	code := i
	switch {
	case i == len(values):
		code = len(values) - 1
	case i > 0 && values[i] != a:
		below, above := a-values[i-1], values[i]-a
		if below < above || below == above && (i-1)%2 == 0 {
			code = i - 1
		}
	}
	if math.Signbit(f) {
		code |= 0x8000
	}
	return uint16(code)
}

func TestRoundingIsToNearestEven(t *testing.T) {
	var halves, brains []float64
	for i := range 0x7c00 {
		halves = append(halves, halfByDefinition(uint16(i)))
	}
	halves = append(halves, 65536)
	for i := range 0x7f80 {
		brains = append(brains, float64(math.Float32frombits(uint32(i)<<16)))
	}
	brains = append(brains, 0x1p128)

	random := rand.New(rand.NewPCG(1, 2))
	check := func(f float32) {
		if got, want := F16FromFloat32(f), nearest(halves, float64(f)); got != want {
			t.Fatalf("%g to half: %#04x, want %#04x", f, got, want)
		}
		if got, want := BF16FromFloat32(f), nearest(brains, float64(f)); got != want {
			t.Fatalf("%g to bfloat16: %#04x, want %#04x", f, got, want)
		}
	}
	for range 200_000 {
		f := math.Float32frombits(random.Uint32())
		if f == f {
			check(f)
		}
		check(float32(random.NormFloat64()))
		check(float32(random.NormFloat64() * 0x1p-20))
	}
	for i := range len(halves) - 1 { // every tie of the half grid and its neighbours
		tie := float32((halves[i] + halves[i+1]) / 2)
		check(tie)
		check(-tie)
		check(math.Nextafter32(tie, 0))
		check(math.Nextafter32(tie, math.MaxFloat32))
	}
	for _, f := range []float32{0, float32(math.Copysign(0, -1)), math.SmallestNonzeroFloat32, math.MaxFloat32, 65504, 65519.996, 65520, float32(math.Inf(1)), float32(math.Inf(-1))} {
		check(f)
	}
	if b := BF16FromFloat32(math.Float32frombits(0x7f800001)); BF16ToFloat32(b) == BF16ToFloat32(b) {
		t.Errorf("NaN to bfloat16: %#04x", b)
	}
}

func TestFloatsSurviveEncodeAndDecode(t *testing.T) {
	values := []float32{0, 1, -2.5, 65504, float32(math.Inf(1)), float32(math.Inf(-1)), 0x1p-24}
	for _, d := range []DType{F64, F32, F16, BF16} {
		data := make([]byte, len(values)*d.Size())
		if err := EncodeFloat32(data, d, values); err != nil {
			t.Fatal(err)
		}
		got := make([]float32, len(values))
		if err := (Entry{DType: d, Shape: []int64{int64(len(values))}, Data: data}).Float32(got, 0); err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(values)
		if d == BF16 {
			want[3] = 65536
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", d, got, want)
		}
	}
	wantError(t, EncodeFloat32(make([]byte, 4), I32, values[:1]), "I32")
	wantError(t, EncodeFloat32(make([]byte, 3), F32, values[:1]), "3 bytes")
}

func TestEveryScalarTypeReadsAsFloat(t *testing.T) {
	a := mustOpen(t, "testdata/every_type.safetensors")
	for _, e := range a.Entries() {
		got := make([]float32, e.Elements())
		if err := e.Float32(got, 0); err != nil {
			t.Fatal(err)
		}
		for i, f := range got {
			want := float32(i)
			switch e.Name {
			case "scalar":
				want = 2.5
			case "mask":
				want = float32((i + 1) % 2)
			}
			if f != want {
				t.Errorf("%s: element %d is %g, want %g", e.Name, i, f, want)
			}
		}
	}
}

func TestLargeRangesAreSplitWithoutSeams(t *testing.T) {
	const count = 5<<15 + 7
	values := make([]float32, count)
	for i := range values {
		values[i] = float32(i % 2048)
	}
	data := make([]byte, count*2)
	if err := EncodeFloat32(data, F16, values); err != nil {
		t.Fatal(err)
	}
	e := Entry{DType: F16, Shape: []int64{count}, Data: data}
	got := make([]float32, count-3)
	if err := e.Float32(got, 3); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, values[3:]) {
		t.Error("the parts do not join")
	}
}

func TestAShortenedFileIsAnError(t *testing.T) {
	const count = 1 << 20
	path := t.TempDir() + "/w.safetensors"
	if err := WriteSafetensors(path, []Tensor{{Name: "w", DType: F32, Shape: []int64{count}, Data: make([]byte, count*4)}}, nil); err != nil {
		t.Fatal(err)
	}
	a := mustOpen(t, path)
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	w := a.Entries()[0]
	wantError(t, w.Float32(make([]float32, count), 0), path, `"w"`, "shortened")
	wantError(t, w.Float32(make([]float32, 10), count-10), path, `"w"`, "shortened")
}

func TestRowsShareTheDataOfTheirEntry(t *testing.T) {
	a := mustOpen(t, "testdata/every_type.safetensors")
	weight, _ := a.Lookup("layer.0.weight")
	part, err := weight.Rows(1, 2)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]float32, 8)
	if err := part.Float32(got, 0); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []float32{4, 5, 6, 7, 8, 9, 10, 11}) || !slices.Equal(part.Shape, []int64{2, 4}) || !slices.Equal(weight.Shape, []int64{3, 4}) {
		t.Errorf("%v %v", part.Shape, got)
	}
	if &part.Data[0] != &weight.Data[16] || part.offset != weight.offset+16 {
		t.Error("the data are not shared")
	}
	if none, err := weight.Rows(3, 0); err != nil || len(none.Data) != 0 {
		t.Errorf("no rows: %v %v", none.Data, err)
	}
	for _, r := range [][2]int64{{-1, 1}, {0, 4}, {3, 1}, {1, -1}, {1, math.MaxInt64}} {
		if _, err := weight.Rows(r[0], r[1]); err == nil {
			t.Errorf("rows %v are accepted", r)
		}
	}
	quantised, _ := mustOpen(t, "testdata/blocks.gguf").Lookup("Q6_K")
	if part, err = quantised.Rows(2, 1); err != nil || part.Float32(make([]float32, 512), 0) != nil {
		t.Errorf("a quantised row: %v", err)
	}
	scalar, _ := a.Lookup("scalar")
	_, err = scalar.Rows(0, 1)
	wantError(t, err, `"scalar"`, "cannot be cut")
}

func TestReleaseKeepsTheData(t *testing.T) {
	content := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(content)
	path := t.TempDir() + "/w.safetensors"
	half := len(content) / 2
	tensors := []Tensor{
		{Name: "a", DType: U8, Shape: []int64{int64(half)}, Data: content[:half]},
		{Name: "b", DType: U8, Shape: []int64{int64(half)}, Data: content[half:]},
		{Name: "e", DType: U8, Shape: []int64{0}},
	}
	if err := WriteSafetensors(path, tensors, nil); err != nil {
		t.Fatal(err)
	}
	a, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	entries := append(a.Entries(), Entry{Name: "own", DType: U8, Shape: []int64{1}, Data: []byte{1}})
	// A write reaches neither the file nor, once released, anything at all.
	entries[0].Data[half/2] ^= 0xff
	for _, e := range entries {
		if err := e.Release(); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(entries[0].Data, content[:half]) || !slices.Equal(entries[1].Data, content[half:]) {
		t.Error("the data changed")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	if err := entries[1].Release(); err != nil {
		t.Errorf("releasing after the archive is closed: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
