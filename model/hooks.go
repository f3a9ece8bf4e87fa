package model

import "gopeft/bindings"

// Slot names a linear map of a block, the same for every architecture.
type Slot string

// The slots: attention's queries, keys, values and output, and the feed-forward's maps into and out of its activation.
// Gate is there where the activation is gated.
const (
	Q    Slot = "q"
	K    Slot = "k"
	V    Slot = "v"
	O    Slot = "o"
	Up   Slot = "up"
	Gate Slot = "gate"
	Down Slot = "down"
)

// Linear is an affine map over the last dimension.
type Linear interface {
	Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor
}

// Memory is extra keys and values that join a block's own in one softmax (prefix tuning). They enter after
// the head split and are not rotated.
type Memory interface {
	// Len is the number of extra positions.
	Len() int
	// KV gives keys and values [1 or B, Hkv, Len, D].
	KV(s *bindings.Scope) (k, v bindings.Tensor)
}

// Branch is a second attention with a softmax of its own whose output joins the block's heads before the
// output projection (adaption prompts).
type Branch interface {
	// Attend gives what is added to the heads' output [B, H, S, D]. q [B, H, S, D] is after RoPE; project
	// applies the block's own key and value maps to [1, n, hidden], giving [1, Hkv, n, D].
	Attend(s *bindings.Scope, q bindings.Tensor, project func(x bindings.Tensor) (k, v bindings.Tensor)) bindings.Tensor
}

// Transform changes a sublayer's output before the residual add (bottleneck adapters).
type Transform interface {
	// Apply gives what takes the place of the sublayer's output h [B, S, hidden]. join is what the block then
	// makes of such an output: the residual added and, in post-norm blocks, the sum normalised.
	Apply(s *bindings.Scope, h bindings.Tensor, join func(*bindings.Scope, bindings.Tensor) bindings.Tensor) bindings.Tensor
}

// Prompt is trainable vectors put before the token embeddings (soft prompts).
type Prompt interface {
	// Len is the number of virtual tokens.
	Len() int
	// Vectors gives [Len, hidden].
	Vectors(s *bindings.Scope) bindings.Tensor
}

// Embedding gives token embeddings in place of the model's own.
type Embedding interface {
	// Embed gives the embeddings [B, S, hidden] of ids [B, S]; own computes the model's of ids that it has.
	Embed(s *bindings.Scope, ids bindings.Tensor, own func(s *bindings.Scope, ids bindings.Tensor) bindings.Tensor) bindings.Tensor
}

// Points are the hook points of one block. The zero value is the base model, bit for bit.
type Points struct {
	Memory []Memory
	// Spread gives every head of the queries keys and values of its own, copies of those that heads share, before
	// memories join them: Memory.KV then gives [1 or B, H, Len, D]. It does not go with branches.
	Spread    bool
	Branch    []Branch
	AfterAttn []Transform
	AfterFFN  []Transform
	Wrap      map[Slot]Linear // replaces the block's own map; whoever wraps calls what it wraps
}

// Module is a linear map of a block and its weights.
type Module struct {
	Map
	Dense *Dense // nil in an outline
}

// Block is what methods see of a transformer block.
type Block struct {
	Points
	Name    string // prefix of its parameters, e.g. "distilbert.transformer.layer.0"
	Modules []Module
}

// Module finds the block's own map of a slot.
func (b *Block) Module(slot Slot) (Module, bool) {
	for _, m := range b.Modules {
		if m.Slot == slot {
			return m, true
		}
	}
	return Module{}, false
}

// Linear is what a slot computes now: the last wrapper put on it, or the block's own map.
func (b *Block) Linear(slot Slot) Linear {
	if l, ok := b.Wrap[slot]; ok {
		return l
	}
	m, ok := b.Module(slot)
	if !ok {
		panic("model: block " + b.Name + " has no slot " + string(slot))
	}
	return m.Dense
}

// SetWrap puts l on a slot; nil takes the wrapper off.
func (b *Block) SetWrap(slot Slot, l Linear) {
	if l == nil {
		delete(b.Wrap, slot)
		return
	}
	if b.Wrap == nil {
		b.Wrap = map[Slot]Linear{}
	}
	b.Wrap[slot] = l
}

// Pool names the position whose state a classifier reads.
type Pool int

// The positions. Virtual tokens come before a text's first, padding counts.
const (
	RealToken     Pool = iota // an encoder's first real token, a decoder's last
	FirstPosition             // the first, which is a virtual token where there are any
	LastPosition              // the last, which may be padding
)

// Hooks are all hook points of a model. But for Blocks' descriptions and Words, the zero value is the base
// model.
type Hooks struct {
	Method     string // name of the method attached, "" if none
	Prompt     Prompt // nil: none
	Blocks     []*Block
	Words      *Param    // token embeddings [vocab, hidden]
	Embed      Embedding // replaces the look-up of token embeddings; nil: the model's own
	Unembed    Linear    // replaces the language-model head's map; nil: the model's own
	NewTokens  int       // behind the model's vocabulary, which Embed and Unembed know
	Classifier Linear    // replaces the classification head: pooled hidden [B, hidden] to logits; nil: the model's own
	Pool       Pool      // the position whose state Classify reads
	// Uncounted leaves memories out of the positions that tokens are rotated by: a text's first token then has
	// position 0, as it has without memories.
	Uncounted bool
	// Train tells methods that dropout is on in the running forward pass; Forward sets it.
	Train bool
}

// Clear takes everything off the hook points.
func (h *Hooks) Clear() {
	for _, b := range h.Blocks {
		b.Points = Points{}
	}
	*h = Hooks{Blocks: h.Blocks, Words: h.Words}
}

// Vocab is how many tokens a model knows, with those that a method has added.
func Vocab(m Model) int { return m.Info().Vocab + m.Hooks().NewTokens }

// PromptLen is the number of virtual tokens before a text's first.
func (h *Hooks) PromptLen() int {
	if h.Prompt == nil {
		return 0
	}
	return h.Prompt.Len()
}

// MemoryLen is the number of positions that memories take before a text's first: of the extra keys, the same
// number in every block that has any, or none where they are not counted.
func (h *Hooks) MemoryLen() int {
	if h.Uncounted {
		return 0
	}
	for _, b := range h.Blocks {
		n := 0
		for _, m := range b.Memory {
			n += m.Len()
		}
		if n > 0 {
			return n
		}
	}
	return 0
}
