// Quantised matrices on a GPU, by the kernels of csrc/nvrtc: for whoever computes with them.
#pragma once
#include <ATen/ATen.h>

#include "launch/arguments.h"

namespace gp {

// GPUMatrix is a quantised matrix [rows, cols] whose parts lie on one GPU, as Quantised of package bindings describes
// them: scales are fp32 or, where nested_block is not 0, uint8 with nested_scales and nested_map.
struct GPUMatrix {
  Format format;
  int64_t rows, cols;
  int64_t block, nested_block;
  float offset;
  at::Tensor codes, scales, nested_scales, nested_map;
};

// gpu_serves is whether the functions below can compute with m in a dtype: its kernels are loaded (group Quantised of
// package nvrtc), and its blocks are of a size that they take.
bool gpu_serves(const GPUMatrix& m, at::ScalarType type);

// gpu_dequantised is the matrix in a dtype, each weight computed in fp32 and rounded once.
at::Tensor gpu_dequantised(const GPUMatrix& m, at::ScalarType type);

// gpu_multiply is x·mᵀ for x [..., cols] in x's dtype, without autograd, for the few rows of a decoding step: the
// weights are read as they lie, once for every kFewRows rows. gpu_multiplies is whether it takes so many rows of x.
bool gpu_multiplies(const GPUMatrix& m, int64_t x_rows);
at::Tensor gpu_multiply(const at::Tensor& x, const GPUMatrix& m);

}  // namespace gp
