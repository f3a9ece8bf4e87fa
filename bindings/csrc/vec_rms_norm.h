// RMS norm, row by row.
#pragma once
#include <cmath>
#include <type_traits>

#include "kernel_table.h"
#include "parallel.h"
#include "typed.h"
#include "vec.h"

namespace gp::GP_PATH {
namespace {

// rms_normalise computes one row of d elements and returns 1/√(mean(x²)+eps).
template <class X, class O>
float rms_normalise(const X* x, const float* w, O* out, int64_t d, double eps) {
  F16 s = all(0.f);
  for (int64_t j = 0; j < d; j += 16) {
    const F16 v = load16(x + j, first16(d - j));
    s = fma(v, v, s);
  }
  const float inv = static_cast<float>(1 / std::sqrt(sum_of(s) / static_cast<float>(d) + eps));
  for (int64_t j = 0; j < d; j += 16) {
    const Tail m = first16(d - j);
    F16 v = load16(x + j, m) * all(inv);
    // The normalised value is rounded to x's type before the weight comes in, as in LLaMA.
    if constexpr (std::is_same_v<X, c10::BFloat16>) v = as_bf16(v);
    store16(out + j, m, v * load16(w + j, m));
  }
  return inv;
}

// rms_gradients_of_row adds to dw and writes dx, unless they are null.
template <class G, class X>
void rms_gradients_of_row(const G* g, const X* x, const float* w, float rstd, X* dx, float* dw, int64_t d) {
  const F16 inv = all(rstd);
  F16 s = all(0.f);
  for (int64_t j = 0; j < d; j += 16) {
    const Tail m = first16(d - j);
    const F16 gy = load16(g + j, m), h = load16(x + j, m) * inv;
    s = fma(gy * load16(w + j, m), h, s);
    if (dw) store16(dw + j, m, fma(gy, h, load16(dw + j, m)));
  }
  if (!dx) return;
  const F16 mean = all(sum_of(s) / static_cast<float>(d));
  for (int64_t j = 0; j < d; j += 16) {
    const Tail m = first16(d - j);
    const F16 h = load16(x + j, m) * inv;
    const F16 gw = load16(g + j, m) * load16(w + j, m);
    store16(dx + j, m, fnma(h, mean, gw) * inv);
  }
}

}  // namespace

void rms_norm(const Tensor& x, const float* w, double eps, const Tensor& out, float* rstd) {
  const int64_t d = x.size(-1), n = d ? x.numel() / d : 0;
  typed(
      [&](const auto* px, auto* po) {
        ranges(n, std::max<int64_t>(1, kLeastElements / d), [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; i++) {
            const float inv = rms_normalise(px + i * d, w, po + i * d, d, eps);
            if (rstd) rstd[i] = inv;
          }
        });
      },
      x, out);
}

void rms_norm_gradients(const Tensor& g, const Tensor& x, const float* w, const float* rstd, const Tensor& dx,
                        const Tensor& sums, int64_t chunks) {
  const int64_t d = x.size(-1), n = d ? x.numel() / d : 0;
  typed(
      [&](const auto* pg, auto* px) {
        using X = std::remove_pointer_t<decltype(px)>;
        X* pd = dx.defined() ? static_cast<X*>(dx.mutable_data_ptr()) : nullptr;
        each(chunks, [&](int64_t c) {
          float* dw = sums.defined() ? sums.mutable_data_ptr<float>() + c * d : nullptr;
          for (int64_t i = n * c / chunks; i < n * (c + 1) / chunks; i++)
            rms_gradients_of_row(pg + i * d, px + i * d, w, rstd[i], pd ? pd + i * d : nullptr, dw, d);
        });
      },
      g, x);
}

}  // namespace gp::GP_PATH
