// The loss of a language model's head without its logits in memory.
#pragma once
#include "shim.h"

#ifdef __cplusplus
extern "C" {
#endif

// Cross-entropy in fp32 of hidden [N,d] times weight [V,d] transposed against int64 targets [N]; targets equal
// to ignore count for nothing; GP_ALL_TARGETS ignores none. chunk_bytes bounds the logits held at once (at least one
// token's). *out is the mean or sum, a scalar; zero when every target is ignored. fused lets kernels of our own serve
// where they can.
#define GP_ALL_TARGETS INT64_MIN
char* gp_lm_cross_entropy(gp_tensor* out, gp_tensor hidden, gp_tensor weight, gp_tensor targets, int64_t ignore,
                          gp_bool mean, int64_t chunk_bytes, gp_bool fused);

#ifdef __cplusplus
}
#endif
