// Runs the GPU kernels on the CPU: a block's threads are fibres on one thread, which meet at barriers and in shuffles.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// How fibres take turns: in a block whose threads need a barrier that is not there, one of the orders gives a wrong
// result.
enum { kForwards, kBackwards };

// emulated is whether there is a kernel of that name.
int emulated(const char* kernel);

// Each runs a launch of csrc/launch for an element type (0 fp32, 1 bf16, 2 fp16), and returns NULL or what is wrong,
// which the caller frees.
char* emulate_rms_norm(int element, int order, const void* x, const void* w, void* y, float* rstd, int64_t rows,
                       int64_t d, double eps);
char* emulate_rms_norm_backward(int element, int order, const void* g, const void* x, const void* w, const float* rstd,
                                void* dx, int64_t rows, int64_t d);
int64_t emulate_weight_parts(int64_t rows);
char* emulate_rms_norm_weight(int element, int order, const void* g, const void* x, const float* rstd, float* parts,
                              int64_t rows, int64_t d);
char* emulate_swiglu(int element, int order, const void* gate, const void* up, void* y, int64_t n);
char* emulate_swiglu_backward(int element, int order, const void* g, const void* gate, const void* up, void* dgate,
                              void* dup, int64_t n);

// x and y, and unless k_heads is 0 k and k_to, are [batch, positions, heads, 2·half] where heads_first is 0, else
// [batch, heads, positions, 2·half]; cos and sin [batch or 1, positions, 2·half].
char* emulate_rotate(int element, int order, const void* x, void* y, int heads, const void* k, void* k_to, int k_heads,
                     const void* cos, const void* sin, int shared_angles, int64_t batch, int64_t positions,
                     int64_t half, int heads_first, int transposed);

char* emulate_cross_entropy(int element, int order, void* logits, const int64_t* targets, float* losses, int64_t rows,
                            int64_t vocab, int gradient);

char* emulate_add_low_rank(int element, int order, const void* y, const float* h, const float* up, void* out,
                           int64_t rows, int64_t cols, int64_t rank, double scale);

// A quantised matrix, as QuantMatrix of csrc/launch/arguments.h.
typedef struct {
  int format;
  const void *codes, *plain, *nested, *map_, *outer;
  float offset;
  int shift, outer_shift;
  int64_t rows, cols;
} emulated_matrix;

char* emulate_dequantise(int element, int order, const emulated_matrix* m, void* y);
char* emulate_multiply(int element, int order, const emulated_matrix* m, const void* x, void* y, int64_t few);

// fenced is memory of that many bytes right before a page that nobody may touch, at a multiple of 16 and shift bytes
// more; NULL if there is none. fenced_free tells whether the bytes around it are as they were.
void* fenced(size_t bytes, size_t shift);
int fenced_free(void* p, size_t bytes, size_t shift);

#ifdef __cplusplus
}
#endif
