// Quantised matrices on a GPU by compiled kernels.
#include <optional>

#include "gpu_quantised.h"
#include "quant.h"

namespace gp {
namespace {

std::optional<Format> format_of(QuantKind kind) {
  switch (kind) {
    case kNF4: return ::kNF4;
    case kFP4: return ::kFP4;
    case kInt8Rows: return ::kInt8Rows;
    case kQ4_0: return ::kQ4_0;
    case kQ4_K: return ::kQ4_K;
    default: return {};
  }
}

std::optional<GPUMatrix> on_gpu(const Quantised& q, at::ScalarType d) {
  const auto format = format_of(q.kind);
  if (!format) return {};
  GPUMatrix m{*format, q.rows,   q.cols,          q.block,     q.nested_block, static_cast<float>(q.offset),
              q.codes, q.scales, q.nested_scales, q.nested_map};
  if (!gpu_serves(m, d)) return {};
  return m;
}

}  // namespace

at::Tensor dequantise_compiled(const Quantised& q, at::ScalarType d) {
  const auto m = on_gpu(q, d);
  return m ? gpu_dequantised(*m, d) : at::Tensor();
}

at::Tensor multiply_compiled(const at::Tensor& x, const Quantised& q) {
  const auto m = on_gpu(q, x.scalar_type());
  return m && gpu_multiplies(*m, x.numel() / std::max<int64_t>(1, q.cols)) ? gpu_multiply(x.contiguous(), *m)
                                                                           : at::Tensor();
}

}  // namespace gp
