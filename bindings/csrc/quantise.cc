// Rounding matrices to bitsandbytes' formats, bit for bit as it does so on the CPU.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "boundary.h"
#include "quant.h"
#include "quant_tables.h"
#include "quantised.h"

#pragma GCC optimize("fp-contract=off")

namespace gp {
namespace {

using at::Tensor;

constexpr int64_t kBlock = 64, kNestedBlock = 256;
constexpr int64_t kWeightsAtOnce = 4 << 20;  // that are held in fp32

// Nearest finds the code nearest to a value: it counts the bounds that the value reaches.
struct Nearest {
  std::array<float, 15> bounds;
  std::array<uint8_t, 16> codes;  // in the order of their values
};

// nearest_of finds the least value that is nearer to a code than to the one below it. Distances are rounded, and of two
// equal ones that of the lower code counts, so bounds are not midpoints.
Nearest nearest_of(const float values[16]) {
  std::array<int, 16> order;
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return values[a] < values[b]; });
  Nearest n{};
  n.bounds.fill(std::numeric_limits<float>::infinity());
  int count = 0;
  for (int code : order) {
    if (count > 0) {
      const int below = n.codes[static_cast<size_t>(count - 1)];
      if (values[code] == values[below]) continue;
      const auto nearer = [&](float v) {
        const float down = std::fabs(v - values[below]), up = std::fabs(v - values[code]);
        return up < down || (up == down && code < below);
      };
      float bound = values[below];
      for (float step = values[code] - values[below]; bound + step / 2 > bound; step /= 2)
        if (!nearer(bound + step / 2)) bound += step / 2;
      while (!nearer(bound)) bound = std::nextafter(bound, 2.f);
      n.bounds[static_cast<size_t>(count - 1)] = bound;
    }
    n.codes[static_cast<size_t>(count++)] = static_cast<uint8_t>(code);
  }
  return n;
}

float largest(const float* v, int64_t n) {
  float top = 0;
  for (int64_t i = 0; i < n; i++) top = std::max(top, std::fabs(v[i]));
  return top;
}

// round_block rounds 64 weights and returns their scale.
float round_block(const Nearest& nearest, const float* v, uint8_t* out) {
  const float top = largest(v, kBlock), inverse = 1 / top;
  float s[kBlock];
  int reached[kBlock] = {};
  for (int64_t i = 0; i < kBlock; i++) s[i] = std::min(1.f, std::max(-1.f, v[i] * inverse));
  for (float bound : nearest.bounds)
    for (int64_t i = 0; i < kBlock; i++) reached[i] += s[i] >= bound;
  // The inverse of 0 is infinite, and 0 times it no number: that is code 0.
  const auto code = [&](int64_t i) {
    return std::isnan(v[i] * inverse) ? 0 : nearest.codes[static_cast<size_t>(reached[i])];
  };
  for (int64_t i = 0; i < kBlock; i += 2) out[i / 2] = static_cast<uint8_t>(code(i) << 4 | code(i + 1));
  return top;
}

// by_rows calls fn(first row, rows in fp32 on the CPU, how many) for some rows of w at a time.
template <class F>
void by_rows(const Tensor& w, const F& fn) {
  const int64_t rows = w.size(0), step = std::max<int64_t>(1, kWeightsAtOnce / std::max<int64_t>(1, w.size(1)));
  for (int64_t r = 0; r < rows; r += step) {
    const int64_t n = std::min(step, rows - r);
    const Tensor part = w.narrow(0, r, n).to(at::kCPU, at::kFloat).contiguous();
    TORCH_CHECK(at::isfinite(part.sum()).item<bool>() || at::isfinite(part).all().item<bool>(),
                "the matrix has elements that are not finite");
    fn(r, part.const_data_ptr<float>(), n);
  }
}

void round_to_table(const Tensor& w, const Nearest& nearest, const Tensor& codes, const Tensor& scales) {
  const int64_t cols = w.size(1);
  by_rows(w, [&](int64_t row, const float* v, int64_t n) {
    const int64_t first = row * cols / kBlock;
    auto* out = codes.mutable_data_ptr<uint8_t>() + first * kBlock / 2;
    float* scale = scales.mutable_data_ptr<float>() + first;
    at::parallel_for(0, n * cols / kBlock, 256, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; b++) scale[b] = round_block(nearest, v + b * kBlock, out + b * kBlock / 2);
    });
  });
}

