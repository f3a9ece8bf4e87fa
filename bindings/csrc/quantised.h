// Matrices that are held in 4 to 8 bits a weight and computed with as they lie. The conventions are shim.h's.
//
// A matrix is given as parts: its codes, scales, zeros, nested scales and nested map, NULL where it has none; facts:
// its kind, rows, columns, weights to a scale, and scales to a nested scale (0 for none); and the offset of nested
// scales. The kinds are numbered as in Go. `way` is how weights are made: 0 of libtorch's operations, 1 one by one,
// 2 by the fastest means the CPU has, 3 by compiled kernels, where they serve, on a GPU.
#pragma once
#include "shim.h"

#ifdef __cplusplus
extern "C" {
#endif

// Rounds w to a kind of bitsandbytes: outs is codes, scales, nested scales and nested map, the last two NULL unless
// nested is set.
char* gp_quantise(gp_tensor* outs, double* offset, gp_tensor w, int kind, gp_bool nested);

char* gp_dequantise(gp_tensor* out, gp_tensor* parts, const int64_t* facts, double offset, int dtype, int way);
char* gp_quant_rows(gp_tensor* out, gp_tensor* parts, const int64_t* facts, double offset, gp_tensor ids, int dtype,
                    int way);

// With fused, which gp_fusable allows, the product is our own and weights are made while it packs them.
char* gp_quant_linear(gp_tensor* out, gp_tensor x, gp_tensor* parts, const int64_t* facts, double offset,
                      gp_tensor b /* or NULL */, gp_bool fused, int way);
char* gp_quant_lm_cross_entropy(gp_tensor* out, gp_tensor hidden, gp_tensor* parts, const int64_t* facts, double offset,
                                gp_tensor targets, int64_t ignore, gp_bool mean, int64_t chunk_bytes, gp_bool fused,
                                int way);

// *row is the first row that has a scale, minimum or zero point which is not finite, -1 for none. Parts are on the CPU
// and their sizes have been checked.
char* gp_quant_nonfinite_row(gp_tensor* parts, const int64_t* facts, double offset, int64_t* row);

#ifdef __cplusplus
}
#endif
