// The inner kernels of a product: one tile of the result, in registers.
#include "kernel_table.h"
#include "vec_avx512.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,f16c")

namespace gp::avx512 {
namespace {

template <bool Bf16>
inline __m512 multiply_add(__m512 acc, __m512i a, __m512i b) {
  if constexpr (Bf16) return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
  return _mm512_fmadd_ps((__m512)a, (__m512)b, acc);
}

inline void put(const Tile& t, int64_t i, int64_t j, __mmask16 m, __m512 v) {
  if (t.bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(m, t.bias + j));
  if (t.bf16) {
    _mm256_mask_storeu_epi16(static_cast<uint16_t*>(t.c) + i * t.ldc + j, m, (__m256i)_mm512_cvtneps_pbh(v));
    return;
  }
  float* c = static_cast<float*>(t.c) + i * t.ldc + j;
  if (t.add) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(m, c));
  _mm512_mask_storeu_ps(c, m, v);
}

template <bool Bf16, int M>
void tile_of(int64_t kw, const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb, const Tile& t) {
  __m512 acc[M][2];
#pragma GCC unroll 16
  for (int i = 0; i < M; i++) acc[i][0] = acc[i][1] = _mm512_setzero_ps();
  for (int64_t k = 0; k < kw; k++) {
    const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 16);
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) {
      const __m512i ai = _mm512_set1_epi32(static_cast<int>(a[i]));
      acc[i][0] = multiply_add<Bf16>(acc[i][0], ai, b0);
      acc[i][1] = multiply_add<Bf16>(acc[i][1], ai, b1);
    }
    a += lda;
    b += ldb;
  }
  const __mmask16 m0 = first16(t.cols), m1 = first16(t.cols - 16);
#pragma GCC unroll 16
  for (int i = 0; i < M; i++) {
    put(t, i, 0, m0, acc[i][0]);
    if (m1) put(t, i, 16, m1, acc[i][1]);
  }
}

using TileKernel = void (*)(int64_t, const uint32_t*, int64_t, const uint32_t*, int64_t, const Tile&);

template <bool Bf16>
constexpr TileKernel kKernels[kTileM + 1] = {nullptr,          tile_of<Bf16, 1>, tile_of<Bf16, 2>,  tile_of<Bf16, 3>,
                                             tile_of<Bf16, 4>, tile_of<Bf16, 5>, tile_of<Bf16, 6>,  tile_of<Bf16, 7>,
                                             tile_of<Bf16, 8>, tile_of<Bf16, 9>, tile_of<Bf16, 10>, tile_of<Bf16, 11>,
                                             tile_of<Bf16, 12>};

}  // namespace

void tile_kernel(bool bf16, int rows, int64_t kw, const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb,
                 const Tile& t) {
  (bf16 ? kKernels<true> : kKernels<false>)[rows](kw, a, lda, b, ldb, t);
}

}  // namespace gp::avx512
