package files

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
)

// Limits far above any real file, so that a hostile count cannot take memory.
const (
	maxGGUFTensors  = 1 << 20
	maxGGUFKeys     = 1 << 16
	maxGGUFElements = 1 << 25 // array elements of the whole metadata
	maxGGUFNesting  = 4
	maxGGUFDims     = 4
)

// GGUF is an opened GGUF file: an [Archive] with typed metadata. Shapes are in
// row-major order, the reverse of the dimensions in the file.
type GGUF struct {
	*archive
	// Version of the format, 2 or 3.
	Version int

	path   string
	keys   []string
	values map[string]any
}

// OpenGGUF maps a GGUF file, version 2 or 3 and little-endian, and checks its
// metadata and tensor table. A tensor of a type that cannot be dequantised is an
// error that names it, as is a file that is one part of several.
func OpenGGUF(path string) (*GGUF, error) {
	m, err := mapFile(path)
	if err != nil {
		return nil, err
	}
	g, err := parseGGUF(path, m)
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return g, nil
}

// Keys lists the metadata keys in file order.
func (g *GGUF) Keys() []string { return slices.Clone(g.keys) }

// Value gives a metadata value as int64 (uint64 above 2^63-1), float64, bool,
// string, or a slice of these ([]any for nested arrays).
func (g *GGUF) Value(key string) (any, bool) {
	v, found := g.values[key]
	return v, found
}

// Text gives a string value. Like the other typed readers its error names the
// file and the key, and matches fs.ErrNotExist when the key is absent.
func (g *GGUF) Text(key string) (string, error) { return ggufValue[string](g, key, "a string") }

// Int gives a whole number of any width.
func (g *GGUF) Int(key string) (int64, error) { return ggufValue[int64](g, key, "a whole number") }

// Bool gives a truth value.
func (g *GGUF) Bool(key string) (bool, error) { return ggufValue[bool](g, key, "true or false") }

// Float gives a number, whole or not.
func (g *GGUF) Float(key string) (float64, error) {
	if n, ok := g.values[key].(int64); ok {
		return float64(n), nil
	}
	return ggufValue[float64](g, key, "a number")
}

// Texts gives an array of strings.
func (g *GGUF) Texts(key string) ([]string, error) {
	return ggufValue[[]string](g, key, "an array of strings")
}

// Ints gives an array of whole numbers of any width.
func (g *GGUF) Ints(key string) ([]int64, error) {
	return ggufValue[[]int64](g, key, "an array of whole numbers")
}

// Floats gives an array of floating point numbers.
func (g *GGUF) Floats(key string) ([]float64, error) {
	return ggufValue[[]float64](g, key, "an array of floating point numbers")
}

func ggufValue[T any](g *GGUF, key, wanted string) (T, error) {
	var zero T
	v, found := g.values[key]
	if !found {
		return zero, fmt.Errorf("%s: metadata key %s: %w", g.path, quote(key), fs.ErrNotExist)
	}
	if t, ok := v.(T); ok {
		return t, nil
	}
	return zero, fmt.Errorf("%s: metadata key %s is %s, not %s", g.path, quote(key), ggufKind(v), wanted)
}

func ggufKind(v any) string {
	switch v := v.(type) {
	case string:
		return "a string"
	case bool:
		return "true or false"
	case int64, uint64:
		return fmt.Sprintf("the number %d", v)
	case float64:
		return fmt.Sprintf("the number %g", v)
	}
	return "an array of another type"
}

func parseGGUF(path string, m *mapping) (*GGUF, error) {
	g := &GGUF{path: path, values: map[string]any{}}
	r := &ggufReader{data: m.data}
	if !bytes.Equal(r.bytes(4), []byte("GGUF")) {
		return nil, fmt.Errorf("%s: GGUF: the file does not begin with GGUF", path)
	}
	version := r.uint(4)
	switch {
	case r.err != nil:
	case version == 2 || version == 3:
		g.Version = int(version)
	case version != 0 && version&0xffff == 0:
		r.fail("a big-endian file, which is not supported")
	default:
		r.fail("version %d is not supported (2 and 3 are)", version)
	}
	tensors, keys := r.uint(8), r.uint(8)
	if tensors > maxGGUFTensors {
		r.fail("%d tensors, more than %d", tensors, maxGGUFTensors)
	}
	if keys > maxGGUFKeys {
		r.fail("%d metadata keys, more than %d", keys, maxGGUFKeys)
	}
	if r.err == nil {
		g.readMetadata(r, int(keys))
	}
	var entries []Entry
	if r.err == nil {
		entries = g.readTensors(r, m, int(tensors))
	}
	if r.err != nil {
		return nil, fmt.Errorf("%s: GGUF: %w", path, r.err)
	}
	a, err := newArchive(path, m, entries, g.texts())
	if err != nil {
		return nil, err
	}
	g.archive = a
	return g, nil
}

