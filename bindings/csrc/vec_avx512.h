// 16 lanes of fp32 in one register, for CPUs with AVX-512. vec.h says what is the same for every path.
#pragma once
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,f16c")

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
inline void store16(c10::Half* p, F16 v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
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
inline U16 shifted_right(U16 a, int n) { return _mm512_srl_epi32(a, _mm_cvtsi32_si128(n)); }
template <int N>
U16 shifted_left(U16 a) {
  return _mm512_slli_epi32(a, N);
}
inline U16 subtract(U16 a, U16 b) { return _mm512_sub_epi32(a, b); }
inline U16 bits_in_both(U16 a, U16 b) { return _mm512_and_si512(a, b); }
inline U16 bits_in_any(U16 a, U16 b) { return _mm512_or_si512(a, b); }
inline U16 bits_where(Mask m, U16 a, U16 b) { return _mm512_mask_or_epi32(a, m, a, b); }  // those of b under the mask
inline Mask at_least(U16 a, U16 b) { return _mm512_cmpge_epu32_mask(a, b); }
inline Mask share_bits(U16 a, U16 b) { return _mm512_test_epi32_mask(a, b); }
inline Mask lanes_of(uint32_t bits) { return static_cast<Mask>(bits); }
inline U16 bytes_at(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline U16 signed_at(const uint8_t* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline F16 numbers(U16 a) { return _mm512_cvtepi32_ps(a); }  // as signed ones
inline U16 as_words(F16 a) { return _mm512_castps_si512(a); }
inline void store_words(uint32_t* p, U16 a) { _mm512_storeu_si512(p, a); }
inline F16 looked_up(const float* table, U16 i) { return _mm512_permutexvar_ps(i, load16(table)); }  // by four bits

// interleave puts lanes of even and of odd numbers in order.
inline void interleave(F16 even, F16 odd, F16 v[2]) {
  const __m512i lo = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  v[0] = _mm512_permutex2var_ps(even, lo, odd);
  v[1] = _mm512_permutex2var_ps(even, _mm512_add_epi32(lo, _mm512_set1_epi32(8)), odd);
}

// Products that are rounded by themselves: the compiler fuses none with a sum.
inline F16 rounded_product(F16 a, F16 b) {
  return _mm512_mul_round_ps(a, b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline float rounded_product(float a, float b) {
  return _mm_cvtss_f32(_mm_mul_round_ss(_mm_set_ss(a), _mm_set_ss(b), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// transpose turns 16 rows of 16 words into 16 columns.
inline void transpose(U16 r[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
    r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
    r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
    r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
  }
}

}  // namespace gp::avx512

#pragma GCC pop_options
