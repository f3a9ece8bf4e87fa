package csrc

/*
#include "lmloss.h"
#cgo noescape gp_lm_cross_entropy
#cgo nocallback gp_lm_cross_entropy
*/
import "C"

func LMCrossEntropy(out *Tensor, hidden, weight, targets Tensor, ignore int64, mean bool, chunkBytes int64, fused bool) string {
	return message(C.gp_lm_cross_entropy((*C.gp_tensor)(out), C.gp_tensor(hidden), C.gp_tensor(weight), C.gp_tensor(targets), C.int64_t(ignore), cbool(mean), C.int64_t(chunkBytes), cbool(fused)))
}