func (g *GGUF) readMetadata(r *ggufReader, count int) {
	for i := range count {
		key := r.text()
		kind := r.uint(4)
		if r.err != nil {
			r.err = fmt.Errorf("metadata key %d of %d: %w", i+1, count, r.err)
			return
		}
		value := r.value(kind, 0)
		switch _, twice := g.values[key]; {
		case r.err != nil:
			r.err = fmt.Errorf("metadata key %s: %w", quote(key), r.err)
			return
		case twice:
			r.fail("metadata key %s appears twice", quote(key))
			return
		}
		g.keys = append(g.keys, key)
		g.values[key] = value
	}
	if parts, _ := g.values["split.count"].(int64); parts > 1 {
		r.fail("one of %d parts of a split model: join them first with llama.cpp's gguf-split --merge", parts)
	}
}

// texts gives the metadata but arrays as text.
func (g *GGUF) texts() map[string]string {
	texts := map[string]string{}
	for key, value := range g.values {
		switch v := value.(type) {
		case string:
			texts[key] = v
		case int64, uint64, bool:
			texts[key] = fmt.Sprint(v)
		case float64:
			texts[key] = strconv.FormatFloat(v, 'g', -1, 64)
		}
	}
	return texts
}

func (g *GGUF) alignment() (int64, error) {
	value, found := g.values["general.alignment"]
	if !found {
		return 32, nil
	}
	n, ok := value.(int64)
	if !ok || n < 1 || n > 1<<20 || n&(n-1) != 0 {
		return 0, errors.New(`metadata key "general.alignment" is not a power of two up to 2^20`)
	}
	return n, nil
}

// ggufTensor is a row of the tensor table; offset counts from the data section.
type ggufTensor struct {
	Entry
	offset, size int64
}

func (g *GGUF) readTensors(r *ggufReader, m *mapping, count int) []Entry {
	align, err := g.alignment()
	if err != nil {
		r.err = err
		return nil
	}
	var table []ggufTensor
	for i := range count {
		t, err := readTensor(r)
		if err != nil {
			if t.Name != "" {
				r.err = fmt.Errorf("tensor %s: %w", quote(t.Name), err)
			} else {
				r.err = fmt.Errorf("tensor %d of %d: %w", i+1, count, err)
			}
			return nil
		}
		if t.offset%align != 0 {
			r.fail("tensor %s: its offset %d is not a multiple of the alignment %d", quote(t.Name), t.offset, align)
			return nil
		}
		table = append(table, t)
	}
	slices.SortStableFunc(table, func(a, b ggufTensor) int {
		return cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(a.size, b.size))
	})
	start := (int64(r.at) + align - 1) / align * align
	space := max(0, int64(len(m.data))-start)
	entries := make([]Entry, len(table))
	end := int64(0)
	for i, t := range table {
		if t.offset < end {
			r.fail("tensor %s: its data at %d overlap the tensor before, which ends at %d", quote(t.Name), t.offset, end)
			return nil
		}
		if t.offset > space || t.size > space-t.offset {
			r.fail("tensor %s: %d bytes at %d lie outside the %d bytes of data: the file is cut short", quote(t.Name), t.size, t.offset, space)
			return nil
		}
		end = t.offset + t.size
		entries[i] = t.Entry
		if t.size > 0 {
			m.view(&entries[i], start+t.offset, t.size)
		}
	}
	return entries
}

func readTensor(r *ggufReader) (t ggufTensor, err error) {
	name := r.text()
	if r.err != nil {
		return t, r.err
	}
	if err := checkName(name); err != nil {
		return t, err
	}
	t.Name = name
	dims := r.uint(4)
	if dims > maxGGUFDims {
		return t, fmt.Errorf("%d dimensions, more than %d", dims, maxGGUFDims)
	}
	t.Shape = make([]int64, dims)
	for i := range t.Shape {
		n := r.uint(8)
		if n > math.MaxInt64 {
			return t, fmt.Errorf("dimension %d overflows", n)
		}
		t.Shape[len(t.Shape)-1-i] = int64(n)
	}
	kind, offset := r.uint(4), r.uint(8)
	if r.err != nil {
		return t, r.err
	}
	if t.DType, err = ggufDType(kind); err != nil {
		return t, err
	}
	if offset > math.MaxInt64 {
		return t, fmt.Errorf("its offset %d overflows", offset)
	}
	t.offset = int64(offset)
	t.size, err = byteSize(t.DType, t.Shape)
	return t, err
}

// ggufDType maps ggml's type numbers; those that cannot be dequantised are
// refused by name.
func ggufDType(kind uint64) (DType, error) {
	known := map[uint64]DType{
		0: F32, 1: F16, 2: Q4_0, 3: Q4_1, 6: Q5_0, 7: Q5_1, 8: Q8_0, 12: Q4_K, 13: Q5_K, 14: Q6_K,
		24: I8, 25: I16, 26: I32, 27: I64, 28: F64, 30: BF16,
	}
	if d, ok := known[kind]; ok {
		return d, nil
	}
	refused := map[uint64]string{
		9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
		20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
	}
	if name, ok := refused[kind]; ok {
		return Invalid, fmt.Errorf("type %s is not supported: use a Q4_0, Q4_K, Q5_K, Q6_K, Q8_0 or F16 file of the model", name)
	}
	return Invalid, fmt.Errorf("type %d does not exist", kind)
}
