// The vector parts of linear maps beside products: few rows, and sums over rows.
#pragma once
#include "kernel_table.h"
#include "typed.h"
#include "vec.h"

namespace gp::GP_PATH {
namespace {

// dot is Σ x·w over k elements for one row of w and 1 to 4 rows of x, all in fp32.
template <int M>
void dot(const void* w, const uint32_t* x, int64_t ldx, int64_t k, float* out) {
  F16 acc[M][2];
  for (int i = 0; i < M; i++) acc[i][0] = acc[i][1] = all(0.f);
  const auto* p = static_cast<const float*>(w);
  for (int64_t j = 0, half = 0; j < k; j += 16, half ^= 1) {
    const F16 wv = load16(p + j, first16(k - j));
    for (int i = 0; i < M; i++) {
      const F16 xv = load16(reinterpret_cast<const float*>(x) + i * ldx + j);
      acc[i][half] = fma(wv, xv, acc[i][half]);
    }
  }
  for (int i = 0; i < M; i++) out[i] = sum_of(acc[i][0] + acc[i][1]);
}

#ifdef GP_BF16
// dot_bf16 is dot in bf16, two elements to a word.
template <int M>
void dot_bf16(const void* w, const uint32_t* x, int64_t ldx, int64_t k, float* out) {
  F16 acc[M][2];
  for (int i = 0; i < M; i++) acc[i][0] = acc[i][1] = all(0.f);
  const auto* p = static_cast<const char*>(w);
  for (int64_t j = 0, half = 0; j < k; j += 32, half ^= 1) {
    const __m512i wv = _mm512_maskz_loadu_epi16(first32(k - j), p + j * 2);
    for (int i = 0; i < M; i++) {
      const __m512i xv = _mm512_loadu_si512(x + i * ldx + j / 2);
      acc[i][half] = _mm512_dpbf16_ps(acc[i][half], (__m512bh)wv, (__m512bh)xv);
    }
  }
  for (int i = 0; i < M; i++) out[i] = sum_of(acc[i][0] + acc[i][1]);
}
#endif

// add_row adds n elements to sum.
template <class X>
void add_row(const X* row, int64_t n, float* sum) {
  for (int64_t j = 0; j < n; j += 16) {
    const Tail k = first16(n - j);
    store16(sum + j, k, load16(sum + j, k) + load16(row + j, k));
  }
}

}  // namespace

void add_rows(const Tensor& t, int64_t begin, int64_t end, float* sum) {
  typed(
      [&](const auto* p) {
        for (int64_t i = begin; i < end; i++) add_row(p + i * t.stride(0), t.size(1), sum);
      },
      t);
}

}  // namespace gp::GP_PATH
