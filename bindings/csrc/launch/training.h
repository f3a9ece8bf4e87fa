// Launches of the kernels for training steps. Tensors are contiguous and all of one element type, which the queue's
// kernels are for; element_size is its bytes.
#pragma once
#include "launch.h"

namespace gp::launch {

inline int pack(int element_size) { return 16 / element_size; }

// y = x/√(mean(x²)+eps)·w for x [rows, d]; rstd [rows] or null takes what x was multiplied by.
inline void rms_norm(Queue& q, int element_size, const void* x, const void* w, void* y, float* rstd, int64_t rows,
                     int64_t d, double eps) {
  run(q, "rms_norm", rows, 1, threads_for(d / pack(element_size)), x, w, y, rstd, static_cast<int>(d),
      static_cast<float>(eps));
}

inline void rms_norm_backward(Queue& q, int element_size, const void* g, const void* x, const void* w,
                              const float* rstd, void* dx, int64_t rows, int64_t d) {
  run(q, "rms_norm_backward", rows, 1, threads_for(d / pack(element_size)), g, x, w, rstd, dx, static_cast<int>(d));
}

// weight_parts is how many rows of sums rms_norm_weight gives.
constexpr int64_t kMostWeightParts = 256, kLeastWeightRows = 16;
inline int64_t weight_rows(int64_t rows) { return std::max(kLeastWeightRows, divided(rows, kMostWeightParts)); }
inline int64_t weight_parts(int64_t rows) { return divided(rows, weight_rows(rows)); }

// parts [weight_parts(rows), d] add up to the gradient of w.
inline void rms_norm_weight(Queue& q, const void* g, const void* x, const float* rstd, float* parts, int64_t rows,
                            int64_t d) {
  const int threads = 64;
  run(q, "rms_norm_weight", divided(d, threads), weight_parts(rows), threads, g, x, rstd, parts,
      static_cast<long long>(rows), static_cast<int>(d), static_cast<int>(weight_rows(rows)));
}

// y = silu(gate)·up, n elements each; y may be gate or up.
inline void swiglu(Queue& q, int element_size, const void* gate, const void* up, void* y, int64_t n) {
  run(q, "swiglu", blocks_for(divided(n, pack(element_size))), 1, kThreads, gate, up, y, static_cast<long long>(n));
}

inline void swiglu_backward(Queue& q, int element_size, const void* g, const void* gate, const void* up, void* dgate,
                            void* dup, int64_t n) {
  run(q, "swiglu_backward", blocks_for(divided(n, pack(element_size))), 1, kThreads, g, gate, up, dgate, dup,
      static_cast<long long>(n));
}

// Turns the heads of x, and of k unless it has none, by angles, or back by them where transposed.
inline void rotate(Queue& q, const Heads& x, const Heads& k, const Angles& angles, int64_t batch, int64_t positions,
                   int64_t half, bool transposed) {
  if (half == 0) return;
  run(q, "rotate", batch * positions, 1, threads_for(std::max(x.heads, k.heads) * half / 4), x, k, angles,
      static_cast<long long>(positions), static_cast<int>(half), static_cast<int>(transposed));
}

// losses [rows] of logits [rows, vocab] and targets [rows]; with gradient the logits become theirs.
inline void cross_entropy(Queue& q, void* logits, const int64_t* targets, float* losses, int64_t rows, int64_t vocab,
                          bool gradient) {
  const int threads = 512;  // rows are long and there may be few of them
  run(q, "cross_entropy", rows, 1, threads, logits, targets, losses, static_cast<int>(vocab),
      static_cast<int>(gradient));
}

// out [rows, cols] = y + scale·h·upᵀ for h [rows, rank] and up [cols, rank] in fp32; out may be y.
inline void add_low_rank(Queue& q, int element_size, const void* y, const float* h, const float* up, void* out,
                         int64_t rows, int64_t cols, int64_t rank, double scale) {
  run(q, "add_low_rank", divided(rows, 64), divided(cols, 16 * pack(element_size)), 256, y, h, up, out,
      static_cast<long long>(rows), static_cast<long long>(cols), static_cast<int>(rank), static_cast<float>(scale));
}

}  // namespace gp::launch
