package bindings

import (
	"fmt"
	"math/bits"

	"gopeft/bindings/csrc"
)

// CheckQuantised refuses a matrix whose parts do not fit each other, or whose scales are not finite. The codes of
// GGUF's kinds hold their scales, and are read whole.
func (s *Scope) CheckQuantised(q *Quantised) error {
	if err := q.checkParts(); err != nil {
		return err
	}
	var row int64
	err := s.Run(func(s *Scope) error {
		parts, facts, offset := s.quantArgs(s.QuantisedTo(q, CPU))
		s.check("check quantised", csrc.QuantNonfiniteRow(parts, facts, offset, &row), q.Tensors()...)
		return nil
	})
	if err == nil && row >= 0 {
		err = fmt.Errorf("%v matrix [%d %d]: row %d has a scale that is not finite", q.Kind, q.Rows, q.Cols, row)
	}
	return err
}

func (k QuantKind) String() string {
	names := [...]string{"NF4", "FP4", "int8", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "int4"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind(%d)", int(k))
	}
	return names[k]
}

// ggufBlock is the weights and the bytes of a block of one of GGUF's kinds; 0 for others.
func (k QuantKind) ggufBlock() (weights, bytes int64) {
	switch k {
	case Q4_0:
		return 32, 18
	case Q4_1:
		return 32, 20
	case Q5_0:
		return 32, 22
	case Q5_1:
		return 32, 24
	case Q8_0:
		return 32, 34
	case Q4_K:
		return 256, 144
	case Q5_K:
		return 256, 176
	case Q6_K:
		return 256, 210
	}
	return 0, 0
}

// part is what a tensor of a matrix has to be.
type part struct {
	name   string
	t      Tensor
	dtype  DType
	length int64 // 0: there is none
}

func (q *Quantised) checkParts() error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%v matrix [%d %d]: %s", q.Kind, q.Rows, q.Cols, fmt.Sprintf(format, args...))
	}
	if q.Kind < NF4 || q.Kind > Int4 {
		return fail("there is no such kind")
	}
	const most = 1 << 31 // that rows and columns can be multiplied
	if q.Rows < 1 || q.Cols < 1 || q.Rows > most || q.Cols > most {
		return fail("rows and columns have to be between 1 and %d", most)
	}
	parts, err := q.parts()
	if err != nil {
		return fail("%v", err)
	}
	for _, p := range parts {
		switch {
		case p.length == 0 && !p.t.Defined():
		case p.length == 0:
			return fail("it has %s, which this kind has not", p.name)
		case !p.t.Defined():
			return fail("it lacks %s", p.name)
		case p.t.DType() != p.dtype || p.t.Numel() != p.length:
			return fail("%s are %v, want %d of %v", p.name, p.t, p.length, p.dtype)
		case p.t.Device() != q.Codes.Device() || p.t.Device() == Nowhere:
			return fail("%s are on %v, codes on %v", p.name, p.t.Device(), q.Codes.Device())
		case !p.t.IsContiguous():
			return fail("%s are not contiguous", p.name)
		}
	}
	return nil
}

// parts is what the tensors have to be; an error says which number makes that impossible.
func (q *Quantised) parts() ([]part, error) {
	n := q.Rows * q.Cols
	codes, scales := part{"codes", q.Codes, Uint8, 0}, part{"scales", q.Scales, Float, 0}
	zeros := part{"zero points", q.Zeros, Float, 0}
	nested, table := part{"nested scales", q.NestedScales, Float, 0}, part{"a nested map", q.NestedMap, Float, 0}
	powerOf2 := func(n int64) bool { return n > 0 && bits.OnesCount64(uint64(n)) == 1 }
	if q.NestedBlock != 0 && (q.Kind > FP4 || !powerOf2(q.NestedBlock)) {
		return nil, fmt.Errorf("%d scales to a nested scale are not possible", q.NestedBlock)
	}
	switch weights, bytes := q.Kind.ggufBlock(); {
	case weights > 0:
		if q.Cols%weights != 0 {
			return nil, fmt.Errorf("the width is not a multiple of %d", weights)
		}
		codes.length = n / weights * bytes
	case q.Kind == Int8Rows:
		codes.dtype, codes.length, scales.length = Int8, n, q.Rows
	case q.Kind == Int4:
		if q.Block < 1 || q.Cols%q.Block != 0 || q.Cols%2 != 0 {
			return nil, fmt.Errorf("%d weights to a scale are not possible", q.Block)
		}
		codes.length, scales.length = n/2, n/q.Block
		zeros.length = scales.length
	default:
		if !powerOf2(q.Block) {
			return nil, fmt.Errorf("%d weights to a scale are not possible", q.Block)
		}
		codes.length, scales.length = (n+1)/2, (n+q.Block-1)/q.Block
		if q.NestedBlock > 0 {
			scales.dtype = Uint8
			nested.length, table.length = (scales.length+q.NestedBlock-1)/q.NestedBlock, 256
		}
	}
	return []part{codes, scales, zeros, nested, table}, nil
}
