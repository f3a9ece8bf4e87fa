// Rotary position embeddings.
#pragma once
#include "kernel_table.h"
#include "vec.h"

namespace gp::GP_PATH {
namespace {

// rotate_head turns the pairs (x[j], x[j+half]) of one position of one head by the angles of cos and sin, backwards
// when sign is -1.
template <class X>
void rotate_head(const X* from, X* to, const float* cos, const float* sin, int64_t half, float sign) {
  for (int64_t j = 0; j < half; j += 16) {
    const Tail m = first16(half - j);
    const F16 x1 = load16(from + j, m), x2 = load16(from + half + j, m), turn = all(sign);
    const F16 s1 = load16(sin + j, m) * turn, s2 = load16(sin + half + j, m) * turn;
    // Forward the first half takes sin of its own index; backward, transposed, that of the other half.
    const F16 a = sign > 0 ? s1 : s2, z = sign > 0 ? s2 : s1;
    store16(to + j, m, fnma(x2, a, x1 * load16(cos + j, m)));
    store16(to + half + j, m, fma(x1, z, x2 * load16(cos + half + j, m)));
  }
}

}  // namespace

void rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, float sign, const Tensor& out) {
  const int64_t b = x.size(0), h = x.size(1), s = x.size(2), half = x.size(3) / 2;
  const auto at = [](const Tensor& t, int64_t bi, int64_t hi, int64_t si) {
    return bi * t.stride(0) + hi * t.stride(1) + si * t.stride(2);
  };
  typed(
      [&](auto* px) {
        auto* po = static_cast<decltype(px)>(out.mutable_data_ptr());
        ranges(b * s, std::max<int64_t>(1, kLeastElements / (h * 2 * half)), [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; i++) {
            const int64_t bi = i / s, si = i % s;
            const float* pc = cos.const_data_ptr<float>() + at(cos, bi, 0, si);
            const float* ps = sin.const_data_ptr<float>() + at(sin, bi, 0, si);
            for (int64_t k = 0; k < h; k++)
              rotate_head(px + at(x, bi, k, si), po + at(out, bi, k, si), pc, ps, half, sign);
          }
        });
      },
      x);
}

}  // namespace gp::GP_PATH
