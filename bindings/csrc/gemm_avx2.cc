// Packing and the inner kernels of a product for CPUs with AVX2, in fp32. Panels and tiles are as with AVX-512; a tile
// is computed in pieces of 6 by 16, which with their operands fill the 16 registers.
#include "kernel_table.h"
#include "vec_avx2.h"

#pragma GCC target("avx2,fma,f16c")

namespace gp::avx2 {
namespace {

// load8 loads n of 8 neighbours.
template <bool Bf16>
inline __m256 load8(const char* p, int64_t n) {
  if constexpr (Bf16) {
    if (n >= 8) return wide8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    alignas(16) char part[16] = {};
    std::memcpy(part, p, static_cast<size_t>(n) * 2);
    return wide8(_mm_load_si128(reinterpret_cast<const __m128i*>(part)));
  } else {
    const auto* f = reinterpret_cast<const float*>(p);
    return n >= 8 ? _mm256_loadu_ps(f) : _mm256_maskload_ps(f, Mask(first16(n)).lo);
  }
}

// store8 stores 8 columns of a panel, or the last 4.
inline void store8(float* p, int columns, __m256 v) {
  if (columns >= 8) _mm256_storeu_ps(p, v);
  else _mm_storeu_ps(p, _mm256_castps256_ps128(v));
}

// pack_along packs 8 columns of a panel, of which n exist, from rows that are contiguous in depth.
template <bool Bf16>
void pack_along(const char* base, int64_t row_bytes, int64_t n, int64_t k, int width, int columns, float* out) {
  for (int64_t w = 0; w < k; w += 8) {
    __m256 r[8];
    const char* p = base + w * (Bf16 ? 2 : 4);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) r[i] = i < n ? load8<Bf16>(p + i * row_bytes, k - w) : _mm256_setzero_ps();
    transpose8(r);
    const int64_t end = std::min<int64_t>(8, k - w);
    for (int64_t i = 0; i < end; i++) store8(out + (w + i) * width, columns, r[i]);
  }
}

// pack_across is pack_along where the elements of one depth are contiguous.
template <bool Bf16>
void pack_across(const char* base, int64_t depth_bytes, int64_t n, int64_t k, int width, int columns, float* out) {
  for (int64_t w = 0; w < k; w++) store8(out + w * width, columns, load8<Bf16>(base + w * depth_bytes, n));
}

template <bool Bf16>
void pack_typed(const Operand& o, int64_t i0, int64_t rows, int64_t k0, int64_t k, int width, float* out) {
  constexpr int64_t size = Bf16 ? 2 : 4;
  const char* base = static_cast<const char*>(o.p) + (i0 * o.row + k0 * o.depth) * size;
  for (int g = 0; g < width; g += 8) {
    const char* from = base + g * o.row * size;
    const int64_t n = std::clamp<int64_t>(rows - g, 0, 8);
    if (o.depth == 1) pack_along<Bf16>(from, o.row * size, n, k, width, width - g, out + g);
    else pack_across<Bf16>(from, o.depth * size, n, k, width, width - g, out + g);
  }
}

constexpr int kPieceM = 6, kPieceN = 16;

inline void put(const Tile& t, int64_t i, int64_t j, F16 v) {
  const Tail m = first16(t.cols - j);
  if (t.bias) v = v + load16(t.bias + j, m);
  if (t.bf16) return store16(static_cast<c10::BFloat16*>(t.c) + i * t.ldc + j, m, v);
  float* c = static_cast<float*>(t.c) + i * t.ldc + j;
  if (t.add) v = v + load16(c, m);
  store16(c, m, v);
}

// piece_of is M rows from row i on and 16 columns from column j on.
template <int M>
void piece_of(int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, const Tile& t, int64_t i,
              int64_t j) {
  __m256 acc[M][2];
#pragma GCC unroll 6
  for (int r = 0; r < M; r++) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
  a += i;
  b += j;
  for (; k > 0; k--, a += lda, b += ldb) {
    const __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
#pragma GCC unroll 6
    for (int r = 0; r < M; r++) {
      const __m256 x = _mm256_broadcast_ss(a + r);
      acc[r][0] = _mm256_fmadd_ps(x, b0, acc[r][0]);
      acc[r][1] = _mm256_fmadd_ps(x, b1, acc[r][1]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < M; r++) put(t, i + r, j, {acc[r][0], acc[r][1]});
}

using Piece = void (*)(int64_t, const float*, int64_t, const float*, int64_t, const Tile&, int64_t, int64_t);
constexpr Piece kPieces[kPieceM + 1] = {nullptr,     piece_of<1>, piece_of<2>, piece_of<3>,
                                        piece_of<4>, piece_of<5>, piece_of<6>};

}  // namespace

void pack_kernel(const Operand& o, int64_t i0, int64_t rows, int64_t k0, int64_t k, bool, int width, uint32_t* out) {
  auto* to = reinterpret_cast<float*>(out);
  o.bf16 ? pack_typed<true>(o, i0, rows, k0, k, width, to) : pack_typed<false>(o, i0, rows, k0, k, width, to);
}

void tile_kernel(bool, int rows, int64_t kw, const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb,
                 const Tile& t) {
  const auto *fa = reinterpret_cast<const float*>(a), *fb = reinterpret_cast<const float*>(b);
  for (int64_t j = 0; j < t.cols; j += kPieceN)
    for (int64_t i = 0; i < rows; i += kPieceM)
      kPieces[std::min<int64_t>(kPieceM, rows - i)](kw, fa, lda, fb, ldb, t, i, j);
}

}  // namespace gp::avx2
