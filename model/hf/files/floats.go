package files

import (
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"sync"

	"gopeft/bindings/fault"
)

// F16ToFloat32 converts an IEEE half-precision number exactly, subnormals,
// infinities and NaN included.
func F16ToFloat32(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	magnitude := uint32(h&0x7fff) << 13
	if h&0x7c00 == 0x7c00 {
		return math.Float32frombits(sign | 0x7f800000 | magnitude)
	}
	// Read as float32 the exponent is too small by 127-15; the product is exact,
	// also for half's subnormals.
	scaled := math.Float32frombits(magnitude) * 0x1p112
	return math.Float32frombits(sign | math.Float32bits(scaled))
}

// F16FromFloat32 rounds to the nearest half, ties to even; what is too large
// becomes infinite, NaN stays NaN.
func F16FromFloat32(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits >> 16 & 0x8000)
	magnitude := bits & 0x7fffffff
	switch {
	case magnitude > 0x7f800000:
		return sign | 0x7e00
	case magnitude >= 0x47800000: // 65536 and above, infinity too
		return sign | 0x7c00
	case magnitude < 0x38800000: // below the smallest normal half, 2^-14
		// Adding 0.5 leaves the value in units of 2^-24, rounded by the hardware.
		rounded := math.Float32bits(math.Float32frombits(magnitude) + 0.5)
		return sign | uint16(rounded-0x3f000000)
	}
	magnitude -= (127 - 15) << 23
	return sign | uint16((magnitude+0xfff+(magnitude>>13&1))>>13)
}

// BF16ToFloat32 converts a bfloat16 number exactly.
func BF16ToFloat32(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// BF16FromFloat32 rounds to the nearest bfloat16, ties to even; NaN stays NaN.
func BF16FromFloat32(f float32) uint16 {
	if f != f {
		return 0x7fc0
	}
	bits := math.Float32bits(f)
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// EncodeFloat32 writes src as the little-endian bytes of a floating point type,
// rounding to nearest even; dst must have exactly the bytes they take.
func EncodeFloat32(dst []byte, d DType, src []float32) error {
	if !d.Float() {
		return fmt.Errorf("encode as %s: not a floating point type", d)
	}
	if len(dst) != len(src)*d.Size() {
		return fmt.Errorf("encode as %s: %d numbers do not take %d bytes", d, len(src), len(dst))
	}
	switch d {
	case F64:
		for i, f := range src {
			binary.LittleEndian.PutUint64(dst[i*8:], math.Float64bits(float64(f)))
		}
	case F32:
		for i, f := range src {
			binary.LittleEndian.PutUint32(dst[i*4:], math.Float32bits(f))
		}
	case F16:
		for i, f := range src {
			binary.LittleEndian.PutUint16(dst[i*2:], F16FromFloat32(f))
		}
	case BF16:
		for i, f := range src {
			binary.LittleEndian.PutUint16(dst[i*2:], BF16FromFloat32(f))
		}
	}
	return nil
}

// Float32 converts (and dequantises) the elements first … first+len(dst)-1, in
// row-major order, into dst. Large ranges are shared among the processors. For
// block-quantised types first and len(dst) must be whole blocks, which whole rows
// always are. Integers beyond 2^24 and F64 are rounded.
func (e Entry) Float32(dst []float32, first int64) error {
	k := e.DType.kind()
	count := int64(len(dst))
	switch total := e.Elements(); {
	case e.DType == Invalid || k.size == 0:
		return fmt.Errorf("%s: tensor %s: invalid dtype", e.File, quote(e.Name))
	case e.DType.Grouped():
		return fmt.Errorf("%s: tensor %s: %s codes are no numbers without their scales", e.File, quote(e.Name), e.DType)
	case first < 0 || first > total || count > total-first:
		return fmt.Errorf("%s: tensor %s: elements %d to %d of %d", e.File, quote(e.Name), first, first+count, total)
	case first%k.elems != 0 || count%k.elems != 0:
		return fmt.Errorf("%s: tensor %s: elements %d to %d are not whole %s blocks of %d", e.File, quote(e.Name), first, first+count, e.DType, k.elems)
	case int64(len(e.Data)) != total/k.elems*k.size:
		return fmt.Errorf("%s: tensor %s: %d bytes for %s%v", e.File, quote(e.Name), len(e.Data), e.DType, e.Shape)
	}
	src := e.Data[first/k.elems*k.size : (first+count)/k.elems*k.size]
	const piece = 1 << 15 // elements; whole blocks of every type
	workers := int64(runtime.GOMAXPROCS(0))
	if count < 4*piece {
		workers = 1
	}
	share := max(1, (count/workers+piece-1)/piece*piece)
	failures := make([]error, (count+share-1)/share)
	var wg sync.WaitGroup
	for i := range failures {
		from := int64(i) * share
		to := min(from+share, count)
		convert := func() {
			failures[i] = fault.Guard(func() error {
				decode(dst[from:to], src[from/k.elems*k.size:to/k.elems*k.size], e.DType)
				return nil
			})
		}
		if len(failures) == 1 {
			convert()
		} else {
			wg.Go(convert)
		}
	}
	wg.Wait()
	for _, err := range failures {
		if err != nil {
			return fmt.Errorf("%s: tensor %s: %w", e.File, quote(e.Name), err)
		}
	}
	return nil
}

// decode converts whole blocks; the lengths have been checked.
func decode(dst []float32, src []byte, d DType) {
	switch d {
	case F64:
		for i := range dst {
			dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[i*8:])))
		}
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[i*4:]))
		}
	case F16:
		for i := range dst {
			dst[i] = F16ToFloat32(binary.LittleEndian.Uint16(src[i*2:]))
		}
	case BF16:
		for i := range dst {
			dst[i] = BF16ToFloat32(binary.LittleEndian.Uint16(src[i*2:]))
		}
	case I64:
		for i := range dst {
			dst[i] = float32(int64(binary.LittleEndian.Uint64(src[i*8:])))
		}
	case I32:
		for i := range dst {
			dst[i] = float32(int32(binary.LittleEndian.Uint32(src[i*4:])))
		}
	case I16:
		for i := range dst {
			dst[i] = float32(int16(binary.LittleEndian.Uint16(src[i*2:])))
		}
	case I8:
		for i := range dst {
			dst[i] = float32(int8(src[i]))
		}
	case U8:
		for i := range dst {
			dst[i] = float32(src[i])
		}
	case Bool:
		for i := range dst {
			dst[i] = 0
			if src[i] != 0 {
				dst[i] = 1
			}
		}
	default:
		dequantise(dst, src, d)
	}
}
