package model

import (
	"gopeft/bindings"
)

// Input is one batch.
type Input struct {
	IDs       bindings.Tensor // [B, S] int64
	Mask      bindings.Tensor // [B, S] int64, 1 for real tokens; none when nothing is padded
	Positions bindings.Tensor // [B, S] int64; none: counted from the mask
	// TokenTypes [B, S] int64 tell the texts of a pair apart, for encoders that have types; none: all are of the first.
	TokenTypes bindings.Tensor
	Segments   bindings.Tensor // [B, S] int64, decoders only: tokens attend within their segment; none: one per row
	Host       Host            // what Mask, Segments and Positions hold, where the caller knows it
	Train      bool            // dropout on
	Cache      *Cache          // decoders only: earlier tokens, to which this batch is appended; nil: none
	// FullLength is, where a cache is fed a text piece by piece, how many positions the longest row takes in the end, the
	// method's included: rotary embeddings that stretch with the text need it from the first piece on. 0: no piece.
	FullLength int
	// Pooled says that only Classify follows: a model may leave out of the last block what it does not read.
	Pooled bool
	// HiddenOnly says that no logits over the vocabulary follow: the language-model head is left where it is.
	HiddenOnly bool
	// CheckpointActivations recomputes each block in the backward pass instead of keeping its activations.
	CheckpointActivations bool
	// States, when not nil, receives the embeddings' output and every block's, owned by the scope of the call.
	States *[]bindings.Tensor
}

// Host is what tensors of an Input hold, row by row; nil: the tensor is read where its content is needed, for which a GPU
// has to be waited for.
type Host struct {
	Mask, Segments, Positions []int64
}

// known is what t holds.
func known(t bindings.Tensor, host []int64) []int64 {
	if host != nil || !t.Defined() {
		return host
	}
	return t.Int64s()
}

// Output is the last hidden states.
type Output struct {
	Hidden  bindings.Tensor // [B, Virtual+S, hidden]; of a pooled pass what Classify reads
	Virtual int             // virtual tokens before IDs' first
}

// Model is a transformer with hook points and optional heads.
type Model interface {
	Info() Info
	// Params is the model's own weights, heads included, methods' excluded.
	Params() *Params
	// AddBiases gives every linear map of the blocks that has no bias one of zeros, and has Config say so. Where the
	// model_type has no place for them it is an error, and nothing is changed.
	AddBiases() error
	Hooks() *Hooks
	// Forward computes the last hidden states.
	Forward(s *bindings.Scope, in Input) Output
	// Classify computes logits [B, labels] from Forward's output for the same input.
	Classify(s *bindings.Scope, in Input, out Output) bindings.Tensor
	// DType is that of hidden states; frozen matrices may be held in another: see Options.Base.
	DType() bindings.DType
	// Labels is the classification head's label names; empty without a head.
	Labels() []string
	// Path is the folder or file that the model was loaded from; empty for a new one.
	Path() string
	// Config is the model's config.json as it is to be saved, label names included.
	Config() map[string]any
	// HeadNames lists the top-level names of the head's modules, e.g. "pre_classifier", "classifier".
	HeadNames() []string
	// Fresh lists the parameters that no checkpoint had and that were initialised anew.
	Fresh() []string
	// Units are the weights that passes need together, in their order: each block's matrices, and the language-model head.
	Units() [][]*Param
	// Stream leaves the blocks' frozen matrices, and the language-model head, in their mapped files, or for a GPU in the host's
	// memory: from then on each block's are at hand only while it computes on dev, in passes forward and backward. It comes
	// after a method is attached.
	Stream(dev bindings.Device) (Elsewhere, error)
	// Shard leaves this process its part of the blocks' matrices, frozen or as asked trained too, and of the language-model
	// head, of which it reads no more: from then on passes are made together with the other processes, which gather each block's while it computes.
	// It comes after a method is attached.
	Shard(o Sharing) (Elsewhere, error)
	// Retake lets go of what was gathered of shared weights: the processes have changed their parts.
	Retake(s *bindings.Scope)
	// Shared is how many bytes this process keeps of the weights that it shares; 0: it shares none.
	Shared() int64
	// Scope owns the weights; what is to live as long as the model may be made in it.
	Scope() *bindings.Scope
	// Unchanged is an error where a file in which weights lie was written to since the model was loaded.
	Unchanged() error
	// Close frees the weights.
	Close() error
}

// CausalLM is a model that predicts the next token.
type CausalLM interface {
	Model
	// LMHead is the language-model head [vocab, hidden], the embedding table where they are one; nil when the checkpoint has
	// none.
	LMHead() *Param
	// BareLogits reports whether logits are the head's product with states, and nothing more.
	BareLogits() bool
	// Logits maps hidden states [..., hidden] to scores over the vocabulary [..., vocab].
	Logits(s *bindings.Scope, hidden bindings.Tensor) bindings.Tensor
}
