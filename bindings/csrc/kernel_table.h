// The kernels' vector code is there once for every kind of CPU ("path"), in a namespace of its own; this is where one
// is chosen, when the program runs.
#pragma once
#include <ATen/core/Tensor.h>

#include "attention.h"
#include "dropout.h"
#include "gemm.h"
#include "quant.h"

namespace gp {

using at::Tensor;

// LayerNorm is what there is to a layer norm: the scale and shift, d elements each, and dropout before it.
struct LayerNorm {
  const float *w, *b;
  int64_t d;
  double eps;
  Dropout drop;
};

// DotOfRows gives Σ x·w over k elements for one row of w and some rows of x, which are ldx words apart and padded with
// zeros to whole vectors.
using DotOfRows = void (*)(const void* w, const uint32_t* x, int64_t ldx, int64_t k, float* out);
constexpr int64_t kFewRows = 4;

// Kernels is one path. Tensors are contiguous fp32 or bf16, in any mix, unless said otherwise; undefined ones and null
// pointers are not wanted. What is not said here is said of the functions in kernels.h.
struct Kernels {
  decltype(&gp::tile) tile;
  decltype(&gp::pack) pack;
  DotOfRows dots[2][kFewRows];  // by whether they are in bf16, and by how many rows less one
  void (*add_rows)(const Tensor& t, int64_t begin, int64_t end, float* sum);  // adds rows of t [m, n]

  // quant.h's.
  decltype(&gp::packer_of_rows) packer_of_rows;
  decltype(&gp::packer_of_columns) packer_of_columns;
  decltype(&gp::decode_rows) decode_rows;

  // out [B, H, Sq, D]; lse takes log Σ e^score [B, H, Sq].
  void (*attention_forward)(const Attention& a, const Tensor& out, float* lse);
  void (*attention_decode)(const Attention& a, const Tensor& out);
  void (*attention_backward)(const Attention& a, const Tensor& out, const Tensor& lse, const Tensor& dout,
                             const Tensor& dq, const Tensor& dk, const Tensor& dv);

  void (*gelu)(const Tensor& x, const Tensor& out);
  void (*gelu_gradient)(const Tensor& x, const Tensor& g, const Tensor& dx);
  void (*swiglu)(const Tensor& gate, const Tensor& up, const Tensor& out);
  void (*swiglu_gradient)(const Tensor& gate, const Tensor& up, const Tensor& g, const Tensor& dgate,
                          const Tensor& dup);
  void (*dropout)(const Tensor& x, const Dropout& d, const Tensor& out);

  // xhat takes the normalised values and rstd 1/σ of each row; sums [chunks, 2, d] takes the gradients of scale and
  // shift, in as many parts.
  void (*layer_norm)(const LayerNorm& p, const Tensor& x, const Tensor& residual, const Tensor& out, const Tensor& xhat,
                     float* rstd);
  void (*layer_norm_gradients)(const LayerNorm& p, const Tensor& g, const Tensor& xhat, const float* rstd,
                               const Tensor& dx, const Tensor& dres, const Tensor& sums, int64_t chunks);
  // rstd takes 1/√(mean(x²)+eps) of each row; sums is [chunks, d].
  void (*rms_norm)(const Tensor& x, const float* w, double eps, const Tensor& out, float* rstd);
  void (*rms_norm_gradients)(const Tensor& g, const Tensor& x, const float* w, const float* rstd, const Tensor& dx,
                             const Tensor& sums, int64_t chunks);
  // x and out [B, H, S, D] with any strides but the last, cos and sin [B, 1, S, D]; backwards when sign is -1.
  void (*rotate)(const Tensor& x, const Tensor& cos, const Tensor& sin, float sign, const Tensor& out);
};

// The tables, and the functions that are written for each path by itself.
namespace avx512 {
extern const Kernels kTable;
decltype(gp::tile) tile_kernel;
decltype(gp::pack) pack_kernel;
}  // namespace avx512
namespace avx2 {
extern const Kernels kTable;
decltype(gp::tile) tile_kernel;
decltype(gp::pack) pack_kernel;
}  // namespace avx2

// kernels is the path that this process uses. Only where gp_fusable says yes is there one.
const Kernels& kernels();

}  // namespace gp
