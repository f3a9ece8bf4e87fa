// Package model holds transformers and their hook points: what a fine-tuning method attaches to without knowing the
// architecture. Load opens a HuggingFace folder or a GGUF file, New makes a model with random weights; Forward gives
// hidden states, Classify and CausalLM's Logits what a head makes of them. With nothing on its hook points a model
// computes what transformers does.
//
// An architecture is one file (distilbert.go, bert.go, llama.go) and one line in families; what architectures share stands
// beside: attention, layers, the cache, the layout of a batch, rotary positions, encoders' blocks (encoder.go), decoders'
// settings, GGUF names. A loader gets a
// weight in one place (base.fill, by name, shape and dtype), and a linear map computes in one (Dense).
//
// The package's own words:
//
//   - Family: an architecture with its variants, which share one implementation: Mistral and Qwen2 are LLaMA's.
//   - Block: one transformer layer, attention and feed-forward.
//   - Map: a linear map of a block. A module is a map with its weights.
//   - Slot: what a map does in its block, by a name that is the same in every architecture: Q, K, V, O, Gate, Up, Down.
//   - Hook point (Points, Hooks): a place where a method can change what a model computes.
//   - Wrapper: what computes in place of a slot's map, and may call it: LoRA's sum.
//   - Memory: extra keys and values that share the softmax of a block's own: prefix tuning.
//   - Branch: an attention beside the block's own, with a softmax of its own: LLaMA-Adapter's prompts.
//   - Transform: what changes a sublayer's output before it joins the residual: bottleneck adapters.
//   - Embedding: what gives token embeddings in place of the model's own.
//   - Prompt: vectors in front of the token embeddings; each is a virtual token.
//   - Outline: the blocks of a model as names and widths, without weights.
//   - Traits: what all models of a family have in common.
//   - Inert: a parameter that no output depends on, so that its gradient is zero; Shiftless is a map whose bias is.
//   - Fresh: a parameter that no checkpoint had and that was initialised anew, such as a new head's.
//   - Stored and computed: a parameter's tensor T is what is saved; Value is what is computed with, which may be a copy in
//     another dtype.
//   - Quantised: a frozen matrix in 4 to 8 bits a weight; its T is a placeholder with a shape and no elements.
//   - Mapped: a tensor that lies in its file's memory mapping, whose pages the system may drop and read again.
//   - Layout: where a batch's tokens stand in their texts, and which keys each of them may see.
//   - Window: how many positions a token sees, itself included.
//   - Reach: how many positions a rotary embedding serves when it is stretched beyond those it was trained with.
package model
