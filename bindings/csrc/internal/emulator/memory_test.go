package emulator

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// bench is a test of one kernel in one setting: it makes memory, and checks its fences at the end.
type bench struct {
	*testing.T
	Machine
	shift int // of every memory, so that packs of 16 bytes cannot be used
	rand  *rand.Rand
	all   []*Memory
}

// everywhere runs fn for each element type and order, with memory that packs fit and that they do not.
func everywhere(t *testing.T, fn func(b *bench)) {
	for _, e := range []Element{Float, BFloat16, Half} {
		for _, order := range []Order{Forwards, Backwards} {
			for _, shift := range []int{0, e.Size()} {
				t.Run(fmt.Sprintf("%v/order %d/shift %d", e, order, shift), func(t *testing.T) {
					b := &bench{T: t, Machine: Machine{e, order}, shift: shift, rand: rand.New(rand.NewPCG(1, 2))}
					fn(b)
					for _, m := range b.all {
						if err := m.Free(); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
	}
}

// run fails the test on a launch's error.
func (b *bench) run(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) memory(bytes, shift int) *Memory {
	m := NewMemory(bytes, shift)
	b.all = append(b.all, m)
	return m
}

func (b *bench) floats(values []float32) *Memory {
	m := b.memory(4*len(values), 0)
	for i, v := range values {
		binary.LittleEndian.PutUint32(m.Bytes()[4*i:], math.Float32bits(v))
	}
	return m
}

func (b *bench) raw(values []byte, shift int) *Memory {
	m := b.memory(len(values), shift)
	copy(m.Bytes(), values)
	return m
}

// random is n elements, normally distributed and rounded, and their values.
func (b *bench) random(n int, mean, spread float64) (*Memory, []float64) {
	m, values := b.memory(n*b.Element.Size(), b.shift), make([]float64, n)
	for i := range values {
		values[i] = b.round(mean + spread*b.rand.NormFloat64())
		b.put(m, i, values[i])
	}
	return m, values
}

// empty is n elements that are yet to be written.
func (b *bench) empty(n int) *Memory { return b.memory(n*b.Element.Size(), b.shift) }

func (b *bench) put(m *Memory, i int, v float64) {
	switch bits := math.Float32bits(float32(v)); b.Element {
	case Float:
		binary.LittleEndian.PutUint32(m.Bytes()[4*i:], bits)
	case BFloat16:
		binary.LittleEndian.PutUint16(m.Bytes()[2*i:], uint16(bits>>16))
	case Half:
		binary.LittleEndian.PutUint16(m.Bytes()[2*i:], halfBits(v))
	}
}

func (b *bench) values(m *Memory) []float64 {
	out := make([]float64, len(m.Bytes())/b.Element.Size())
	for i := range out {
		switch b.Element {
		case Float:
			out[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(m.Bytes()[4*i:])))
		case BFloat16:
			out[i] = float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(m.Bytes()[2*i:])) << 16))
		case Half:
			out[i] = halfValue(binary.LittleEndian.Uint16(m.Bytes()[2*i:]))
		}
	}
	return out
}

func float32s(m *Memory) []float64 {
	out := make([]float64, len(m.Bytes())/4)
	for i := range out {
		out[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(m.Bytes()[4*i:])))
	}
	return out
}

// round gives the element nearest to v, ties to even.
func (b *bench) round(v float64) float64 {
	switch b.Element {
	case BFloat16:
		return nearest(v, 8, -126)
	case Half:
		return nearest(v, 11, -14)
	}
	return float64(float32(v))
}

// nearest rounds v to a number of significant bits, fewer below 2^least.
func nearest(v float64, bits, least int) float64 {
	if v == 0 {
		return v
	}
	_, exponent := math.Frexp(v)
	unit := math.Ldexp(1, max(exponent, least+1)-bits)
	return math.RoundToEven(v/unit) * unit
}

// ulp is the distance from one element to the next at a size.
func (b *bench) ulp(size float64) float64 {
	bits, least := 24, -126
	switch b.Element {
	case BFloat16:
		bits = 8
	case Half:
		bits, least = 11, -14
	}
	_, exponent := math.Frexp(size)
	return math.Ldexp(1, max(exponent, least+1)-bits)
}

// near fails where an element is off by more than so many ulps of its size, and slack for what fp32 sums lose.
func (b *bench) near(what string, got, want []float64, ulps, slack float64) {
	b.Helper()
	if len(got) != len(want) {
		b.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
	}
	for i := range want {
		if got[i] == want[i] || math.IsNaN(got[i]) && math.IsNaN(want[i]) {
			continue // infinities are not to be subtracted
		}
		if d := math.Abs(got[i] - want[i]); !(d <= ulps*b.ulp(want[i])+slack) {
			b.Fatalf("%s: element %d of %d is %v, want %v", what, i, len(want), got[i], want[i])
		}
	}
}

// mostly fails where more than one element of 20 is not the very one that is wanted: a step of rounding is missing. In fp32
// the order of sums shows as well.
func (b *bench) mostly(what string, got, want []float64) {
	b.Helper()
	off := 0
	for i := range want {
		if got[i] != want[i] {
			off++
		}
	}
	if b.Element != Float && 20*off > len(want) {
		b.Fatalf("%s: %d of %d elements are not rounded as they should be", what, off, len(want))
	}
}

func halfValue(h uint16) float64 {
	exponent, fraction := int(h>>10&31), float64(h&1023)
	v := math.Ldexp(1024+fraction, exponent-25)
	if exponent == 0 {
		v = math.Ldexp(fraction, -24)
	}
	if h&0x8000 != 0 {
		return -v
	}
	return v
}

// halfBits is for values that a half can hold, normal or zero ones below 65,520.
func halfBits(v float64) uint16 {
	var sign uint16
	if math.Signbit(v) {
		sign = 0x8000
	}
	v = math.Abs(v)
	if v < math.Ldexp(1, -14) {
		return sign | uint16(math.Ldexp(v, 24))
	}
	fraction, exponent := math.Frexp(v)
	return sign | uint16(exponent+14)<<10 | uint16(math.Ldexp(fraction, 11))&1023
}
