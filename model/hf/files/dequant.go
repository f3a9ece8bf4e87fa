package files

import "encoding/binary"

// The block formats of GGUF, after ggml's definitions. A block holds its scale
// (and offset) as halves before its packed integers, except Q6_K, which ends
// with the scale. Products are rounded one by one, written as conversions, so
// that no platform fuses them and the numbers equal the reference's everywhere.

// dequantise converts whole blocks; the lengths have been checked.
func dequantise(dst []float32, src []byte, d DType) {
	elems, size := d.Block()
	block := blockDecoder(d)
	for len(dst) > 0 {
		block(dst[:elems:elems], src[:size:size])
		dst, src = dst[elems:], src[size:]
	}
}

func blockDecoder(d DType) func(y []float32, b []byte) {
	switch d {
	case Q4_0:
		return blockQ4_0
	case Q4_1:
		return blockQ4_1
	case Q5_0:
		return blockQ5_0
	case Q5_1:
		return blockQ5_1
	case Q8_0:
		return blockQ8_0
	case Q4_K:
		return blockQ4_K
	case Q5_K:
		return blockQ5_K
	}
	return blockQ6_K
}

func half(b []byte) float32 { return F16ToFloat32(binary.LittleEndian.Uint16(b)) }

// Q4_0: scale, 16 bytes of nibbles (low ones first); y = d·(q-8).
func blockQ4_0(y []float32, b []byte) {
	d := half(b)
	for i, q := range b[2:18] {
		y[i] = d * float32(int(q&15)-8)
		y[i+16] = d * float32(int(q>>4)-8)
	}
}

// Q4_1: scale, minimum, 16 bytes of nibbles; y = d·q + m.
func blockQ4_1(y []float32, b []byte) {
	d, m := half(b), half(b[2:])
	for i, q := range b[4:20] {
		y[i] = float32(d*float32(q&15)) + m
		y[i+16] = float32(d*float32(q>>4)) + m
	}
}

// Q5_0: scale, 32 fifth bits, 16 bytes of nibbles; y = d·(q-16).
func blockQ5_0(y []float32, b []byte) {
	d := half(b)
	high := binary.LittleEndian.Uint32(b[2:])
	for i, q := range b[6:22] {
		y[i] = d * float32(int(uint32(q&15)|high>>i&1<<4)-16)
		y[i+16] = d * float32(int(uint32(q>>4)|high>>(i+16)&1<<4)-16)
	}
}

// Q5_1: scale, minimum, 32 fifth bits, 16 bytes of nibbles; y = d·q + m.
func blockQ5_1(y []float32, b []byte) {
	d, m := half(b), half(b[2:])
	high := binary.LittleEndian.Uint32(b[4:])
	for i, q := range b[8:24] {
		y[i] = float32(d*float32(uint32(q&15)|high>>i&1<<4)) + m
		y[i+16] = float32(d*float32(uint32(q>>4)|high>>(i+16)&1<<4)) + m
	}
}

// Q8_0: scale, 32 signed bytes; y = d·q.
func blockQ8_0(y []float32, b []byte) {
	d := half(b)
	for i, q := range b[2:34] {
		y[i] = d * float32(int8(q))
	}
}

// scaleMin unpacks the i-th of the eight 6-bit scales and minima that Q4_K and
// Q5_K keep in 12 bytes: the first four lie plainly in bytes 0-7, the others are
// nibbles of bytes 8-11 with their upper two bits on top of the first four.
func scaleMin(packed []byte, i int) (scale, minimum float32) {
	if i < 4 {
		return float32(packed[i] & 63), float32(packed[i+4] & 63)
	}
	return float32(packed[i+4]&15 | packed[i-4]>>6<<4), float32(packed[i+4]>>4 | packed[i]>>6<<4)
}

// Q4_K: scale and minimum of the scales, 12 bytes of scales and minima, 128 bytes
// of nibbles; eight groups of 32: y = d·s·q - dmin·m.
func blockQ4_K(y []float32, b []byte) {
	d, dmin := half(b), half(b[2:])
	scales, quants := b[4:16], b[16:144]
	for group := 0; group < 8; group += 2 {
		s, m := scaleMin(scales, group)
		d1, m1 := d*s, dmin*m
		s, m = scaleMin(scales, group+1)
		d2, m2 := d*s, dmin*m
		out := y[group*32 : group*32+64]
		for i, q := range quants[group*16 : group*16+32] {
			out[i] = float32(d1*float32(q&15)) - m1
			out[i+32] = float32(d2*float32(q>>4)) - m2
		}
	}
}

// Q5_K: as Q4_K with 32 bytes of fifth bits, bit g of byte i for group g, before
// the nibbles.
func blockQ5_K(y []float32, b []byte) {
	d, dmin := half(b), half(b[2:])
	scales, high, quants := b[4:16], b[16:48], b[48:176]
	for group := 0; group < 8; group += 2 {
		s, m := scaleMin(scales, group)
		d1, m1 := d*s, dmin*m
		s, m = scaleMin(scales, group+1)
		d2, m2 := d*s, dmin*m
		out := y[group*32 : group*32+64]
		for i, q := range quants[group*16 : group*16+32] {
			out[i] = float32(d1*float32(q&15|high[i]>>group&1<<4)) - m1
			out[i+32] = float32(d2*float32(q>>4|high[i]>>(group+1)&1<<4)) - m2
		}
	}
}

// Q6_K: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed scales,
// scale; sixteen groups of 16: y = d·s·(q-32).
func blockQ6_K(y []float32, b []byte) {
	d := half(b[208:])
	for side := range 2 {
		out := y[side*128 : side*128+128]
		low, high, scales := b[side*64:side*64+64], b[128+side*32:128+side*32+32], b[192+side*8:192+side*8+8]
		var ds [8]float32
		for i, s := range scales {
			ds[i] = d * float32(int8(s))
		}
		for i, h := range high {
			group := i / 16
			out[i] = ds[group] * float32(int(low[i]&15|h&3<<4)-32)
			out[i+32] = ds[group+2] * float32(int(low[i+32]&15|h>>2&3<<4)-32)
			out[i+64] = ds[group+4] * float32(int(low[i]>>4|h>>4&3<<4)-32)
			out[i+96] = ds[group+6] * float32(int(low[i+32]>>4|h>>6<<4)-32)
		}
	}
}
