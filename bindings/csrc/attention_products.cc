// The products of one block of attention.
#include "attention.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

namespace gp {

Operand one_head(const at::Tensor& t, int64_t bi, int64_t hi, bool turned) {
  const bool low = t.scalar_type() == at::kBFloat16;
  const auto* p = static_cast<const char*>(t.const_data_ptr()) + offset(t, bi, hi) * (low ? 2 : 4);
  return turned ? Operand{p, low, 1, t.stride(2)} : Operand{p, low, t.stride(2), 1};
}

void products(const Attention& a, const Block& k, const uint32_t* rows, const uint32_t* b, float* out) {
  const int64_t words = panel_words(a.d, a.bf16);
  for (int64_t key = k.first; key < k.last; key += kTileM) {
    Tile t{};
    t.c = out + key * kQ;
    t.ldc = kQ;
    t.cols = kQ;
    const int height = static_cast<int>(std::min<int64_t>(kTileM, k.last - key));
    tile(a.bf16, height, words, rows + key * words, kTileM, b, kQ, t);
  }
}

namespace {

inline __m512i pair(__m512 even, __m512 odd) {
  const __m512i lo = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
  const __m512i hi = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
  return _mm512_or_si512(lo, _mm512_slli_epi32(hi, 16));
}

// squeeze turns rows of fp32 into words of two rows each, in place.
void squeeze(float* rows, int64_t first, int64_t last) {
  auto* words = reinterpret_cast<uint32_t*>(rows);
  for (int64_t key = first; key < last; key += 2)
    for (int half = 0; half < 2; half++) {
      const __m512 even = _mm512_loadu_ps(rows + key * kQ + half * 16);
      const __m512 odd = key + 1 < last ? _mm512_loadu_ps(rows + (key + 1) * kQ + half * 16) : _mm512_setzero_ps();
      _mm512_storeu_si512(words + (key / 2) * kQ + half * 16, pair(even, odd));
    }
}

}  // namespace

void times(const Attention& a, const Block& k, float* p, const uint32_t* v, float* out, int64_t ldo) {
  int64_t first = k.first, words = k.last - k.first;
  if (a.bf16) {
    squeeze(p, k.first, k.last);  // k.first is even
    first /= 2;
    words = (words + 1) / 2;
  }
  const auto* weights = reinterpret_cast<const uint32_t*>(p) + first * kQ;
  const int64_t depth = panel_words(a.sk, a.bf16);
  for (int64_t j = 0; j < a.d; j += kTileN)
    for (int64_t i = 0; i < k.n; i += kTileM) {
      Tile t{};
      t.c = out + i * ldo + j;
      t.ldc = ldo;
      t.cols = static_cast<int>(std::min<int64_t>(kTileN, a.d - j));
      const int height = static_cast<int>(std::min<int64_t>(kTileM, k.n - i));
      tile(a.bf16, height, words, weights + i, kQ, v + j * depth + first * kTileN, kTileN, t);
    }
}

}  // namespace gp
