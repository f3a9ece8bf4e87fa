package csrc

/*
#include "gpu.h"
#cgo noescape gp_turn
#cgo nocallback gp_turn
#cgo noescape gp_scaled_rms
#cgo nocallback gp_scaled_rms
#cgo noescape gp_has_scaled_rms
#cgo nocallback gp_has_scaled_rms
*/
import "C"

func Turn(out *Tensor, x, cos, sin Tensor) string {
	return message(C.gp_turn((*C.gp_tensor)(out), C.gp_tensor(x), C.gp_tensor(cos), C.gp_tensor(sin)))
}

// HasScaledRMS reports whether this libtorch has ScaledRMS.
func HasScaledRMS() bool { return C.gp_has_scaled_rms() != 0 }

func ScaledRMS(out *Tensor, x, w Tensor, eps float64) string {
	return message(C.gp_scaled_rms((*C.gp_tensor)(out), C.gp_tensor(x), C.gp_tensor(w), C.double(eps)))
}