struct Nested {
  Tensor codes, scales, map;
  double offset;
};

// nest rounds scales to 8 bits, less their mean.
Nested nest(const Tensor& scales) {
  Nested n;
  const Tensor mean = scales.mean();
  n.offset = scales.numel() == 0 ? 0 : mean.item<double>();
  const Tensor rest = scales - mean;
  const int64_t count = scales.numel(), blocks = (count + kNestedBlock - 1) / kNestedBlock;
  n.codes = at::empty({count}, at::kByte);
  n.scales = at::empty({blocks}, at::kFloat);
  n.map = at::empty({256}, at::kFloat);
  float* map = n.map.mutable_data_ptr<float>();
  fill_nested_map(map);
  const float* v = rest.const_data_ptr<float>();
  auto* out = n.codes.mutable_data_ptr<uint8_t>();
  for (int64_t b = 0; b < blocks; b++) {
    const int64_t first = b * kNestedBlock, end = std::min(count, first + kNestedBlock);
    const float top = largest(v + first, end - first), inverse = 1 / top;
    n.scales.mutable_data_ptr<float>()[b] = top;
    for (int64_t i = first; i < end; i++) {
      const float s = v[i] * inverse;
      auto at = std::isnan(s) ? 0 : std::max<int64_t>(0, std::upper_bound(map, map + 256, s) - map - 1);
      if (at < 255 && std::fabs(s - map[at + 1]) < std::fabs(s - map[at])) at++;
      out[i] = static_cast<uint8_t>(at);
    }
  }
  return n;
}

void round_rows(const Tensor& w, const Tensor& codes, const Tensor& scales) {
  const int64_t cols = w.size(1);
  by_rows(w, [&](int64_t row, const float* v, int64_t n) {
    at::parallel_for(0, n, 16, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        const float top = largest(v + r * cols, cols), inverse = 1 / top;
        const float factor = std::isfinite(inverse) ? inverse * 127 : 0;
        scales.mutable_data_ptr<float>()[row + r] = top;
        auto* out = codes.mutable_data_ptr<int8_t>() + (row + r) * cols;
        for (int64_t i = 0; i < cols; i++) out[i] = static_cast<int8_t>(std::nearbyint(v[r * cols + i] * factor));
      }
    });
  });
}

}  // namespace
}  // namespace gp

char* gp_quantise(gp_tensor* outs, double* offset, gp_tensor wt, int kind, gp_bool nested) {
  return gp::guarded([&] {
    const c10::NoGradGuard no_grad;
    const at::Tensor& w = gp::T(wt);
    TORCH_CHECK(w.dim() == 2 && w.is_floating_point(), "expected a matrix of floating-point numbers");
    const int64_t rows = w.size(0), cols = w.size(1);
    at::Tensor codes, scales;
    gp::Nested more{};
    if (kind == gp::kInt8Rows) {
      codes = at::empty({rows, cols}, at::kChar);
      scales = at::empty({rows}, at::kFloat);
      gp::round_rows(w, codes, scales);
    } else {
      TORCH_CHECK(kind == gp::kNF4 || kind == gp::kFP4, "matrices are not rounded to this kind");
      TORCH_CHECK(cols % gp::kBlock == 0, "the width is not a multiple of ", gp::kBlock);
      codes = at::empty({rows * cols / 2}, at::kByte);
      scales = at::empty({rows * cols / gp::kBlock}, at::kFloat);
      gp::round_to_table(w, gp::nearest_of(kind == gp::kFP4 ? gp::kRoundedFP4 : gp::kTables[kind]), codes, scales);
      if (nested) more = gp::nest(scales);
    }
    *offset = more.offset;
    outs[0] = gp::box(codes.to(w.device()));
    outs[1] = gp::box((more.codes.defined() ? more.codes : scales).to(w.device()));
    outs[2] = more.scales.defined() ? gp::box(more.scales.to(w.device())) : nullptr;
    outs[3] = more.map.defined() ? gp::box(more.map.to(w.device())) : nullptr;
  });
}
