package peft

import (
	"strings"

	"gopeft/model"
)

// embeddingRate is peft's loraplus_lr_embedding: the learning rate of updates of token embeddings beside LoRA+.
const embeddingRate = 1e-6

// LoRAPlus gives the learning rate of each parameter that a, a lora or dora, trains at a rate of lr: LoRA's A are trained at
// lr, its B and everything else of one dimension at ratio times that (Hayou et al. 2024, as peft's
// create_loraplus_optimizer has it), and updates of token embeddings at a rate of their own. For other methods it is nil.
func LoRAPlus(a Method, lr, ratio float64) func(p *model.Param) float64 {
	if name := a.Name(); ratio == 0 || name != "lora" && name != "dora" {
		return nil
	}
	return func(p *model.Param) float64 {
		switch {
		case strings.HasSuffix(p.Name, embeddingA) || strings.HasSuffix(p.Name, embeddingB):
			return embeddingRate
		case strings.HasSuffix(p.Name, loraB) || p.T.Dim() == 1:
			return ratio * lr
		}
		return lr
	}
}
