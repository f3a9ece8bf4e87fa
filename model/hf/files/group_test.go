package files

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// folders are those of testdata/quantised_folders: what their config.json says, and what they hold.
var folders = []struct {
	name   string
	scheme Scheme
	dtype  DType
}{
	{"nf4", Scheme{}, NF4},
	{"nf4-double", Scheme{}, NF4},
	{"nf4-storage", Scheme{}, NF4},
	{"fp4", Scheme{}, FP4},
	{"int8", Scheme{}, Int8},
	{"gptq", Scheme{Layout: GPTQ, Group: 32, ZeroShift: ZerosFromOne}, Int4},
	{"gptq-v2", Scheme{Layout: GPTQ, Group: 32}, Int4},
	{"awq", Scheme{Layout: AWQ, Group: 32}, Int4},
	{"compressed-tensors", Scheme{Layout: CompressedTensors, Group: 32}, Int4},
	{"compressed-tensors-zeros", Scheme{Layout: CompressedTensors, Group: 32}, Int4},
}

func openFolder(t testing.TB, name, file string) Archive {
	t.Helper()
	return mustOpen(t, filepath.Join("../../../testdata/quantised_folders", name, file))
}

func TestGroupGivesTheWeightsThatStandForSeveralTensors(t *testing.T) {
	maps := map[string][]int64{"self_attn.q_proj": {64, 64}, "self_attn.k_proj": {32, 64}, "self_attn.v_proj": {32, 64},
		"self_attn.o_proj": {64, 64}, "mlp.gate_proj": {64, 64}, "mlp.up_proj": {64, 64}, "mlp.down_proj": {64, 64}}
	for _, f := range folders {
		t.Run(f.name, func(t *testing.T) {
			plain := openFolder(t, f.name, "model.safetensors")
			a, err := Group(plain, f.scheme)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(a.Entries()); n != 2+2*(2+len(maps)) {
				t.Errorf("%d tensors: %v", n, describeEntries(a))
			}
			for layer := range 2 {
				for name, shape := range maps {
					e, ok := a.Lookup(fmt.Sprintf("model.layers.%d.%s.weight", layer, name))
					if !ok || e.DType != f.dtype || !slices.Equal(e.Shape, shape) || e.Packed == nil {
						t.Errorf("layer %d: %s is %v%v", layer, name, e.DType, e.Shape)
					}
				}
			}
			for _, e := range a.Entries() {
				if !e.DType.Grouped() && !e.DType.Float() {
					t.Errorf("%s is left over", e.Name)
				}
				if err := e.Release(); err != nil {
					t.Error(err)
				}
			}
			const seen = "model.layers.0.self_attn.k_proj.weight"
			e, _ := a.Lookup(seen)
			want, _ := openFolder(t, f.name, "golden.safetensors").Lookup("dequantised." + seen)
			values := make([]float32, want.Elements())
			if err := want.Float32(values, 0); err != nil {
				t.Fatal(err)
			}
			for i, got := range dequantiseGrouped(t, e) {
				if got != values[i] {
					t.Fatalf("weight %d is %g, want %g", i, got, values[i])
				}
			}
			if err := e.Float32(make([]float32, e.Elements()), 0); err == nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("codes are converted without their scales: %v", err)
			}
			if _, err := e.Rows(0, 1); err == nil {
				t.Error("codes are cut without their scales")
			}
		})
	}
}

