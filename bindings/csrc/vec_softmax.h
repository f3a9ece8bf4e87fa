// The vector parts of cross-entropy over many classes: a row of logits stays in the cache for all its passes.
#pragma once
#include "kernel_table.h"
#include "vec.h"

namespace gp::GP_PATH {
namespace {

constexpr int kInFlight = 4;  // vectors: the sums of a long row stay exact, and do not wait for each other

float largest_logit(const float* row, int64_t n) {
  float most = -std::numeric_limits<float>::infinity();
  F16 v[kInFlight];
  for (F16& lane : v) lane = all(most);
  int64_t j = 0;
  for (; j + 16 * kInFlight <= n; j += 16 * kInFlight)
    for (int i = 0; i < kInFlight; i++) v[i] = max16(load16(row + j + 16 * i), v[i]);
  alignas(64) float lanes[16];
  store16(lanes, max16(max16(v[0], v[1]), max16(v[2], v[3])));
  for (const float lane : lanes) most = std::max(most, lane);
  for (; j < n; j++) most = std::max(most, row[j]);
  return most;
}

// row_exponentials is Σ e^(row - most); with Keep the row becomes the terms.
template <bool Keep>
float row_exponentials(float* row, int64_t n, float most) {
  F16 sum[kInFlight];
  for (F16& lane : sum) lane = all(0.f);
  for (int64_t j = 0; j < n; j += 16 * kInFlight)
    for (int i = 0; i < kInFlight; i++) {
      float* p = row + j + 16 * i;
      const Tail there = first16(n - j - 16 * i);
      const F16 e = only(there, exp16(load16(p, there) - all(most)));
      if constexpr (Keep) store16(p, there, e);
      sum[i] = sum[i] + e;
    }
  return sum_of((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// softmax_loss gives log Σ e^row - row[target]; with need_grad the row becomes its gradient: softmax(row), less 1 at
// the target.
float softmax_loss(float* row, int64_t n, int64_t target, bool need_grad) {
  const float most = largest_logit(row, n), at_target = row[target];
  const float sum = need_grad ? row_exponentials<true>(row, n, most) : row_exponentials<false>(row, n, most);
  if (need_grad) {
    const F16 factor = all(1 / sum);
    for (int64_t j = 0; j < n; j += 16) {
      const Tail there = first16(n - j);
      store16(row + j, there, load16(row + j, there) * factor);
    }
    row[target] -= 1;
  }
  return std::log(sum) + most - at_target;
}

}  // namespace
}  // namespace gp::GP_PATH
