package csrc

/*
#cgo CXXFLAGS: -fopenmp
#cgo LDFLAGS: -lgomp
#include "kernels.h"
#cgo noescape gp_fusable
#cgo nocallback gp_fusable
#cgo noescape gp_linear
#cgo nocallback gp_linear
#cgo noescape gp_linear_low_rank
#cgo nocallback gp_linear_low_rank
#cgo noescape gp_activated_linear
#cgo nocallback gp_activated_linear
#cgo noescape gp_add_layer_norm
#cgo nocallback gp_add_layer_norm
#cgo noescape gp_rms_norm
#cgo nocallback gp_rms_norm
#cgo noescape gp_gelu
#cgo nocallback gp_gelu
#cgo noescape gp_swiglu
#cgo nocallback gp_swiglu
#cgo noescape gp_dropout
#cgo nocallback gp_dropout
#cgo noescape gp_rotate
#cgo nocallback gp_rotate
#cgo noescape gp_fused_attention
#cgo nocallback gp_fused_attention
*/
import "C"

// Fusable reports whether the fused functions below take these tensors, nil standing for none, on this CPU.
func Fusable(a, b, c, d Tensor) bool {
	return C.gp_fusable(C.gp_tensor(a), C.gp_tensor(b), C.gp_tensor(c), C.gp_tensor(d)) != 0
}

func Linear(out *Tensor, x, w, b Tensor) string {
	return message(C.gp_linear((*C.gp_tensor)(out), C.gp_tensor(x), C.gp_tensor(w), C.gp_tensor(b)))
}

func AddLayerNorm(out *Tensor, x, residual, w, b Tensor, eps, p float64) string {
	return message(C.gp_add_layer_norm((*C.gp_tensor)(out), C.gp_tensor(x), C.gp_tensor(residual), C.gp_tensor(w), C.gp_tensor(b), C.double(eps), C.double(p)))
}

func RMSNorm(out *Tensor, x, w Tensor, eps float64) string {
	return message(C.gp_rms_norm((*C.gp_tensor)(out), C.gp_tensor(x), C.gp_tensor(w), C.double(eps)))
}

func LinearLowRank(out *Tensor, x, w, b, a, up Tensor, scale float64) string {
	return message(C.gp_linear_low_rank((*C.gp_tensor)(out), C.gp_tensor(x), C.gp_tensor(w), C.gp_tensor(b), C.gp_tensor(a), C.gp_tensor(up), C.double(scale)))
}

func GELU(out *Tensor, x Tensor, reuse bool) string {
	return message(C.gp_gelu((*C.gp_tensor)(out), C.gp_tensor(x), cbool(reuse)))
}

func SwiGLU(out *Tensor, gate, up Tensor, reuse bool) string {
	return message(C.gp_swiglu((*C.gp_tensor)(out), C.gp_tensor(gate), C.gp_tensor(up), cbool(reuse)))
}

func ActivatedLinear(out *Tensor, x, up, w, b Tensor) string {
	return message(C.gp_activated_linear((*C.gp_tensor)(out), C.gp_tensor(x), C.gp_tensor(up), C.gp_tensor(w), C.gp_tensor(b)))
}

func Dropout(out *Tensor, x Tensor, p float64) string {
	return message(C.gp_dropout((*C.gp_tensor)(out), C.gp_tensor(x), C.double(p)))
}

func Rotate(out *Tensor, x, cos, sin Tensor) string {
	return message(C.gp_rotate((*C.gp_tensor)(out), C.gp_tensor(x), C.gp_tensor(cos), C.gp_tensor(sin)))
}

func FusedAttention(out *Tensor, q, k, v, bias Tensor, causal bool, scale, p float64) string {
	return message(C.gp_fused_attention((*C.gp_tensor)(out), C.gp_tensor(q), C.gp_tensor(k), C.gp_tensor(v), C.gp_tensor(bias), cbool(causal), C.double(scale), C.double(p)))
}
