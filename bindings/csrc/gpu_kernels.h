// Operations on a GPU by the kernels of csrc/nvrtc, each one launch where libtorch takes several. Their tensors are on
// one GPU and of one dtype (fp32, bf16 or fp16), for which gp_kernels_load was called.
#pragma once
#include "shim.h"

#ifdef __cplusplus
extern "C" {
#endif

// Loads code that nvrtc compiled for a dtype onto a device; the code may go afterwards.
char* gp_kernels_load(int device, int dtype, void* code);

// x/√(mean(x²)+eps)·w over the last dimension, rounded before the weight comes in.
char* gp_compiled_rms_norm(gp_tensor* out, gp_tensor x, gp_tensor w, double eps);

// silu(gate)·up; with reuse the result may lie where gate did, whose values are lost then.
char* gp_compiled_swiglu(gp_tensor* out, gp_tensor gate, gp_tensor up, gp_bool reuse);

// x·cos + rotate_half(x)·sin for q [B, H, S, D] and k [B, Hkv, S, D], each with its own strides; cos and sin [1 or B,
// 1, S, D], which get no gradients. k may be NULL, and *out_k is then too.
char* gp_compiled_rotate(gp_tensor* out_q, gp_tensor* out_k, gp_tensor q, gp_tensor k, gp_tensor cos, gp_tensor sin);

// y + scale·h·upᵀ in y's dtype for y [..., out], h [..., rank] and up [out, rank] of any dtypes.
char* gp_compiled_add_low_rank(gp_tensor* out, gp_tensor y, gp_tensor h, gp_tensor up, double scale);

#ifdef __cplusplus
}
#endif
