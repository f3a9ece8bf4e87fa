#include "gpu_quantised.h"

#include "gpu_driver.h"
#include "launch/quantised.h"

namespace gp {
namespace {

using at::Tensor;

bool four_bit(const GPUMatrix& m) { return m.format == kNF4 || m.format == kFP4; }

// shift_of is the n of a 2^n of at least 8, -1 for another number.
int shift_of(int64_t n) {
  for (int shift = 3; shift < 32; shift++)
    if (int64_t{1} << shift == n) return shift;
  return -1;
}

// bytes_of is what the codes of a matrix take.
int64_t bytes_of(const GPUMatrix& m) {
  const int64_t n = m.rows * m.cols;
  switch (m.format) {
    case kInt8Rows: return n;
    case kQ4_0: return n / 32 * 18;
    case kQ4_K: return n / 256 * 144;
    default: return (n + 1) / 2;
  }
}

// part is the memory of one of m's tensors, which holds at least so many bytes.
const void* part(const GPUMatrix& m, const Tensor& t, int64_t bytes) {
  TORCH_CHECK(t.defined() && t.is_contiguous() && t.device() == m.codes.device(),
              "a part of the quantised matrix is missing, elsewhere or not contiguous");
  TORCH_CHECK(static_cast<int64_t>(t.nbytes()) >= bytes, "a part of the quantised matrix is too small");
  return t.const_data_ptr();
}

const float* floats(const GPUMatrix& m, const Tensor& t, int64_t n) {
  TORCH_CHECK(t.defined() && t.scalar_type() == at::kFloat, "scales of the quantised matrix are not fp32");
  return static_cast<const float*>(part(m, t, 4 * n));
}

// view is the matrix as kernels take it, with every part as large as they read.
QuantMatrix view(const GPUMatrix& m) {
  QuantMatrix v{};
  v.rows = m.rows;
  v.cols = m.cols;
  v.codes = static_cast<const unsigned char*>(part(m, m.codes, bytes_of(m)));
  if (m.format == kInt8Rows) v.plain = floats(m, m.scales, m.rows);
  if (!four_bit(m)) return v;
  const int64_t scales = launch::divided(m.rows * m.cols, m.block);
  v.shift = shift_of(m.block);
  if (m.nested_block == 0) {
    v.plain = floats(m, m.scales, scales);
    return v;
  }
  TORCH_CHECK(m.scales.defined() && m.scales.scalar_type() == at::kByte, "nested scales are not uint8");
  v.nested = static_cast<const unsigned char*>(part(m, m.scales, scales));
  v.map = floats(m, m.nested_map, 256);
  v.outer = floats(m, m.nested_scales, launch::divided(scales, m.nested_block));
  v.outer_shift = shift_of(m.nested_block);
  v.offset = m.offset;
  return v;
}

}  // namespace

bool gpu_serves(const GPUMatrix& m, at::ScalarType type) {
  if (!m.codes.defined() || !has_gpu_kernels(m.codes.device(), type)) return false;
  switch (m.format) {
    case kInt8Rows: return true;
    case kQ4_0: return m.cols % 32 == 0;
    case kQ4_K: return m.cols % 256 == 0;
    default: return shift_of(m.block) > 0 && (m.nested_block == 0 || shift_of(m.nested_block) > 0);
  }
}

Tensor gpu_dequantised(const GPUMatrix& m, at::ScalarType type) {
  Tensor out = at::empty({m.rows, m.cols}, m.codes.options().dtype(type));
  Stream stream(out);
  launch::dequantise(stream, m.format, view(m), out.mutable_data_ptr());
  return out;
}

bool gpu_multiplies(const GPUMatrix& m, int64_t x_rows) {
  return x_rows <= launch::kFewRows && m.cols % launch::kMultiplyWidth == 0;
}

Tensor gpu_multiply(const Tensor& x, const GPUMatrix& m) {
  TORCH_CHECK(x.size(-1) == m.cols && m.cols % launch::kMultiplyWidth == 0, "x's last dimension does not fit");
  TORCH_CHECK(x.device() == m.codes.device(), "x is on another device than the matrix");
  const Tensor rows = x.contiguous();
  const int64_t n = m.cols ? rows.numel() / m.cols : 0;
  auto sizes = rows.sizes().vec();
  sizes.back() = m.rows;
  Tensor out = at::empty(sizes, rows.options());
  const QuantMatrix matrix = view(m);
  const auto* from = static_cast<const char*>(rows.const_data_ptr());
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  Stream stream(rows);
  for (int64_t first = 0; first < n; first += launch::kFewRows)
    launch::multiply(stream, m.format, matrix, from + first * m.cols * rows.element_size(),
                     to + first * m.rows * rows.element_size(), std::min(launch::kFewRows, n - first));
  return out;
}

}  // namespace gp
