// 16 lanes of fp32 in two registers, for CPUs with AVX2, FMA and F16C: vec_avx512.h's operations, lane by lane the
// same.
#pragma once
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")

namespace gp::avx2 {

struct F16 {
  __m256 lo, hi;
};

// Tail is how many of the first lanes there are. Stores under a mask are slow on many of these CPUs: whole ones go
// another way, which a mask could not tell.
struct Tail {
  int64_t n;
};

// Mask is lanes whose bits are all on or all off.
struct Mask {
  __m256i lo, hi;
  Mask(__m256i l, __m256i h) : lo(l), hi(h) {}
  Mask(Tail t) {  // NOLINT: a tail serves wherever a mask does
    const __m256i n = _mm256_set1_epi32(static_cast<int>(std::clamp<int64_t>(t.n, 0, 16)));
    lo = _mm256_cmpgt_epi32(n, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    hi = _mm256_cmpgt_epi32(n, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15));
  }
};

inline Tail first16(int64_t n) { return {n}; }

// from_lane is the lanes from n on.
inline Mask from_lane(int64_t n) {
  const Mask before(Tail{n});
  const __m256i on = _mm256_set1_epi32(-1);
  return {_mm256_xor_si256(before.lo, on), _mm256_xor_si256(before.hi, on)};
}

inline F16 all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }

inline F16 operator+(F16 a, F16 b) { return {a.lo + b.lo, a.hi + b.hi}; }
inline F16 operator-(F16 a, F16 b) { return {a.lo - b.lo, a.hi - b.hi}; }
inline F16 operator*(F16 a, F16 b) { return {a.lo * b.lo, a.hi * b.hi}; }
inline F16 operator/(F16 a, F16 b) { return {a.lo / b.lo, a.hi / b.hi}; }

// wide8 is 8 bf16 as fp32.
inline __m256 wide8(__m128i v) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16)); }

inline F16 load16(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline F16 load16(const float* p, Tail t) {
  if (t.n >= 16) return load16(p);
  const Mask m(t);
  return {_mm256_maskload_ps(p, m.lo), _mm256_maskload_ps(p + 8, m.hi)};
}
inline F16 load16(const c10::BFloat16* p, Tail t) {
  alignas(32) uint16_t part[16] = {};
  const void* from = p;
  if (t.n < 16) {
    if (t.n > 0) std::memcpy(part, from, static_cast<size_t>(t.n) * 2);
    from = part;
  }
  const auto* v = static_cast<const __m128i*>(from);
  return {wide8(_mm_loadu_si128(v)), wide8(_mm_loadu_si128(v + 1))};
}
inline void store16(float* p, F16 v) {
  _mm256_storeu_ps(p, v.lo);
  _mm256_storeu_ps(p + 8, v.hi);
}
inline void store16(float* p, Tail t, F16 v) {
  if (t.n >= 16) return store16(p, v);
  const Mask m(t);
  _mm256_maskstore_ps(p, m.lo, v.lo);
  _mm256_maskstore_ps(p + 8, m.hi, v.hi);
}

// round8 rounds to the nearest bf16, ties to even, in the low halves of 8 words.
inline __m256i round8(__m256 v) {
  const __m256i u = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i r = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(r, _mm256_set1_epi32(0x7fc0), nan);
}
inline __m256i round16(F16 v) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(round8(v.lo), round8(v.hi)), 0xd8);
}
inline void store16(c10::BFloat16* p, Tail t, F16 v) {
  const __m256i r = round16(v);
  if (t.n >= 16) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), r);
  alignas(32) uint16_t part[16];
  _mm256_store_si256(reinterpret_cast<__m256i*>(part), r);
  if (t.n > 0) std::memcpy(static_cast<void*>(p), part, static_cast<size_t>(t.n) * 2);
}
inline void store16(c10::Half* p, F16 v) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  auto* to = reinterpret_cast<__m128i*>(p);
  _mm_storeu_si128(to, _mm256_cvtps_ph(v.lo, mode));
  _mm_storeu_si128(to + 1, _mm256_cvtps_ph(v.hi, mode));
}
inline F16 as_bf16(F16 v) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(round8(v.lo), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(round8(v.hi), 16))};
}

