// One pass over the elements of tensors of one shape.
#pragma once
#include "fused.h"
#include "vec.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

namespace gp {

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
                     [&](int64_t i, __mmask16 m) { store16(po + i, m, f(i, load16(pa + i, m), load16(pb + i, m))); });
      },
      a, b, out);
}

}  // namespace gp

#pragma GCC pop_options
