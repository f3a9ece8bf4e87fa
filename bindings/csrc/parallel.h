// How threads divide the work of the CPU kernels.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace gp {

// each runs fn(0) to fn(n-1) on all threads; a thread that is free takes the next.
template <class F>
void each(int64_t n, F fn) {
  const int64_t threads = std::min<int64_t>(n, at::get_num_threads());
  std::atomic<int64_t> next{0};
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t i; (i = next.fetch_add(1)) < n;) fn(i);
  });
}

constexpr int64_t kLeastElements = 16384;  // that are worth a thread

// ranges splits n elements or rows among the threads, at least `least` to a thread, and runs fn(begin, end).
template <class F>
void ranges(int64_t n, int64_t least, F fn) {
  at::parallel_for(0, n, least, [&](int64_t begin, int64_t end) { fn(begin, end); });
}

}  // namespace gp
