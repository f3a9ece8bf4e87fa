// Operations that a GPU computes in a few kernels of libtorch's where the composed form takes many, most of them in the
// backward pass: a step of small batches takes as long as its kernels take to launch. They hold on any device.
#pragma once
#include "shim.h"

#ifdef __cplusplus
extern "C" {
#endif

// x·cos + rotate_half(x)·sin for x [B, H, S, D], cos and sin broadcasting to it, which get no gradients.
char* gp_turn(gp_tensor* out, gp_tensor x, gp_tensor cos, gp_tensor sin);

// x/√(mean(x²)+eps)·w over the last dimension, in x's dtype, which is w's.
char* gp_scaled_rms(gp_tensor* out, gp_tensor x, gp_tensor w, double eps);
gp_bool gp_has_scaled_rms(void);

#ifdef __cplusplus
}
#endif
