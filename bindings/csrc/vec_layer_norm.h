// LayerNorm(dropout(x) + residual), row by row.
#pragma once
#include <cmath>
#include <type_traits>

#include "gemm.h"
#include "kernel_table.h"
#include "parallel.h"
#include "typed.h"
#include "vec.h"

namespace gp::GP_PATH {
namespace {

// normalise computes one row, whose first element has the given index in the tensor, and returns 1/σ. residual and
// hat, which takes the normalised values, may be null; h is memory for the row.
template <class X, class R, class O>
float normalise(const LayerNorm& p, const X* x, const R* residual, O* out, X* hat, float* h, int64_t index) {
  const int64_t d = p.d;
  F16 sum = all(0.f);
  for (int64_t j = 0; j < d; j += 16) {
    const Tail m = first16(d - j);
    F16 v = load16(x + j, m);
    if (p.drop.on()) v = dropped(p.drop, static_cast<uint64_t>(index + j), v);
    if (residual) v = v + load16(residual + j, m);
    store16(h + j, v);
    sum = sum_where(m, sum, v, sum);
  }
  const float mean = sum_of(sum) / static_cast<float>(d);
  const F16 mean16 = all(mean);
  F16 sq = all(0.f);
  for (int64_t j = 0; j < d; j += 16) {
    const F16 v = difference_where(first16(d - j), load16(h + j), mean16);
    sq = fma(v, v, sq);
    store16(h + j, v);
  }
  const float inv = static_cast<float>(1 / std::sqrt(sum_of(sq) / static_cast<float>(d) + p.eps));
  const F16 inv16 = all(inv);
  for (int64_t j = 0; j < d; j += 16) {
    const Tail m = first16(d - j);
    const F16 v = load16(h + j) * inv16;
    if (hat) store16(hat + j, m, v);
    store16(out + j, m, fma(v, load16(p.w + j, m), load16(p.b + j, m)));
  }
  return inv;
}

// layer_norm_gradients_of_row adds to dw and, d elements on, to the shift's gradient, unless dw is null, and writes the
// gradients of x and of the residual unless they are null.
template <class G, class X, class R>
void layer_norm_gradients_of_row(const LayerNorm& p, const G* g, const X* hat, float inv_std, X* dx, R* dres, float* dw,
                                 int64_t index) {
  const int64_t d = p.d;
  const float inv_d = 1.f / static_cast<float>(d);
  F16 s1 = all(0.f), s2 = all(0.f);
  for (int64_t j = 0; j < d; j += 16) {
    const Tail m = first16(d - j);
    const F16 gy = load16(g + j, m), h = load16(hat + j, m), gw = gy * load16(p.w + j, m);
    s1 = s1 + gw;
    s2 = fma(gw, h, s2);
    if (dw) {
      store16(dw + j, m, fma(gy, h, load16(dw + j, m)));
      store16(dw + d + j, m, gy + load16(dw + d + j, m));
    }
  }
  if (!dx && !dres) return;
  const F16 c1 = all(sum_of(s1) * inv_d);
  const F16 c2 = all(sum_of(s2) * inv_d);
  const F16 inv = all(inv_std);
  for (int64_t j = 0; j < d; j += 16) {
    const Tail m = first16(d - j);
    const F16 gw = load16(g + j, m) * load16(p.w + j, m);
    F16 v = gw - fma(load16(hat + j, m), c2, c1);
    v = v * inv;
    if (dres) store16(dres + j, m, v);
    if (!dx) continue;
    if (p.drop.on()) v = dropped(p.drop, static_cast<uint64_t>(index + j), v);
    store16(dx + j, m, v);
  }
}

}  // namespace

void layer_norm(const LayerNorm& p, const Tensor& x, const Tensor& residual, const Tensor& out, const Tensor& xhat,
                float* rstd) {
  const int64_t d = p.d, n = d ? x.numel() / d : 0;
  const bool added = residual.defined();
  typed(
      [&](auto* px, const auto* pres, auto* po) {
        using X = std::remove_pointer_t<decltype(px)>;
        X* ph = xhat.defined() ? static_cast<X*>(xhat.mutable_data_ptr()) : nullptr;
        ranges(n, std::max<int64_t>(1, kLeastElements / d), [&](int64_t begin, int64_t end) {
          auto* h = static_cast<float*>(scratch(2, (d + 16) * 4));
          for (int64_t i = begin; i < end; i++) {
            const int64_t at = i * d;
            const float inv =
                normalise(p, px + at, added ? pres + at : nullptr, po + at, ph ? ph + at : nullptr, h, at);
            if (rstd) rstd[i] = inv;
          }
        });
      },
      x, added ? residual : x, out);
}

void layer_norm_gradients(const LayerNorm& p, const Tensor& g, const Tensor& xhat, const float* rstd, const Tensor& dx,
                          const Tensor& dres, const Tensor& sums, int64_t chunks) {
  const int64_t d = p.d, n = d ? xhat.numel() / d : 0;
  typed(
      [&](const auto* pg, auto* ph, auto* pres) {
        using X = std::remove_pointer_t<decltype(ph)>;
        X* px = dx.defined() ? static_cast<X*>(dx.mutable_data_ptr()) : nullptr;
        each(chunks, [&](int64_t c) {
          float* dw = sums.defined() ? sums.mutable_data_ptr<float>() + c * 2 * d : nullptr;
          for (int64_t i = n * c / chunks; i < n * (c + 1) / chunks; i++) {
            const int64_t at = i * d;
            layer_norm_gradients_of_row(p, pg + at, ph + at, rstd[i], px ? px + at : nullptr,
                                        dres.defined() ? pres + at : nullptr, dw, at);
          }
        });
      },
      g, xhat, dres.defined() ? dres : xhat);
}

}  // namespace gp::GP_PATH
