#include "softmax_loss.h"

#include <cmath>
#include <limits>

#include "vec.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

namespace gp {
namespace {

constexpr int kLanes = 4;  // vectors in flight: the sums of a long row stay exact, and do not wait for each other

float largest(const float* row, int64_t n) {
  const __m512 none = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  __m512 most[kLanes] = {none, none, none, none};
  for (int64_t j = 0; j < n; j += 16 * kLanes)
    for (int i = 0; i < kLanes; i++) {
      const int64_t at = j + 16 * i;
      most[i] = _mm512_max_ps(most[i], _mm512_mask_loadu_ps(none, first16(n - at), row + at));
    }
  return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(most[0], most[1]), _mm512_max_ps(most[2], most[3])));
}

// exponentials is Σ e^(row - most); with Keep the row becomes the terms.
template <bool Keep>
float exponentials(float* row, int64_t n, float most) {
  const __m512 m = _mm512_set1_ps(most);
  __m512 sum[kLanes] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
  for (int64_t j = 0; j < n; j += 16 * kLanes)
    for (int i = 0; i < kLanes; i++) {
      const int64_t at = j + 16 * i;
      const __mmask16 there = first16(n - at);
      const __m512 e = _mm512_maskz_mov_ps(there, exp16(_mm512_sub_ps(_mm512_maskz_loadu_ps(there, row + at), m)));
      if constexpr (Keep) _mm512_mask_storeu_ps(row + at, there, e);
      sum[i] = _mm512_add_ps(sum[i], e);
    }
  return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
}

void scale(float* row, int64_t n, float by) {
  const __m512 f = _mm512_set1_ps(by);
  for (int64_t j = 0; j < n; j += 16) {
    const __mmask16 there = first16(n - j);
    _mm512_mask_storeu_ps(row + j, there, _mm512_mul_ps(_mm512_maskz_loadu_ps(there, row + j), f));
  }
}

float row_loss(float* row, int64_t n, int64_t target, bool need_grad) {
  const float most = largest(row, n), at_target = row[target];
  const float sum = need_grad ? exponentials<true>(row, n, most) : exponentials<false>(row, n, most);
  if (need_grad) {
    scale(row, n, 1 / sum);
    row[target] -= 1;
  }
  return std::log(sum) + most - at_target;
}

}  // namespace

at::Tensor softmax_loss(at::Tensor& logits, const at::Tensor& targets, bool need_grad) {
  const int64_t n = logits.size(0), vocab = logits.size(1);
  const at::Tensor wanted = targets.contiguous();
  TORCH_CHECK(n == 0 || (wanted.min().item<int64_t>() >= 0 && wanted.max().item<int64_t>() < vocab),
              "a target is no row of the head");
  at::Tensor losses = at::empty({n}, at::TensorOptions().dtype(at::kFloat));
  auto* p = logits.mutable_data_ptr<float>();
  const auto* target = wanted.const_data_ptr<int64_t>();
  auto* loss = losses.mutable_data_ptr<float>();
  each(n, [&](int64_t i) { loss[i] = row_loss(p + i * vocab, vocab, target[i], need_grad); });
  return losses.sum();
}

}  // namespace gp
