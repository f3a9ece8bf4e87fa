// Fused operations for CPUs with AVX-512 or AVX2, each an autograd function with a backward pass of its own. The
// conventions are shim.h's. They take fp32 and bf16 tensors on the CPU, in any mix; gp_fusable says whether
// they can run here. Under autocast matrix products are in bf16, as PyTorch's are, which AVX2 does not serve.
#pragma once
#include "shim.h"

#ifdef __cplusplus
extern "C" {
#endif

// The instructions that the functions below use here: "avx512", "avx2", or "none" where they cannot run. GOPEFT_CPU in
// the environment names lesser ones than the best; the check's message is what is wrong with that.
const char* gp_cpu_path(void);
char* gp_cpu_path_check(void);

// Whether the tensors (NULL for none, a being the first argument) and the CPU suit the functions below.
gp_bool gp_fusable(gp_tensor a, gp_tensor b, gp_tensor c, gp_tensor d);

char* gp_linear(gp_tensor* out, gp_tensor x, gp_tensor w, gp_tensor b /* or NULL */);

// x·wᵀ + b + scale·(x·aᵀ)·upᵀ for a [rank, in] and up [out, rank] in fp32: a linear map with its low-rank update, for
// the few rows of a decoding step. *out is NULL where this does not serve: more rows, other dtypes, or autograd records
// it.
char* gp_linear_low_rank(gp_tensor* out, gp_tensor x, gp_tensor w, gp_tensor b /* or NULL */, gp_tensor a, gp_tensor up,
                         double scale);

// LayerNorm(dropout(x, p) + residual) over the last dimension; residual may be NULL.
char* gp_add_layer_norm(gp_tensor* out, gp_tensor x, gp_tensor residual, gp_tensor w, gp_tensor b, double eps,
                        double p);
char* gp_rms_norm(gp_tensor* out, gp_tensor x, gp_tensor w, double eps);

// With reuse the result may lie where x or gate did, whose values are lost then.
char* gp_gelu(gp_tensor* out, gp_tensor x, gp_bool reuse);
char* gp_swiglu(gp_tensor* out, gp_tensor gate, gp_tensor up, gp_bool reuse);

// gp_linear of gp_gelu(x), or of gp_swiglu(x, up) where up is not NULL. Without autograd the activation may lie where x
// did; with it, the backward pass computes it again.
char* gp_activated_linear(gp_tensor* out, gp_tensor x, gp_tensor up /* or NULL */, gp_tensor w,
                          gp_tensor b /* or NULL */);

char* gp_dropout(gp_tensor* out, gp_tensor x, double p);
char* gp_rotate(gp_tensor* out, gp_tensor x, gp_tensor cos, gp_tensor sin);

// softmax(q·kᵀ·scale + bias)·v per head, without scores in memory. bias (or NULL) broadcasts to [B, H, Sq, Sk]
// and gets no gradient; causal hides what comes after a query, the last one seeing every key. Then, without a bias,
// starts [B|1, Sq] (or NULL) hides the keys before a query's own, but for the first lead ones.
char* gp_fused_attention(gp_tensor* out, gp_tensor q, gp_tensor k, gp_tensor v, gp_tensor bias, gp_bool causal,
                         gp_tensor starts, int64_t lead, double scale, double p);

#ifdef __cplusplus
}
#endif