inline F16 fma(F16 a, F16 b, F16 c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
inline F16 fnma(F16 a, F16 b, F16 c) {
  return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
inline F16 min16(F16 a, F16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline F16 max16(F16 a, F16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline F16 magnitude(F16 a) {
  const __m256 sign = _mm256_set1_ps(-0.f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
inline F16 nearest(F16 a) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, mode), _mm256_round_ps(a.hi, mode)};
}

// times_power_of_2 is a·2ⁿ for whole n of -250 to 250, in two steps: 2ⁿ itself may be out of range.
inline __m256 times_power_of_2(__m256 a, __m256 n) {
  const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
  const __m256i rest = _mm256_sub_epi32(whole, half);
  const __m256 x = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const __m256 y = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return a * x * y;
}
inline F16 times_power_of_2(F16 a, F16 n) { return {times_power_of_2(a.lo, n.lo), times_power_of_2(a.hi, n.hi)}; }

inline Mask not_negative(F16 a) {
  const __m256 zero = _mm256_setzero_ps();
  return {_mm256_castps_si256(_mm256_cmp_ps(a.lo, zero, _CMP_GE_OQ)),
          _mm256_castps_si256(_mm256_cmp_ps(a.hi, zero, _CMP_GE_OQ))};
}

inline F16 only(Mask m, F16 v) {
  return {_mm256_and_ps(_mm256_castsi256_ps(m.lo), v.lo), _mm256_and_ps(_mm256_castsi256_ps(m.hi), v.hi)};
}
inline F16 choose(Mask m, F16 v, F16 other) {
  return {_mm256_blendv_ps(other.lo, v.lo, _mm256_castsi256_ps(m.lo)),
          _mm256_blendv_ps(other.hi, v.hi, _mm256_castsi256_ps(m.hi))};
}
inline F16 product_where(Mask m, F16 a, F16 b) { return only(m, a * b); }
inline F16 sum_where(Mask m, F16 a, F16 b, F16 other) { return choose(m, a + b, other); }
inline F16 difference_where(Mask m, F16 a, F16 b) { return only(m, a - b); }
inline F16 difference_where(Mask m, F16 a, F16 b, F16 other) { return choose(m, a - b, other); }

inline float sum_of(F16 v) {
  const __m256 eight = v.hi + v.lo;
  const __m128 four = _mm256_extractf128_ps(eight, 1) + _mm256_castps256_ps128(eight);
  const __m128 two = four + _mm_movehl_ps(four, four);
  return _mm_cvtss_f32(two) + _mm_cvtss_f32(_mm_shuffle_ps(two, two, 1));
}

struct U16 {
  __m256i lo, hi;
};
inline U16 words(uint32_t x) {
  const __m256i v = _mm256_set1_epi32(static_cast<int>(x));
  return {v, v};
}
inline U16 add(U16 a, U16 b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
inline U16 words_from(uint32_t x) {
  return add({_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)}, words(x));
}
inline U16 multiply(U16 a, U16 b) { return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)}; }
inline U16 exclusive_or(U16 a, U16 b) { return {_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)}; }
template <int N>
U16 shifted_right(U16 a) {
  return {_mm256_srli_epi32(a.lo, N), _mm256_srli_epi32(a.hi, N)};
}
inline U16 shifted_right(U16 a, int n) {
  const __m128i count = _mm_cvtsi32_si128(n);
  return {_mm256_srl_epi32(a.lo, count), _mm256_srl_epi32(a.hi, count)};
}
template <int N>
U16 shifted_left(U16 a) {
  return {_mm256_slli_epi32(a.lo, N), _mm256_slli_epi32(a.hi, N)};
}
inline U16 subtract(U16 a, U16 b) { return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)}; }
inline U16 bits_in_both(U16 a, U16 b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
inline U16 bits_in_any(U16 a, U16 b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
inline U16 bits_where(Mask m, U16 a, U16 b) { return bits_in_any(a, bits_in_both(b, {m.lo, m.hi})); }
inline Mask at_least(U16 a, U16 b) {  // a ≥ b is the larger of them being a
  return {_mm256_cmpeq_epi32(_mm256_max_epu32(a.lo, b.lo), a.lo),
          _mm256_cmpeq_epi32(_mm256_max_epu32(a.hi, b.hi), a.hi)};
}

inline Mask share_bits(U16 a, U16 b) {
  const U16 shared = bits_in_both(a, b);
  const __m256i zero = _mm256_setzero_si256(), on = _mm256_set1_epi32(-1);
  return {_mm256_xor_si256(_mm256_cmpeq_epi32(shared.lo, zero), on),
          _mm256_xor_si256(_mm256_cmpeq_epi32(shared.hi, zero), on)};
}
inline Mask lanes_of(uint32_t bits) {
  const __m256i lanes = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return share_bits(words(bits), {lanes, _mm256_slli_epi32(lanes, 8)});
}
inline U16 bytes_at(const uint8_t* p) {
  const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepu8_epi32(b), _mm256_cvtepu8_epi32(_mm_srli_si128(b, 8))};
}
inline U16 signed_at(const uint8_t* p) {
  const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi8_epi32(b), _mm256_cvtepi8_epi32(_mm_srli_si128(b, 8))};
}
inline F16 numbers(U16 a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
inline U16 as_words(F16 a) { return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
inline void store_words(uint32_t* p, U16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), a.hi);
}

