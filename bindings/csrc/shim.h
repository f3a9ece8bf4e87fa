// What gopeft needs of libtorch and gotch does not offer, as plain C functions over at::Tensor*.
//
// Conventions: a gp_tensor is an at::Tensor* owned by the caller (gotch's `tensor` is the same thing).
// A function that can fail returns NULL, or a message that the caller frees. A function with an `out`
// parameter stores a new at::Tensor* there on success and leaves it alone on failure. Dtypes are
// at::ScalarType values; a device is -1 for the CPU, n >= 0 for CUDA device n and GP_NOWHERE for tensors without
// elements.
//
// calls.go, with a Go function for each of these, is generated from this file by internal/gen, which knows the types
// used here. A parameter whose name begins with "out" is where a result goes; `int n` after arrays is their length.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void* gp_tensor;
typedef int gp_bool;  // 0 or 1

#define GP_NOWHERE -2

// Marks what may run Go code, a checkpointed block's second run, before it returns.
#define GP_CALLS_GO

// Facts about a tensor.
int64_t gp_dim(gp_tensor t);
int64_t gp_size(gp_tensor t, int64_t dim);  // dim may be negative; -1 when out of range
int64_t gp_numel(gp_tensor t);
int gp_dtype(gp_tensor t);
int gp_device(gp_tensor t);
gp_bool gp_is_contiguous(gp_tensor t);
gp_bool gp_requires_grad(gp_tensor t);
void* gp_data(gp_tensor t);
int64_t gp_item_size(gp_tensor t);

// Making tensors.
char* gp_from_blob(gp_tensor* out, void* data, const int64_t* sizes, int n, int dtype);
char* gp_empty(gp_tensor* out, const int64_t* sizes, int n, int dtype, int device, gp_bool pinned);
char* gp_full(gp_tensor* out, const int64_t* sizes, int n, double value, int dtype, int device);
char* gp_arange(gp_tensor* out, int64_t start, int64_t end, int dtype, int device);
char* gp_uniform_(gp_tensor t, double lo, double hi);
char* gp_normal_(gp_tensor t, double mean, double std);
char* gp_to(gp_tensor* out, gp_tensor t, int dtype, int device, gp_bool non_blocking);
char* gp_copy_(gp_tensor dst, gp_tensor src, gp_bool non_blocking);
char* gp_read(gp_tensor t, void* dst, int dtype);  // converts to dtype on the CPU, contiguous

// Scalars.
char* gp_add_scalar(gp_tensor* out, gp_tensor a, double v);
char* gp_mul_scalar(gp_tensor* out, gp_tensor a, double v);
char* gp_masked_fill(gp_tensor* out, gp_tensor a, gp_tensor mask, double v);
char* gp_compare_scalar(gp_tensor* out, gp_tensor a, int op, double v);  // 0 <, 1 <=, 2 ==, 3 !=, 4 >=, 5 >
char* gp_compare(gp_tensor* out, gp_tensor a, int op, gp_tensor b);
char* gp_slice(gp_tensor* out, gp_tensor a, int64_t dim, int64_t start, int64_t end, int64_t step);
char* gp_clone(gp_tensor* out, gp_tensor a);
char* gp_attention(gp_tensor* out, gp_tensor q, gp_tensor k, gp_tensor v, gp_tensor mask, double dropout,
                   gp_bool causal, double scale, gp_bool gqa);
// Causal attention within texts that lie one after another in the rows of q [B, H, S, D], by libtorch's kernel for
// GPUs: text i is the tokens from ends[i] to ends[i+1] of B·S, int32, the longest has so many.
char* gp_packed_attention(gp_tensor* out, gp_tensor q, gp_tensor k, gp_tensor v, gp_tensor ends, int64_t longest,
                          double dropout, double scale);

// In place; called without gradient recording.
char* gp_add_(gp_tensor dst, gp_tensor src, double alpha);
char* gp_mul_scalar_(gp_tensor t, double v);
char* gp_fill_(gp_tensor t, double v);

// Autograd.
char* gp_set_requires_grad(gp_tensor t, gp_bool on);
GP_CALLS_GO char* gp_backward(gp_tensor loss, gp_tensor grad /* or NULL */);
GP_CALLS_GO char* gp_grad_of(gp_tensor* outs, gp_tensor output, gp_tensor grad, gp_tensor* inputs,
                             int n);             // NULL where unused
char* gp_get_grad(gp_tensor* out, gp_tensor t);  // *out NULL when there is none
char* gp_set_grad(gp_tensor t, gp_tensor grad /* or NULL */);

// Thread-local state; each returns or fills what was there before.
gp_bool gp_grad_enabled(void);
void gp_set_grad_enabled(gp_bool on);
void* gp_inference_enter(void);
void gp_inference_leave(void* guard);
void gp_autocast_set(int device, gp_bool enabled, int dtype, int* was_enabled, int* was_dtype);
int gp_autocast_dtype(int device);  // that matrix products are computed in, -1 when autocast is off

// Random numbers. State is an opaque uint8 tensor on the CPU.
char* gp_seed(uint64_t seed);
char* gp_rng_get(gp_tensor* out, int device);
char* gp_rng_set(gp_tensor state, int device);

// The machine.
int gp_threads(void);
char* gp_set_threads(int n);
void gp_set_deterministic(gp_bool on);
void gp_flush_denormal(gp_bool on);
void gp_keep_large_blocks(gp_bool on);
const char* gp_torch_version(void);
const char* gp_cpu_capability(void);
const char* gp_library_path(void);  // the file libtorch was loaded from
gp_bool gp_is_cxx11_abi(void);
char* gp_load_library(const char* path);
char* gp_cuda_count(int* n);
char* gp_cuda_capability(int device, int* major, int* minor);
char* gp_cuda_peak(int device, int64_t* bytes);  // most allocated so far; -1: libtorch before 2.9 does not tell
char* gp_cuda_synchronize(int device);
void gp_cuda_allow_tf32(gp_bool on);
void gp_cuda_no_cudnn_attention(void);

// Optimizers: one fused pass over all tensors, or (Adam, with fused 0) op by op. steps[i] is a float32 scalar that the
// caller has advanced.
char* gp_adam_step(gp_tensor* params, gp_tensor* grads, gp_tensor* m, gp_tensor* v, gp_tensor* steps, int n, double lr,
                   double beta1, double beta2, double weight_decay, double eps, gp_bool decoupled, gp_bool fused);
char* gp_sgd_step(gp_tensor* params, gp_tensor* grads, gp_tensor* momentum_buffers, int n, double lr, double momentum,
                  double weight_decay, gp_bool first);
char* gp_unscale(gp_tensor* grads, int n, gp_tensor found_inf, gp_tensor inv_scale);
char* gp_update_scale(gp_tensor scale, gp_tensor growth_tracker, gp_tensor found_inf, double growth, double backoff,
                      int64_t interval);
char* gp_norm(gp_tensor* ts, int n, double* total);          // global L2 norm
char* gp_first_nonfinite(gp_tensor* ts, int n, int* index);  // -1 when every element is finite
char* gp_scale_all_(gp_tensor* ts, int n, double factor);
char* gp_add_all_(gp_tensor* ts, int n, double v);

#ifdef __cplusplus
}
#endif
