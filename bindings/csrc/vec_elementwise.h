// Operations of one pass over the elements of tensors of one shape: GELU, SwiGLU and dropout.
#pragma once
#include "kernel_table.h"
#include "parallel.h"
#include "typed.h"
#include "vec.h"

namespace gp::GP_PATH {
namespace {

// blocks_of_16 runs fn(i, m) for every 16th element i of n on all threads, m being the lanes that exist. In blocks of
// 16 the dropout masks are aligned the same however the threads share the work.
template <class F>
void blocks_of_16(int64_t n, F fn) {
  ranges((n + 15) / 16, kLeastElements / 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * 16; i < end * 16; i += 16) fn(i, first16(n - i));
  });
}

// map is out[i] = f(i, a[i], b[i]) over contiguous tensors, 16 elements at a time.
template <class F>
void map(const Tensor& a, const Tensor& b, const Tensor& out, F f) {
  typed(
      [&](const auto* pa, const auto* pb, auto* po) {
        blocks_of_16(out.numel(),
                     [&](int64_t i, Tail m) { store16(po + i, m, f(i, load16(pa + i, m), load16(pb + i, m))); });
      },
      a, b, out);
}

// gauss gives Φ(x), and e^(-x²/2): Abramowitz and Stegun 7.1.26, within 1e-7.
GP_INLINE F16 gauss(F16 x, F16* e) {
  const F16 one = all(1.f), a = magnitude(x);
  const F16 t = one / fma(a, all(0.3275911f * 0.70710678f), one);
  *e = exp16(x * x * all(-0.5f));
  F16 y = all(1.061405429f);
  y = fma(y, t, all(-1.453152027f));
  y = fma(y, t, all(1.421413741f));
  y = fma(y, t, all(-0.284496736f));
  y = fma(y, t, all(0.254829592f));
  const F16 tail = y * t * (*e * all(0.5f));
  return difference_where(not_negative(x), one, tail, tail);
}

GP_INLINE F16 sigmoid(F16 v) {
  const F16 one = all(1.f);
  return one / (one + exp16(all(0.f) - v));
}

}  // namespace

void gelu(const Tensor& x, const Tensor& out) {
  map(x, x, out, [&](int64_t, F16 v, F16) {
    F16 e;
    return v * gauss(v, &e);
  });
}

void gelu_gradient(const Tensor& x, const Tensor& g, const Tensor& dx) {
  map(x, g, dx, [&](int64_t, F16 v, F16 gy) {
    F16 e;
    const F16 phi = gauss(v, &e);
    return gy * fma(v * all(0.39894228f), e, phi);
  });
}

void swiglu(const Tensor& gate, const Tensor& up, const Tensor& out) {
  map(gate, up, out, [&](int64_t, F16 v, F16 u) { return v * sigmoid(v) * u; });
}

void swiglu_gradient(const Tensor& gate, const Tensor& up, const Tensor& g, const Tensor& dgate, const Tensor& dup) {
  typed(
      [&](const auto* pg, auto* pa, auto* pu) {
        auto* da = static_cast<decltype(pa)>(dgate.mutable_data_ptr());
        auto* du = static_cast<decltype(pu)>(dup.mutable_data_ptr());
        blocks_of_16(g.numel(), [&](int64_t i, Tail m) {
          const F16 v = load16(pa + i, m), u = load16(pu + i, m), gy = load16(pg + i, m);
          const F16 s = sigmoid(v), silu = v * s;
          store16(du + i, m, gy * silu);
          // silu' = s + silu·(1-s)
          const F16 slope = fma(silu, all(1.f) - s, s);
          store16(da + i, m, gy * u * slope);
        });
      },
      g, gate, up);
}

void dropout(const Tensor& x, const Dropout& d, const Tensor& out) {
  map(x, x, out, [&](int64_t i, F16 v, F16) { return dropped(d, static_cast<uint64_t>(i), v); });
}

}  // namespace gp::GP_PATH
