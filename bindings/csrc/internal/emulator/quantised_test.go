package emulator

import (
	"encoding/binary"
	"fmt"
	"math"
	"regexp"
	"testing"

	"gopeft/bindings/csrc/nvrtc"
)

// The codes of bitsandbytes' 4-bit types (Dettmers et al. 2023 for NF4).
var codes = map[Format][16]float32{
	NF4: {-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
		-0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
		0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1},
	FP4: {0, 0.005208333333, 2. / 3, 1, 1. / 3, 0.5, 1. / 6, 0.25, 0, -0.005208333333, -2. / 3, -1, -1. / 3, -0.5, -1. / 6, -0.25},
}

// What is compiled for GPUs is what is tested here.
func TestEveryKernelIsEmulated(t *testing.T) {
	for _, g := range nvrtc.Groups() {
		for _, m := range regexp.MustCompile(`(?m)^KERNEL (\w+)`).FindAllStringSubmatch(nvrtc.Source(g, nvrtc.Float), -1) {
			if !Emulated(m[1]) {
				t.Errorf("%s is not", m[1])
			}
		}
	}
}

// matrix is a matrix with random codes, and its weights in fp32.
func (b *bench) matrix(f Format, rows, cols int, nested bool) (Matrix, []float32) {
	m, n := Matrix{Format: f, Rows: rows, Cols: cols}, rows*cols
	raw := func(bytes int) []byte {
		p := make([]byte, bytes)
		for i := range p {
			p[i] = byte(b.rand.Uint32())
		}
		return p
	}
	scales := func(n int) []float32 {
		s := make([]float32, n)
		for i := range s {
			s[i] = 0.01 + b.rand.Float32()
		}
		return s
	}
	var code []byte
	w := make([]float32, n)
	switch f {
	case NF4, FP4:
		m.Shift, m.OuterShift = 6, 3 // few scales to an outer one, so that a small matrix has several
		code = raw((n + 1) / 2)
		var of func(block int) float32
		blocks := (n + 63) / 64
		if nested {
			inner, table, outer := raw(blocks), scales(256), scales((blocks+7)/8)
			m.Nested, m.Map, m.Outer, m.Offset = b.raw(inner, 0), b.floats(table), b.floats(outer), 0.4
			of = func(block int) float32 { return float32(table[inner[block]]*outer[block/8]) + 0.4 }
		} else {
			plain := scales(blocks)
			m.Plain = b.floats(plain)
			of = func(block int) float32 { return plain[block] }
		}
		for i := range w {
			w[i] = codes[f][code[i/2]>>(4*(1-i%2))&15] * of(i/64)
		}
	case Int8Rows:
		plain := scales(rows)
		code, m.Plain = raw(n), b.floats(plain)
		for i := range w {
			w[i] = float32(float32(int8(code[i]))*plain[i/cols]) * 7.874015718698502e-3 // bitsandbytes' 1/127
		}
	case Q4_0:
		code = raw(n / 32 * 18)
		for i := range w {
			block, j := code[i/32*18:][:18], i%32
			d := b.halfIn(block, 0, j == 0)
			w[i] = float32(int(block[2+j%16]>>(j/16*4)&15)-8) * d
		}
	case Q4_K:
		code = raw(n / 256 * 144)
		for i := range w {
			block, j := code[i/256*144:][:144], i%256
			d, least := b.halfIn(block, 0, j == 0), b.halfIn(block, 2, j == 0)
			scale, low := scaleOfK(block[4:16], j/32)
			q := block[16+j/64*32+j%32] >> (j / 32 % 2 * 4) & 15
			w[i] = float32(float32(d*float32(scale))*float32(q)) - float32(least*float32(low))
		}
	}
	m.Codes = b.raw(code, b.shift/2)
	return m, w
}

// halfIn is the half at a place of a block, which is made a number of common size first where set says so.
func (b *bench) halfIn(block []byte, at int, set bool) float32 {
	if set {
		binary.LittleEndian.PutUint16(block[at:], halfBits(nearest(0.1*b.rand.NormFloat64()+0.2, 11, -14)))
	}
	return float32(halfValue(binary.LittleEndian.Uint16(block[at:])))
}

// scaleOfK reads a scale and a minimum of 6 bits each from the 12 bytes that hold eight of both.
func scaleOfK(p []byte, j int) (scale, low byte) {
	if j < 4 {
		return p[j] & 63, p[j+4] & 63
	}
	return p[j+4]&15 | p[j-4]>>6<<4, p[j+4]>>4 | p[j]>>6<<4
}

type quantCase struct {
	format     Format
	rows, cols int
	nested     bool
}

func (c quantCase) String() string {
	return fmt.Sprintf("%v %dx%d nested=%t", c.format, c.rows, c.cols, c.nested)
}

var quantCases = []quantCase{
	{NF4, 1, 2, false}, {NF4, 3, 30, true}, {NF4, 5, 24, false}, {NF4, 40, 256, true}, {NF4, 9, 1000, true},
	{FP4, 3, 30, false}, {FP4, 40, 256, true},
	{Int8Rows, 1, 1, false}, {Int8Rows, 3, 7, false}, {Int8Rows, 5, 24, false}, {Int8Rows, 9, 1000, false},
	{Q4_0, 1, 32, false}, {Q4_0, 7, 352, false},
	{Q4_K, 1, 256, false}, {Q4_K, 5, 768, false},
}

// Every weight is the formula's in fp32, rounded once: to the bit.
func TestDequantise(t *testing.T) {
	for _, c := range quantCases {
		t.Run(c.String(), func(t *testing.T) {
			everywhere(t, func(b *bench) {
				m, w := b.matrix(c.format, c.rows, c.cols, c.nested)
				y, want := b.empty(len(w)), make([]float64, len(w))
				for i, v := range w {
					want[i] = b.round(float64(v))
				}
				b.run(b.Dequantise(m, y))
				b.near("weights", b.values(y), want, 0, 0)
			})
		})
	}
}

func TestMultiply(t *testing.T) {
	for _, c := range quantCases {
		if c.cols%8 != 0 {
			continue
		}
		t.Run(c.String(), func(t *testing.T) {
			everywhere(t, func(b *bench) {
				m, w := b.matrix(c.format, c.rows, c.cols, c.nested)
				for _, few := range []int{1, 3, 4} {
					x, xv := b.random(few*c.cols, 0, 1)
					y, want := b.empty(few*c.rows), make([]float64, few*c.rows)
					most := 0.0
					for i := range want {
						sum := 0.0
						for k := range c.cols {
							p := xv[i/c.rows*c.cols+k] * float64(w[i%c.rows*c.cols+k])
							want[i] += p
							sum += math.Abs(p)
						}
						most = max(most, sum)
					}
					b.run(b.Multiply(m, x, y, few))
					b.near(fmt.Sprintf("%d rows", few), b.values(y), want, 1, 1e-6*most)
				}
			})
		})
	}
}