// looked_up8 looks in both halves of a table, and takes what bit 3 says.
inline __m256 looked_up8(const float* table, __m256i i) {
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), i);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), i);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)));
}
inline F16 looked_up(const float* table, U16 i) { return {looked_up8(table, i.lo), looked_up8(table, i.hi)}; }

inline F16 interleave8(__m256 even, __m256 odd) {
  const __m256 a = _mm256_unpacklo_ps(even, odd), b = _mm256_unpackhi_ps(even, odd);
  return {_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)};
}
inline void interleave(F16 even, F16 odd, F16 v[2]) {
  v[0] = interleave8(even.lo, odd.lo);
  v[1] = interleave8(even.hi, odd.hi);
}

inline F16 rounded_product(F16 a, F16 b) {
  F16 v = a * b;
  asm("" : "+x"(v.lo), "+x"(v.hi));  // hides from the compiler that these are products
  return v;
}
inline float rounded_product(float a, float b) {
  float v = a * b;
  asm("" : "+x"(v));
  return v;
}

// transpose8 turns 8 rows of 8 into 8 columns.
inline void transpose8(__m256 r[8]) {
  __m256 t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    r[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    r[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    r[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    r[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x20);
    t[4 + i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x31);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) r[i] = t[i];
}

inline void transpose(U16 r[16]) {
  __m256 q[4][8];
  for (int i = 0; i < 8; i++) {
    q[0][i] = _mm256_castsi256_ps(r[i].lo);
    q[1][i] = _mm256_castsi256_ps(r[i].hi);
    q[2][i] = _mm256_castsi256_ps(r[8 + i].lo);
    q[3][i] = _mm256_castsi256_ps(r[8 + i].hi);
  }
  for (auto& part : q) transpose8(part);
  for (int i = 0; i < 8; i++) {
    r[i] = {_mm256_castps_si256(q[0][i]), _mm256_castps_si256(q[2][i])};
    r[8 + i] = {_mm256_castps_si256(q[1][i]), _mm256_castps_si256(q[3][i])};
  }
}

}  // namespace gp::avx2

#pragma GCC pop_options
