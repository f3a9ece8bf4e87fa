// Launches of the kernels for quantised matrices.
#pragma once
#include "launch.h"

namespace gp::launch {

constexpr const char* kDequantise[] = {"dequantise_nf4", "dequantise_fp4", "dequantise_int8_rows", "dequantise_q4_0",
                                       "dequantise_q4_k"};
constexpr const char* kMultiply[] = {"multiply_nf4", "multiply_fp4", "multiply_int8_rows", "multiply_q4_0",
                                     "multiply_q4_k"};

// Rows of x that multiply takes, and what the width of its matrix is a multiple of.
constexpr int64_t kFewRows = 4, kMultiplyWidth = 8;

// y [rows, cols] is m's weights, each rounded once.
inline void dequantise(Queue& q, Format f, const QuantMatrix& m, void* y) {
  run(q, kDequantise[f], blocks_for(divided(m.rows * m.cols, 8)), 1, kThreads, m, y);
}

// y [few, rows] = x·mᵀ for x [few, cols], few at most kFewRows.
inline void multiply(Queue& q, Format f, const QuantMatrix& m, const void* x, void* y, int64_t few) {
  if (few == 0) return;
  const int threads = 128;
  run(q, kMultiply[f], divided(m.rows, threads / 32), 1, threads, m, x, y, static_cast<int>(few));
}

}  // namespace gp::launch
