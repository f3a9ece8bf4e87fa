// Cross-entropy of one row of logits.
#pragma once
#include <cmath>
#include <limits>

#include "vec.h"

namespace gp::GP_PATH {
namespace {

constexpr int kLanes = 4;  // vectors in flight: the sums of a long row stay exact, and do not wait for each other

inline float largest(const float* row, int64_t n) {
  const F16 none = all(-std::numeric_limits<float>::infinity());
  F16 highest[kLanes] = {none, none, none, none};
  for (int64_t j = 0; j < n; j += 16 * kLanes)
    for (int i = 0; i < kLanes; i++) {
      const int64_t at = j + 16 * i;
      const Tail there = first16(n - at);
      highest[i] = max16(highest[i], choose(there, load16(row + at, there), none));
    }
  return largest_of(max16(max16(highest[0], highest[1]), max16(highest[2], highest[3])));
}

// exponentials_of_row is Σ e^(row - most); with Keep the row becomes the terms.
template <bool Keep>
float exponentials_of_row(float* row, int64_t n, float most) {
  const F16 m = all(most);
  F16 sum[kLanes] = {all(0.f), all(0.f), all(0.f), all(0.f)};
  for (int64_t j = 0; j < n; j += 16 * kLanes)
    for (int i = 0; i < kLanes; i++) {
      const int64_t at = j + 16 * i;
      const Tail there = first16(n - at);
      const F16 e = only(there, exp16(load16(row + at, there) - m));
      if constexpr (Keep) store16(row + at, there, e);
      sum[i] = sum[i] + e;
    }
  return sum_of((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

inline void scale(float* row, int64_t n, float by) {
  const F16 f = all(by);
  for (int64_t j = 0; j < n; j += 16) {
    const Tail there = first16(n - j);
    store16(row + j, there, load16(row + j, there) * f);
  }
}

}  // namespace

float row_loss(float* row, int64_t n, int64_t target, bool need_grad) {
  const float most = largest(row, n), at_target = row[target];
  const float sum = need_grad ? exponentials_of_row<true>(row, n, most) : exponentials_of_row<false>(row, n, most);
  if (need_grad) {
    scale(row, n, 1 / sum);
    row[target] -= 1;
  }
  return std::log(sum) + most - at_target;
}

}  // namespace gp::GP_PATH
