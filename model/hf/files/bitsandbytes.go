package files

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// The values that bitsandbytes' codes stand for, of a block whose largest weight is 1.
var (
	nf4Map = [16]float32{-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
		-0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634,
		0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1}
	fp4Map = [16]float32{0, 0.0052083334885537624, 0.6666666865348816, 1, 0.3333333432674408, 0.5, 0.1666666716337204, 0.25,
		0, -0.0052083334885537624, -0.6666666865348816, -1, -0.3333333432674408, -0.5, -0.1666666716337204, -0.25}
)

// QuantMap gives the 16 values that codes of NF4 or FP4 stand for.
func QuantMap(d DType) []float32 {
	m := nf4Map
	if d == FP4 {
		m = fp4Map
	}
	return m[:]
}

// quantState is what bitsandbytes writes beside 4-bit codes.
type quantState struct {
	QuantType       string   `json:"quant_type"`
	Block           int64    `json:"blocksize"`
	Shape           []int64  `json:"shape"`
	NestedBlock     *int64   `json:"nested_blocksize"`
	NestedDType     string   `json:"nested_dtype"`
	NestedOffset    *float64 `json:"nested_offset"`
	rows, cols, all int64
}

// maxQuantState bounds the JSON; real ones take less than 200 bytes.
const maxQuantState = 4096

// parseQuantState reads the JSON of a tensor whose name says kind.
func parseQuantState(raw []byte, kind string) (q quantState, err error) {
	if len(raw) > maxQuantState {
		return q, fmt.Errorf("%d bytes, more than %d", len(raw), maxQuantState)
	}
	if err := json.Unmarshal(raw, &q); err != nil {
		return q, fmt.Errorf("JSON: %w", err)
	}
	if q.QuantType != kind {
		return q, fmt.Errorf("quant_type %s, want %s", quote(q.QuantType), quote(kind))
	}
	if len(q.Shape) != 2 {
		return q, fmt.Errorf("shape %v is not a matrix's", q.Shape)
	}
	if q.all, err = elements(q.Shape); err != nil {
		return q, err
	}
	q.rows, q.cols = q.Shape[0], q.Shape[1]
	if !wholeBlock(q.Block) {
		return q, fmt.Errorf("blocksize %d, want a power of two from 32 to 4096", q.Block)
	}
	if q.all == 0 || q.all%q.Block != 0 {
		return q, fmt.Errorf("shape %v is not whole blocks of %d", q.Shape, q.Block)
	}
	if q.NestedBlock == nil {
		return q, nil
	}
	switch {
	case !wholeBlock(*q.NestedBlock):
		return q, fmt.Errorf("nested_blocksize %d, want a power of two from 32 to 4096", *q.NestedBlock)
	case q.NestedDType != "float32":
		return q, fmt.Errorf("nested_dtype %s, want float32", quote(q.NestedDType))
	case q.NestedOffset == nil:
		return q, errors.New("nested_offset is missing")
	case math.Abs(*q.NestedOffset) > math.MaxFloat32:
		return q, fmt.Errorf("nested_offset %g is no fp32 number", *q.NestedOffset)
	}
	return q, nil
}

func wholeBlock(n int64) bool { return n >= 32 && n <= 4096 && n&(n-1) == 0 }

// fourBits puts together weight and its absmax, quant_map and, where absmax is quantised too, nested_absmax and
// nested_quant_map.
func (g *grouping) fourBits(state Entry, weight, kind string) error {
	d, known := map[string]DType{"nf4": NF4, "fp4": FP4}[kind]
	if !known {
		return fmt.Errorf("quantisation %s is not supported (nf4, fp4)", quote(kind))
	}
	if state.DType != U8 {
		return fmt.Errorf("%s%v, want U8", state.DType, state.Shape)
	}
	q, err := parseQuantState(state.Data, kind)
	if err != nil {
		return err
	}
	g.used[state.Name] = true
	codes, ok := g.archive.Lookup(weight)
	if !ok {
		return fmt.Errorf("%s, which it describes, is missing", quote(weight))
	}
	// bnb_4bit_quant_storage labels the same bytes with another dtype.
	if codes.DType != U8 && !codes.DType.Float() {
		return fmt.Errorf("%s is %s, which holds no codes", quote(weight), codes.DType)
	}
	if int64(len(codes.Data)) != q.all/2 {
		return fmt.Errorf("shape %v takes %d bytes of codes, %s has %d", q.Shape, q.all/2, quote(weight), len(codes.Data))
	}
	p := &Packed{Block: q.Block}
	scales := F32
	if q.NestedBlock != nil {
		scales, p.NestedBlock, p.Offset = U8, *q.NestedBlock, float32(*q.NestedOffset)
	}
	blocks := q.all / q.Block
	if p.Scales, err = g.shaped(weight+".absmax", scales, blocks); err != nil {
		return err
	}
	table, err := g.shaped(weight+".quant_map", F32, 16)
	if err != nil {
		return err
	}
	for i, want := range QuantMap(d) {
		if got := math.Float32frombits(binary.LittleEndian.Uint32(table.Data[4*i:])); got != want {
			return fmt.Errorf("%s: code %d stands for %g, in %s for %g", quote(table.Name), i, got, d, want)
		}
	}
	if q.NestedBlock != nil {
		if p.NestedScales, err = g.shaped(weight+".nested_absmax", F32, (blocks+p.NestedBlock-1)/p.NestedBlock); err != nil {
			return err
		}
		if p.NestedMap, err = g.shaped(weight+".nested_quant_map", F32, 256); err != nil {
			return err
		}
	}
	return g.make(codes, weight, d, q.rows, q.cols, p)
}

// eightBits puts together a module's weight, its SCB and its weight_format.
func (g *grouping) eightBits(scales Entry, module string) error {
	weight := module + ".weight"
	codes, ok := g.archive.Lookup(weight)
	if !ok {
		return fmt.Errorf("%s, whose scales it holds, is missing", quote(weight))
	}
	if codes.DType != I8 || len(codes.Shape) != 2 {
		return fmt.Errorf("%s is %s%v, want a matrix of I8", quote(weight), codes.DType, codes.Shape)
	}
	if _, err := g.shaped(scales.Name, F32, codes.Shape[0]); err != nil {
		return err
	}
	if format := g.optional(module + ".weight_format"); format.Name != "" && (format.DType != U8 || format.Elements() != 1 || format.Data[0] != 0) {
		return fmt.Errorf("%s is %s%v, want the number 0: rows in order", quote(format.Name), format.DType, format.Data)
	}
	return g.make(codes, weight, Int8, codes.Shape[0], codes.Shape[1], &Packed{Block: codes.Shape[1], Scales: scales})
}
