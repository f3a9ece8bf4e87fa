package files

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"gopeft/bindings/fault"
)

// Int4 tensors are whole numbers of four bits, eight to a 32-bit word, with a scale and a zero point for each group of a
// row: w = (q - zero)·scale. Weights are [out, in].
//
//	GPTQ                qweight [in/8, out], a word holds neighbours of a row; qzeros [groups, out/8]; scales [groups, out]
//	AWQ                 qweight [in, out/8], a word holds neighbours of a column; qzeros [groups, out/8]; scales [groups, out]
//	compressed-tensors  weight_packed [out, in/8], weight_zero_point [out/8, groups], weight_scale [out, groups]

// awqPlace is where in a word the n-th of eight neighbours lies.
var awqPlace = [8]int{0, 4, 1, 5, 2, 6, 3, 7}

// columns puts together GPTQ's or AWQ's tensors of a module, which lie column by column.
func (g *grouping) columns(codes Entry, module string) error {
	s := g.scheme
	if s.Layout != GPTQ && s.Layout != AWQ {
		return errors.New("a packed weight, and config.json has no quantization_config of gptq or awq that tells how")
	}
	if err := words(codes); err != nil {
		return err
	}
	rows, cols := codes.Shape[1], codes.Shape[0]*8
	if s.Layout == AWQ {
		rows, cols = codes.Shape[1]*8, codes.Shape[0]
	}
	if rows%8 != 0 || cols%8 != 0 {
		return fmt.Errorf("stands for a matrix of %d × %d, want multiples of 8", rows, cols)
	}
	block, groups, err := s.groups(cols)
	if err != nil {
		return err
	}
	p := &Packed{Layout: s.Layout, Block: block, ZeroShift: s.ZeroShift}
	if p.Scales, err = g.scales(module+".scales", groups, rows); err != nil {
		return err
	}
	if p.Zeros, err = g.part(module + ".qzeros"); err != nil {
		return err
	}
	if err := shapedAs(p.Zeros, I32, groups, rows/8); err != nil {
		return err
	}
	if err := inOrder(g.optional(module+".g_idx"), cols, block); err != nil {
		return err
	}
	return g.make(codes, module+".weight", Int4, rows, cols, p)
}

// rows puts together compressed-tensors' parts of a module's weight.
func (g *grouping) rows(codes Entry, module string) error {
	if g.scheme.Layout != CompressedTensors {
		return errors.New("a packed weight, and config.json has no quantization_config of compressed-tensors that tells how")
	}
	if err := words(codes); err != nil {
		return err
	}
	rows, cols := codes.Shape[0], codes.Shape[1]*8
	shape, err := g.part(module + ".weight_shape")
	if err != nil {
		return err
	}
	said, err := wholeNumbers(shape, 2)
	if err != nil {
		return err
	}
	if said[0] != rows || said[1] != cols {
		return fmt.Errorf("%s is %v, its codes are of [%d %d]", quote(shape.Name), said, rows, cols)
	}
	block, groups, err := g.scheme.groups(cols)
	if err != nil {
		return err
	}
	p := &Packed{Layout: CompressedTensors, Block: block}
	if p.Scales, err = g.scales(module+".weight_scale", rows, groups); err != nil {
		return err
	}
	if p.Zeros = g.optional(module + ".weight_zero_point"); p.Zeros.Name != "" {
		if err := shapedAs(p.Zeros, I32, (rows+7)/8, groups); err != nil {
			return err
		}
	}
	if err := inOrder(g.optional(module+".weight_g_idx"), cols, block); err != nil {
		return err
	}
	return g.make(codes, module+".weight", Int4, rows, cols, p)
}

// words checks that a tensor is a matrix of 32-bit words, with bounds that keep sums of its sizes from overflowing.
func words(e Entry) error {
	if e.DType != I32 || len(e.Shape) != 2 || e.Elements() == 0 || e.Shape[0] > 1<<31 || e.Shape[1] > 1<<31 {
		return fmt.Errorf("%s%v, want a matrix of I32", e.DType, e.Shape)
	}
	return nil
}

// groups is how many weights of a row of so many share a scale, and how many such groups there are.
func (s Scheme) groups(cols int64) (block, groups int64, err error) {
	block = s.Group
	if block == 0 {
		block = cols
	}
	if block < 8 || block%8 != 0 || cols%block != 0 {
		return 0, 0, fmt.Errorf("a row of %d weights is not whole groups of %d, a multiple of 8", cols, block)
	}
	return block, cols / block, nil
}

func (g *grouping) scales(name string, shape ...int64) (Entry, error) {
	e, err := g.part(name)
	if err == nil && (!e.DType.Float() || e.DType == F64) {
		err = fmt.Errorf("%s is %s, want a floating point type", quote(name), e.DType)
	}
	if err == nil {
		err = shapedAs(e, e.DType, shape...)
	}
	return e, err
}

func shapedAs(e Entry, d DType, shape ...int64) error {
	if e.DType != d || len(e.Shape) != len(shape) || e.Shape[0] != shape[0] || e.Shape[1] != shape[1] {
		return fmt.Errorf("%s is %s%v, want %s%v", quote(e.Name), e.DType, e.Shape, d, shape)
	}
	return nil
}

