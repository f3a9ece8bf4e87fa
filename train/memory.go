package train

import "gopeft/model"

// Memory is an estimate of what training holds, in MiB.
type Memory struct {
	Weights     float64 `json:"weights_mb"`
	Gradients   float64 `json:"gradients_mb"`
	Optimizer   float64 `json:"optimizer_mb"`
	Activations float64 `json:"activations_mb"`
}

// Total is all of it.
func (m Memory) Total() float64 { return m.Weights + m.Gradients + m.Optimizer + m.Activations }

// EstimateMemory predicts training in fp32 with Adam on batches of batch × length tokens. Activations are
// counted from the lowest block with something trainable upward: below it, autograd keeps nothing.
func EstimateMemory(m model.Model, params []*model.Param, batch, length int) Memory {
	const mib = 1 << 20
	var e Memory
	var trainable int64
	for _, p := range params {
		e.Weights += float64(p.T.Bytes()) / mib
		if p.Trainable {
			trainable += p.T.Numel()
		}
	}
	e.Gradients, e.Optimizer = float64(trainable)*4/mib, float64(trainable)*8/mib
	i := m.Info()
	tokens := float64(batch * length)
	// Kept for the backward pass per block and token: q, k, v, the heads' output, two sublayer outputs with
	// their norms, and the feed-forward activations; and the attention probabilities.
	perBlock := tokens*float64(8*i.Hidden+3*i.FFN)*4 + float64(batch*i.Heads)*float64(length*length)*2*4
	e.Activations = perBlock * float64(activeBlocks(m, params)) / mib
	if i.Family == "llama" && len(m.Labels()) == 0 && trainable > 0 {
		e.Activations += tokens * float64(i.Hidden) * 4 / mib
	}
	return e
}

// activeBlocks is how many blocks, from the top, take part in the backward pass.
func activeBlocks(m model.Model, params []*model.Param) int {
	blocks := m.Hooks().Blocks
	if m.Hooks().Prompt != nil {
		return len(blocks)
	}
	inBlock := func(name string) int {
		for i, b := range blocks {
			if ok, _ := model.Matches(b.Name, name); ok {
				return i
			}
		}
		return -1
	}
	lowest := len(blocks)
	for _, p := range params {
		if !p.Trainable {
			continue
		}
		if i := inBlock(p.Name); i >= 0 {
			lowest = min(lowest, i)
		} else if m.Params().Get(p.Name) == nil || p.T.Dim() == 2 && p.T.Size(0) == int64(m.Info().Vocab) {
			lowest = 0 // a method's own tensor shared by all blocks, or the embeddings
		}
	}
	return len(blocks) - lowest
}
