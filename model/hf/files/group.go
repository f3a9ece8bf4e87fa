package files

import (
	"fmt"
	"slices"
	"strings"
)

// Layout is whose files hold a quantised tensor as several.
type Layout uint8

// The layouts. Bitsandbytes is known by the tensors' names; the others have to be said by a model's config.json.
const (
	Bitsandbytes Layout = iota
	GPTQ
	AWQ
	CompressedTensors
)

func (l Layout) String() string {
	return [...]string{"bitsandbytes", "gptq", "awq", "compressed-tensors"}[l]
}

// Scheme is what a model's config.json says about the tensors of its files.
type Scheme struct {
	Layout Layout
	// Group is how many weights of a row share a scale; 0: the whole row, or what the tensors say.
	Group int64
	// ZeroShift is added to each word of GPTQ's zero points, carries and all, as the library does: [ZerosFromOne] or 0.
	ZeroShift uint32
}

// ZerosFromOne is the ZeroShift of GPTQ's first format, which stores zero points less one.
const ZerosFromOne = 0x11111111

// Packed is what belongs to the codes of a grouped tensor. A part that there is none of has no name.
type Packed struct {
	Layout Layout
	// Block is how many weights share a scale; of Int8 a row does.
	Block int64
	// Scales are F32 for each block of NF4 and FP4, or U8 where NestedBlock is set: then the scale is
	// NestedMap[code]·NestedScales[block/NestedBlock] + Offset. Those of Int8 are F32 for each row; those of Int4 any
	// floating point type, in the layout's order.
	Scales Entry
	// Zeros are Int4's zero points in the layout's packing; where there are none all are 8.
	Zeros     Entry
	ZeroShift uint32

	NestedBlock             int64
	Offset                  float32
	NestedScales, NestedMap Entry
}

// InPlace tells whether the codes lie as they are computed with; others have to be laid out by [Entry.Int4Codes].
func (p *Packed) InPlace() bool { return p.Layout == Bitsandbytes || p.Layout == CompressedTensors }

func (p *Packed) parts() []Entry {
	return slices.DeleteFunc([]Entry{p.Scales, p.Zeros, p.NestedScales, p.NestedMap}, func(e Entry) bool { return e.Name == "" })
}

// Bytes is how many of the file an entry takes, with what belongs to its codes.
func (e Entry) Bytes() int64 {
	n := int64(len(e.Data))
	if e.Packed != nil {
		for _, p := range e.Packed.parts() {
			n += int64(len(p.Data))
		}
	}
	return n
}

// Group gives an archive in which tensors that are stored as several (codes, scales and more) are one entry each: under
// the name, the shape and in the place of the weight that they stand for, with a grouped dtype. What such tensors say of
// themselves is checked against their sizes. An archive without any is given back as it is.
func Group(a Archive, s Scheme) (Archive, error) {
	g := &grouping{archive: a, scheme: s, made: map[string]Entry{}, used: map[string]bool{}}
	entries := a.Entries()
	for _, e := range entries {
		if err := g.collect(e); err != nil {
			return nil, fmt.Errorf("%s: tensor %s: %w", e.File, quote(e.Name), err)
		}
	}
	if len(g.made) == 0 {
		return a, nil
	}
	all := &archive{byName: make(map[string]int, len(entries))}
	for _, e := range entries {
		whole, made := g.made[e.Name]
		switch {
		case made:
			e = whole
		case g.used[e.Name]:
			continue
		}
		if err := all.add(e); err != nil {
			return nil, fmt.Errorf("%s: %w", e.File, err)
		}
	}
	return grouped{Archive: a, entries: all}, nil
}

// grouped is an archive with the entries that Group made.
type grouped struct {
	Archive
	entries *archive
}

func (g grouped) Entries() []Entry                 { return g.entries.Entries() }
func (g grouped) Lookup(name string) (Entry, bool) { return g.entries.Lookup(name) }

// grouping collects what belongs together.
type grouping struct {
	archive Archive
	scheme  Scheme
	made    map[string]Entry // by the name of the tensor that holds the codes
	used    map[string]bool  // names of the other parts
}

const bitsandbytesState = ".quant_state.bitsandbytes__"

// collect makes the whole tensor that e is the tell-tale part of, if it is one.
func (g *grouping) collect(e Entry) error {
	if weight, kind, ok := strings.Cut(e.Name, bitsandbytesState); ok {
		return g.fourBits(e, weight, kind)
	}
	if module, ok := strings.CutSuffix(e.Name, ".SCB"); ok {
		return g.eightBits(e, module)
	}
	if module, ok := strings.CutSuffix(e.Name, ".qweight"); ok {
		return g.columns(e, module)
	}
	if module, ok := strings.CutSuffix(e.Name, ".weight_packed"); ok {
		return g.rows(e, module)
	}
	return nil
}

// part finds a tensor that belongs to another and marks it as used.
func (g *grouping) part(name string) (Entry, error) {
	e, ok := g.archive.Lookup(name)
	if !ok {
		return e, fmt.Errorf("%s, which belongs to it, is missing", quote(name))
	}
	g.used[name] = true
	return e, nil
}

// optional is part for one that may be absent: it has no name then.
func (g *grouping) optional(name string) Entry {
	e, ok := g.archive.Lookup(name)
	if !ok {
		return Entry{}
	}
	g.used[name] = true
	return e
}

// shaped is part for one of a dtype and a number of elements that are known.
func (g *grouping) shaped(name string, d DType, count int64) (Entry, error) {
	e, err := g.part(name)
	if err == nil && (e.DType != d || e.Elements() != count) {
		err = fmt.Errorf("%s is %s%v, want %s[%d]", quote(name), e.DType, e.Shape, d, count)
	}
	return e, err
}

// make puts a whole tensor in the place of its codes.
func (g *grouping) make(codes Entry, name string, d DType, rows, cols int64, p *Packed) error {
	place := codes.Name
	if _, twice := g.made[place]; twice {
		return fmt.Errorf("%s has a description already", quote(place))
	}
	codes.Name, codes.DType, codes.Shape, codes.Packed = name, d, []int64{rows, cols}, p
	g.made[place] = codes
	return checkName(name)
}
