package model

import (
	"fmt"
	"slices"
	"strings"

	"gopeft/model/hf"
)

// Info is the shape of a model and what its family says of its make, the same for every architecture.
type Info struct {
	Family       string // the architecture's name
	Vocab        int
	Hidden       int
	Layers       int
	Heads        int
	KVHeads      int
	HeadDim      int
	FFN          int
	MaxPositions int
	Window       int `json:"-"` // the fewest positions that a block's tokens see, where some see less than all; else 0
	// LoadedFrom is the model_type of the checkpoint, where that is another architecture's: "bert" of a DistilBERT.
	LoadedFrom string

	Traits `json:"-"` // of the family, not of the model's shape
	biased string     // slots whose map has a bias, where the family leaves that to the model
}

// Traits are what all models of a family have in common.
type Traits struct {
	Decoder   bool // reads left to right: a classifier reads the last real token, not the first
	PreNorm   bool // a block normalises what a sublayer reads, not the sum that it leaves
	PostNorms bool // a block normalises what its sublayers leave as well, before that is added
	// KeepsScores says that attention keeps the scores of every pair of tokens for the backward pass.
	KeepsScores bool
	HeadNorms   bool // queries and keys are normalised before they attend
	// KeepsActivation says that what is behind a feed-forward's activation is kept for the backward pass in any case.
	KeepsActivation bool
	Blocks          string // what the names of the blocks' parameters begin with: block 3 is Blocks + ".3"
	Attention       string // name of the attention module within a block, e.g. "attention"
	Classifier      string // name of the last module of the classification head
	Words           string // name of the token embeddings' module
	LMHead          string // name of the language-model head's module, also where it shares the embedding table; "" without one
}

// Map describes a linear map of a block.
type Map struct {
	Slot    Slot
	Name    string // within the block, e.g. "attention.q_lin"
	In, Out int
	Bias    bool
	// Shiftless says that the block's output stays as it is when the same vector is added to all that the map gives,
	// so that the gradient of a bias is zero: of keys that are not rotated, which softmax sees only the differences of.
	Shiftless bool
	// Part says that checkpoints hold the map as some of the outputs of a larger one.
	Part Part
	// Transposed says that checkpoints hold the weight as [in, out].
	Transposed bool
}

// Part is which outputs of a larger map are one's own: those from First on, of Out. Of is the larger map's name within the
// block; "": it is none's.
type Part struct {
	Of         string
	First, Out int
}

// Stored is the name, within the block, of the module that checkpoints hold the map in.
func (m Map) Stored() string {
	if m.Part.Of != "" {
		return m.Part.Of
	}
	return m.Name
}

// place is where a checkpoint holds a weight or bias of the map in a block.
func (m Map) place(block, field string) hf.Place {
	if m.Part.Of == "" && !(m.Transposed && field == "weight") {
		return hf.Place{}
	}
	p := hf.Place{Name: block + "." + m.Stored() + "." + field, First: int64(m.Part.First), Rows: int64(m.Out), Transposed: m.Transposed}
	if m.Part.Of != "" {
		p.Rows = int64(m.Part.Out)
	}
	return p
}

// Complete fills in the family's traits, for an Info that is written by hand.
func (i Info) Complete() Info {
	i.Traits = familyNamed(i.Family).traits
	return i
}

// Top is the first part of the blocks' names, e.g. "distilbert".
func (i Info) Top() string {
	top, _, _ := strings.Cut(i.Blocks, ".")
	return top
}

// Maps are the linear maps of one block, in the order they are applied. In an Info written by hand, maps that a config
// may give a bias have none.
func (i Info) Maps() []Map { return familyNamed(i.Family).maps(i) }

// hasBias reports whether the slot's map has a bias where the family leaves that to the model.
func (i Info) hasBias(slot Slot) bool { return slices.Contains(strings.Fields(i.biased), string(slot)) }

// setBias says that the slots' maps have one.
func (i *Info) setBias(slots ...Slot) {
	for _, slot := range slots {
		i.biased += string(slot) + " "
	}
}

// Outline gives the blocks of a model of this shape as its hooks do, with the same names, but without weights.
func (i Info) Outline() []*Block {
	i = i.Complete()
	maps := i.Maps()
	blocks := make([]*Block, i.Layers)
	for n := range blocks {
		blocks[n] = i.block(n)
		for _, m := range maps {
			blocks[n].Modules = append(blocks[n].Modules, Module{Map: m})
		}
	}
	return blocks
}

// block is the n-th block, without its maps.
func (i Info) block(n int) *Block { return &Block{Name: fmt.Sprintf("%s.%d", i.Blocks, n)} }