// dequantiseGrouped computes by the formats' definitions.
func dequantiseGrouped(t *testing.T, e Entry) []float32 {
	t.Helper()
	p, out := e.Packed, make([]float32, e.Elements())
	fp32 := func(raw []byte, i int64) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])) }
	switch e.DType {
	case Int8:
		for i := range out {
			out[i] = float32(float32(int8(e.Data[i]))*fp32(p.Scales.Data, int64(i)/e.Shape[1])) * 7.874015718698502e-3 // bitsandbytes' 1/127
		}
	case Int4:
		codes, scales, zeros := make([]byte, len(e.Data)), make([]float32, p.Scales.Elements()), make([]float32, p.Scales.Elements())
		if err := e.Int4Codes(codes); err != nil {
			t.Fatal(err)
		}
		if err := e.Int4Scales(scales, zeros); err != nil {
			t.Fatal(err)
		}
		if p.InPlace() && !bytes.Equal(codes, e.Data) {
			t.Error("codes that lie in place are laid out anew")
		}
		for i := range out {
			g := int64(i) / p.Block
			out[i] = (float32(codes[i/2]>>(4*(i%2))&15) - zeros[g]) * scales[g]
		}
	default:
		for i := range out {
			b := int64(i) / p.Block
			var scale float32
			if p.NestedBlock == 0 {
				scale = fp32(p.Scales.Data, b)
			} else {
				scale = float32(fp32(p.NestedMap.Data, int64(p.Scales.Data[b]))*fp32(p.NestedScales.Data, b/p.NestedBlock)) + p.Offset
			}
			out[i] = QuantMap(e.DType)[e.Data[i/2]>>(4*(1-i%2))&15] * scale
		}
	}
	return out
}

// parts is a folder's tensors of one map, called x there, to be spoilt and opened again.
func parts(t testing.TB, folder string) map[string]Tensor {
	t.Helper()
	out := map[string]Tensor{}
	for _, e := range openFolder(t, folder, "model.safetensors").Entries() {
		if rest, ok := strings.CutPrefix(e.Name, "model.layers.0.self_attn.k_proj."); ok {
			out["x."+rest] = Tensor{Name: "x." + rest, DType: e.DType, Shape: slices.Clone(e.Shape), Data: bytes.Clone(e.Data)}
		}
	}
	return out
}

