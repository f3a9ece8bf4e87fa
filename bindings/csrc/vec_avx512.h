// 16 lanes of fp32 in one register, for CPUs with AVX-512. vec.h says what is the same for every path.
#pragma once
#include <c10/util/BFloat16.h>
#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

namespace gp::avx512 {

using F16 = __m512;
using Mask = __mmask16;  // of lanes
using Tail = __mmask16;  // a mask of the first lanes

inline Tail first16(int64_t n) {
  return n >= 16 ? 0xffff : static_cast<__mmask16>((1u << std::max<int64_t>(n, 0)) - 1);
}
inline __mmask32 first32(int64_t n) { return n >= 32 ? 0xffffffffu : (1u << std::max<int64_t>(n, 0)) - 1; }

// from_lane is the lanes from n on.
inline Mask from_lane(int64_t n) { return n <= 0 ? 0xffff : n >= 16 ? 0 : static_cast<__mmask16>(0xffffu << n); }

inline F16 all(float x) { return _mm512_set1_ps(x); }

// Lanes that a mask leaves out are neither read nor written; they load as zero.
inline F16 load16(const float* p) { return _mm512_loadu_ps(p); }
inline F16 load16(const float* p, Tail m) { return _mm512_maskz_loadu_ps(m, p); }
inline F16 load16(const c10::BFloat16* p, Tail m) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p)), 16));
}
inline void store16(float* p, F16 v) { _mm512_storeu_ps(p, v); }
inline void store16(float* p, Tail m, F16 v) { _mm512_mask_storeu_ps(p, m, v); }

// round16 rounds to the nearest bf16, ties to even, without the bf16 instructions: element-wise kernels run on
// every CPU with AVX-512.
inline __m256i round16(F16 v) {
  const __m512i u = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  r = _mm512_mask_mov_epi32(r, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc0));
  return _mm512_cvtepi32_epi16(r);
}
inline void store16(c10::BFloat16* p, Tail m, F16 v) { _mm256_mask_storeu_epi16(p, m, round16(v)); }
inline F16 as_bf16(F16 v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(round16(v)), 16)); }

inline F16 fma(F16 a, F16 b, F16 c) { return _mm512_fmadd_ps(a, b, c); }    // a·b + c
inline F16 fnma(F16 a, F16 b, F16 c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a·b
inline F16 min16(F16 a, F16 b) { return _mm512_min_ps(a, b); }              // b where one is NaN
inline F16 max16(F16 a, F16 b) { return _mm512_max_ps(a, b); }              // b where one is NaN
inline F16 magnitude(F16 a) { return _mm512_abs_ps(a); }
inline F16 nearest(F16 a) { return _mm512_roundscale_ps(a, 8); }
inline F16 times_power_of_2(F16 a, F16 n) { return _mm512_scalef_ps(a, n); }
inline Mask not_negative(F16 a) { return _mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_GE_OQ); }

// Where the mask is off, other lanes are zero, or `other`'s.
inline F16 only(Mask m, F16 v) { return _mm512_maskz_mov_ps(m, v); }
inline F16 choose(Mask m, F16 v, F16 other) { return _mm512_mask_mov_ps(other, m, v); }
inline F16 product_where(Mask m, F16 a, F16 b) { return _mm512_maskz_mul_ps(m, a, b); }
inline F16 sum_where(Mask m, F16 a, F16 b, F16 other) { return _mm512_mask_add_ps(other, m, a, b); }
inline F16 difference_where(Mask m, F16 a, F16 b) { return _mm512_maskz_sub_ps(m, a, b); }
inline F16 difference_where(Mask m, F16 a, F16 b, F16 other) { return _mm512_mask_sub_ps(other, m, a, b); }

// store_pairs writes 16 words of two bf16 each.
inline void store_pairs(uint32_t* p, F16 even, F16 odd) {
  const __m512i lo = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
  const __m512i hi = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
  _mm512_storeu_si512(p, _mm512_or_si512(lo, _mm512_slli_epi32(hi, 16)));
}

inline float sum_of(F16 v) { return _mm512_reduce_add_ps(v); }

// 16 unsigned words.
using U16 = __m512i;
inline U16 words(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
inline U16 words_from(uint32_t x) {  // x, x+1, …
  return _mm512_add_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), words(x));
}
inline U16 add(U16 a, U16 b) { return _mm512_add_epi32(a, b); }
inline U16 multiply(U16 a, U16 b) { return _mm512_mullo_epi32(a, b); }
inline U16 exclusive_or(U16 a, U16 b) { return _mm512_xor_si512(a, b); }
template <int N>
U16 shifted_right(U16 a) {
  return _mm512_srli_epi32(a, N);
}
inline Mask at_least(U16 a, U16 b) { return _mm512_cmpge_epu32_mask(a, b); }

}  // namespace gp::avx512

#pragma GCC pop_options