// inOrder checks that a g_idx, where there is one, gives each column the group that its place does.
func inOrder(e Entry, cols, block int64) error {
	if e.Name == "" {
		return nil
	}
	of, err := wholeNumbers(e, cols)
	if err != nil {
		return err
	}
	for i, n := range of {
		if n != int64(i)/block {
			return fmt.Errorf("%s puts column %d into group %d: columns in another order (desc_act, actorder) are not supported", quote(e.Name), i, n)
		}
	}
	return nil
}

// wholeNumbers reads a vector of so many whole numbers.
func wholeNumbers(e Entry, count int64) ([]int64, error) {
	if e.DType != I32 && e.DType != I64 || len(e.Shape) != 1 || e.Shape[0] != count {
		return nil, fmt.Errorf("%s is %s%v, want %d whole numbers", quote(e.Name), e.DType, e.Shape, count)
	}
	out := make([]int64, count)
	err := fault.Guard(func() error {
		for i := range out {
			if e.DType == I32 {
				out[i] = int64(int32(binary.LittleEndian.Uint32(e.Data[4*i:])))
			} else {
				out[i] = int64(binary.LittleEndian.Uint64(e.Data[8*i:]))
			}
		}
		return nil
	})
	return out, err
}

// Int4Codes writes an Int4 entry's codes as [rows, cols/2] bytes, the left neighbour in the low half.
func (e Entry) Int4Codes(dst []byte) error {
	if e.DType != Int4 || len(dst) != len(e.Data) {
		return fmt.Errorf("%s: tensor %s: %s%v has no %d bytes of INT4 codes", e.File, quote(e.Name), e.DType, e.Shape, len(dst))
	}
	rows, cols := e.Shape[0], e.Shape[1]
	var row func(out []byte, r int64)
	switch e.Packed.Layout {
	case GPTQ: // columns of words
		row = func(out []byte, r int64) {
			for w := range cols / 8 {
				copy(out[4*w:4*w+4], e.Data[4*(w*rows+r):])
			}
		}
	case AWQ:
		row = func(out []byte, r int64) {
			for c := range cols / 2 {
				low, high := awqAt(e.Data, rows, 2*c, r), awqAt(e.Data, rows, 2*c+1, r)
				out[c] = low | high<<4
			}
		}
	default: // as they are
		row = func(out []byte, r int64) { copy(out, e.Data[r*cols/2:]) }
	}
	return e.byRow(func(r int64) { row(dst[r*cols/2:(r+1)*cols/2], r) })
}

// awqAt is the number that AWQ holds for a row's weight in a matrix of words [cols, rows/8].
func awqAt(words []byte, rows, col, row int64) byte {
	place := awqPlace[row%8]
	return words[4*(col*(rows/8)+row/8)+int64(place/2)] >> (4 * (place % 2)) & 15
}

// byRow does work for every row, shared among the processors.
func (e Entry) byRow(work func(row int64)) error {
	rows := e.Shape[0]
	share := max(64, (rows+int64(runtime.GOMAXPROCS(0))-1)/int64(runtime.GOMAXPROCS(0)))
	failures := make([]error, (rows+share-1)/share)
	var wg sync.WaitGroup
	for i := range failures {
		wg.Go(func() {
			failures[i] = fault.Guard(func() error {
				for r := int64(i) * share; r < min(rows, (int64(i)+1)*share); r++ {
					work(r)
				}
				return nil
			})
		})
	}
	wg.Wait()
	for _, err := range failures {
		if err != nil {
			return fmt.Errorf("%s: tensor %s: %w", e.File, quote(e.Name), err)
		}
	}
	return nil
}

// Int4Scales writes an Int4 entry's scales and zero points, both [rows, cols/Block].
func (e Entry) Int4Scales(scales, zeros []float32) error {
	if e.DType != Int4 || int64(len(scales)) != e.Packed.Scales.Elements() || len(zeros) != len(scales) {
		return fmt.Errorf("%s: tensor %s: %s%v has no %d scales", e.File, quote(e.Name), e.DType, e.Shape, len(scales))
	}
	p := e.Packed
	rows, groups := e.Shape[0], e.Shape[1]/p.Block
	stored := make([]float32, len(scales))
	if err := p.Scales.Float32(stored, 0); err != nil {
		return err
	}
	return e.byRow(func(r int64) {
		for group := range groups {
			at := r*groups + group
			scales[at], zeros[at] = stored[at], float32(p.zero(rows, groups, r, group))
			if p.Layout != CompressedTensors {
				scales[at] = stored[group*rows+r]
			}
		}
	})
}

// zero is the zero point of a row's group.
func (p *Packed) zero(rows, groups, row, group int64) byte {
	switch {
	case p.Zeros.Name == "":
		return 8
	case p.Layout == AWQ:
		return awqAt(p.Zeros.Data, rows, group, row)
	}
	at := group*(rows/8) + row/8
	if p.Layout == CompressedTensors {
		at = row/8*groups + group
	}
	word := binary.LittleEndian.Uint32(p.Zeros.Data[4*at:]) + p.ZeroShift
	return byte(word >> (4 * (row % 8)) & 15)
}