func encoded(t testing.TB, tensors map[string]Tensor) []byte {
	t.Helper()
	var list []Tensor
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		list = append(list, tensors[name])
	}
	var b bytes.Buffer
	if err := EncodeSafetensors(&b, list, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGroupRefusesPartsThatDoNotFit(t *testing.T) {
	drop := func(name string) func(map[string]Tensor) { return func(m map[string]Tensor) { delete(m, name) } }
	cut := func(name string) func(map[string]Tensor) {
		return func(m map[string]Tensor) {
			x := m[name]
			size := len(x.Data) / int(x.Shape[0])
			x.Shape[0]--
			x.Data = x.Data[:len(x.Data)-size]
			m[name] = x
		}
	}
	relabel := func(name string, d DType) func(map[string]Tensor) {
		return func(m map[string]Tensor) {
			x := m[name]
			x.DType = d
			x.Shape = []int64{int64(len(x.Data) / d.Size())}
			m[name] = x
		}
	}
	replace := func(old, text string) func(map[string]Tensor) {
		return func(m map[string]Tensor) {
			const name = "x.weight.quant_state.bitsandbytes__nf4"
			json := strings.Replace(string(m[name].Data), old, text, 1)
			if json == string(m[name].Data) {
				t.Fatalf("no %s in %s", old, json)
			}
			m[name] = Tensor{Name: name, DType: U8, Shape: []int64{int64(len(json))}, Data: []byte(json)}
		}
	}
	word := func(name string, at int, v uint32) func(map[string]Tensor) {
		return func(m map[string]Tensor) { binary.LittleEndian.PutUint32(m[name].Data[4*at:], v) }
	}
	rename := func(from, to string) func(map[string]Tensor) {
		return func(m map[string]Tensor) {
			x := m[from]
			delete(m, from)
			x.Name = to
			m[to] = x
		}
	}
	gptq, awq, compressed := Scheme{Layout: GPTQ, Group: 32, ZeroShift: ZerosFromOne}, Scheme{Layout: AWQ, Group: 32}, Scheme{Layout: CompressedTensors, Group: 32}
	for _, c := range []struct {
		folder string
		scheme Scheme
		spoil  func(map[string]Tensor)
		want   []string
	}{
		{"nf4-double", Scheme{}, drop("x.weight"), []string{"x.weight", "missing"}},
		{"nf4-double", Scheme{}, drop("x.weight.absmax"), []string{"x.weight.absmax", "missing"}},
		{"nf4-double", Scheme{}, drop("x.weight.quant_map"), []string{"x.weight.quant_map", "missing"}},
		{"nf4-double", Scheme{}, drop("x.weight.nested_absmax"), []string{"x.weight.nested_absmax", "missing"}},
		{"nf4-double", Scheme{}, drop("x.weight.nested_quant_map"), []string{"x.weight.nested_quant_map", "missing"}},
		{"nf4-double", Scheme{}, cut("x.weight"), []string{"x.weight", "1023"}},
		{"nf4-double", Scheme{}, cut("x.weight.absmax"), []string{"x.weight.absmax", "U8[31]", "U8[32]"}},
		{"nf4-double", Scheme{}, cut("x.weight.quant_map"), []string{"x.weight.quant_map", "[15]"}},
		{"nf4-double", Scheme{}, cut("x.weight.nested_quant_map"), []string{"x.weight.nested_quant_map", "[255]", "[256]"}},
		{"nf4-double", Scheme{}, cut("x.weight.nested_absmax"), []string{"x.weight.nested_absmax", "[0]"}},
		{"nf4-double", Scheme{}, relabel("x.weight", I8), []string{"x.weight", "I8"}},
		{"nf4", Scheme{}, relabel("x.weight.absmax", I32), []string{"x.weight.absmax", "I32"}},
		{"nf4", Scheme{}, relabel("x.weight.quant_map", I32), []string{"x.weight.quant_map", "I32"}},
		{"nf4", Scheme{}, relabel("x.weight.quant_state.bitsandbytes__nf4", I8), []string{"quant_state", "I8"}},
		{"nf4", Scheme{}, word("x.weight.quant_map", 3, math.Float32bits(0.5)), []string{"x.weight.quant_map", "code 3", "0.5"}},
		{"nf4-double", Scheme{}, replace(`"nf4"`, `"fp4"`), []string{"quant_state", "fp4"}},
		{"nf4-double", Scheme{}, rename("x.weight.quant_state.bitsandbytes__nf4", "x.weight.quant_state.bitsandbytes__nf3"), []string{"nf3", "not supported"}},
		{"nf4-double", Scheme{}, replace(`"blocksize": 64`, `"blocksize": 0`), []string{"blocksize 0"}},
		{"nf4-double", Scheme{}, replace(`"blocksize": 64`, `"blocksize": -64`), []string{"blocksize -64"}},
		{"nf4-double", Scheme{}, replace(`"blocksize": 64`, `"blocksize": 96`), []string{"blocksize 96"}},
		{"nf4-double", Scheme{}, replace(`"blocksize": 64`, `"blocksize": 9223372036854775807`), []string{"blocksize 9223372036854775807"}},
		{"nf4-double", Scheme{}, replace(`"blocksize": 64`, `"blocksize": 128`), []string{"x.weight.absmax", "U8[16]"}},
		{"nf4-double", Scheme{}, replace(`"blocksize": 64`, `"blocksize": 4096`), []string{"whole blocks of 4096"}},
		{"nf4-double", Scheme{}, replace(`[32, 64]`, `[32, 65]`), []string{"whole blocks"}},
		{"nf4-double", Scheme{}, replace(`[32, 64]`, `[64, 64]`), []string{"shape [64 64]", "2048", "1024"}},
		{"nf4-double", Scheme{}, replace(`[32, 64]`, `[2048]`), []string{"shape [2048]"}},
		{"nf4-double", Scheme{}, replace(`[32, 64]`, `[-32, -64]`), []string{"negative"}},
		{"nf4-double", Scheme{}, replace(`[32, 64]`, `[4294967296, 4294967296]`), []string{"overflows"}},
		{"nf4-double", Scheme{}, replace(`[32, 64]`, `[0, 64]`), []string{"shape [0 64]"}},
		{"nf4-double", Scheme{}, replace(`[32, 64]`, `[3.5, 64]`), []string{"quant_state", "JSON"}},
		{"nf4-double", Scheme{}, replace(`{`, `[`), []string{"quant_state", "JSON"}},
		{"nf4-double", Scheme{}, replace(`{`, strings.Repeat(" ", 5000)+`{`), []string{"quant_state", "4096"}},
		{"nf4-double", Scheme{}, replace(`"nested_offset": `, `"nested_offset": NaN, "y": `), []string{"quant_state", "JSON"}},
		{"nf4-double", Scheme{}, replace(`"nested_offset": `, `"nested_offset": 1e60, "y": `), []string{"nested_offset"}},
		{"nf4-double", Scheme{}, replace(`"nested_offset": `, `"y": `), []string{"nested_offset", "missing"}},
		{"nf4-double", Scheme{}, replace(`"nested_blocksize": 256`, `"nested_blocksize": 0`), []string{"nested_blocksize 0"}},
		{"nf4-double", Scheme{}, replace(`"nested_dtype": "float32"`, `"nested_dtype": "float16"`), []string{"nested_dtype", "float16"}},
		{"int8", Scheme{}, drop("x.weight"), []string{"x.SCB", "x.weight", "missing"}},
		{"int8", Scheme{}, cut("x.SCB"), []string{"x.SCB", "[31]", "[32]"}},
		{"int8", Scheme{}, relabel("x.SCB", I32), []string{"x.SCB", "I32"}},
		{"int8", Scheme{}, relabel("x.weight", I8), []string{"x.SCB", "I8[2048]"}},
		{"int8", Scheme{}, func(m map[string]Tensor) { m["x.weight_format"].Data[0] = 2 }, []string{"x.weight_format", "2"}},
		{"gptq", Scheme{}, drop("none"), []string{"x.qweight", "quantization_config"}},
		{"gptq", compressed, drop("none"), []string{"x.qweight", "quantization_config"}},
		{"gptq", gptq, drop("x.qzeros"), []string{"x.qzeros", "missing"}},
		{"gptq", gptq, drop("x.scales"), []string{"x.scales", "missing"}},
		{"gptq", gptq, cut("x.qweight"), []string{"x.qweight", "56"}},
		{"gptq", gptq, cut("x.scales"), []string{"x.scales", "F16[1 32]", "F16[2 32]"}},
		{"gptq", gptq, cut("x.qzeros"), []string{"x.qzeros", "I32[1 4]", "I32[2 4]"}},
		{"gptq", gptq, cut("x.g_idx"), []string{"x.g_idx", "[63]"}},
		{"gptq", gptq, word("x.g_idx", 5, 1), []string{"x.g_idx", "column 5", "desc_act"}},
		{"gptq", gptq, relabel("x.qweight", U8), []string{"x.qweight", "U8"}},
		{"gptq", gptq, relabel("x.scales", I16), []string{"x.scales", "I16"}},
		{"gptq", Scheme{Layout: GPTQ, Group: 48}, drop("none"), []string{"x.qweight", "64", "48"}},
		{"gptq", Scheme{Layout: GPTQ, Group: 4}, drop("none"), []string{"x.qweight", "64", "4"}},
		{"gptq", Scheme{Layout: GPTQ}, drop("none"), []string{"x.scales", "F16[1 32]"}},
		{"awq", awq, cut("x.qweight"), []string{"x.qweight", "63"}},
		{"awq", awq, drop("x.qzeros"), []string{"x.qzeros", "missing"}},
		{"compressed-tensors", Scheme{}, drop("none"), []string{"x.weight_packed", "quantization_config"}},
		{"compressed-tensors", compressed, drop("x.weight_scale"), []string{"x.weight_scale", "missing"}},
		{"compressed-tensors", compressed, drop("x.weight_shape"), []string{"x.weight_shape", "missing"}},
		{"compressed-tensors", compressed, cut("x.weight_shape"), []string{"x.weight_shape", "[1]"}},
		{"compressed-tensors", compressed, word("x.weight_shape", 0, 33), []string{"x.weight_shape", "33"}},
		{"compressed-tensors-zeros", compressed, cut("x.weight_zero_point"), []string{"x.weight_zero_point", "I32[3 2]"}},
	} {
		t.Run(c.folder+" "+strings.Join(c.want, " "), func(t *testing.T) {
			tensors := parts(t, c.folder)
			c.spoil(tensors)
			a, err := DecodeSafetensors(encoded(t, tensors))
			if err != nil {
				t.Fatal(err)
			}
			_, err = Group(a, c.scheme)
			wantError(t, err, c.want...)
		})
	}
}

func TestGPTQsFirstFormatAddsOneToAWordOfZeroPoints(t *testing.T) {
	for word, want := range map[uint32][8]float32{
		0x76543210: {1, 2, 3, 4, 5, 6, 7, 8},
		0xfedcba98: {9, 10, 11, 12, 13, 14, 15, 0},
		0x0000000f: {0, 2, 1, 1, 1, 1, 1, 1}, // zero points 0, 2, 1, … less one by the word
		0xeeeeeeef: {0, 0, 0, 0, 0, 0, 0, 0},
	} {
		tensors := parts(t, "gptq")
		binary.LittleEndian.PutUint32(tensors["x.qzeros"].Data, word)
		a, err := DecodeSafetensors(encoded(t, tensors))
		if err != nil {
			t.Fatal(err)
		}
		if a, err = Group(a, folders[5].scheme); err != nil {
			t.Fatal(err)
		}
		e, _ := a.Lookup("x.weight")
		scales, zeros := make([]float32, 64), make([]float32, 64)
		if err := e.Int4Scales(scales, zeros); err != nil {
			t.Fatal(err)
		}
		for row, zero := range want {
			if got := zeros[2*row]; got != zero {
				t.Errorf("%08x: row %d has zero point %g, want %g", word, row, got, zero)
			}
		}
		wantError(t, e.Int4Scales(scales[1:], zeros[1:]), "x.weight", "63")
		wantError(t, e.Int4Codes(make([]byte, 3)), "x.weight", "3")
	}
}

func TestGroupLeavesAnArchiveWithoutPartsAsItIs(t *testing.T) {
	a := openFolder(t, "../llama/base", "model.safetensors")
	if got, err := Group(a, Scheme{Layout: GPTQ, Group: 32}); err != nil || got != a {
		t.Errorf("%v, %v", got, err)
	}
}

// FuzzGroup takes files with every kind of part, and any scheme.
func FuzzGroup(f *testing.F) {
	for _, folder := range folders {
		f.Add(encoded(f, parts(f, folder.name)), uint8(folder.scheme.Layout), folder.scheme.Group)
	}
	f.Fuzz(func(t *testing.T, file []byte, layout uint8, group int64) {
		a, err := DecodeSafetensors(file)
		if err != nil {
			return
		}
		a, err = Group(a, Scheme{Layout: Layout(layout % 4), Group: group, ZeroShift: ZerosFromOne})
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("more than one line: %v", err)
			}
			return
		}
		for _, e := range a.Entries() {
			if size, err := byteSize(e.DType, e.Shape); err != nil || size != int64(len(e.Data)) {
				t.Fatalf("tensor %q: %d bytes for %s%v: %v", e.Name, len(e.Data), e.DType, e.Shape, err)
			}
			if e.DType == Int4 && len(e.Data) < 1<<20 {
				n := e.Packed.Scales.Elements()
				if err := e.Int4Codes(make([]byte, len(e.Data))); err != nil {
					t.Fatal(err)
				}
				if err := e.Int4Scales(make([]float32, n), make([]float32, n)); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func FuzzQuantState(f *testing.F) {
	for _, folder := range []string{"nf4", "nf4-double"} {
		f.Add(string(parts(f, folder)["x.weight.quant_state.bitsandbytes__nf4"].Data))
	}
	f.Fuzz(func(t *testing.T, json string) {
		q, err := parseQuantState([]byte(json), "nf4")
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("more than one line: %v", err)
			}
			return
		}
		if q.rows*q.cols != q.all || q.all < q.Block || q.all%q.Block != 0 {
			t.Fatalf("%s gives %+v", json, q)
		}
	})
}
