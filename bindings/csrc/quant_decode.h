// 32 weights of a quantised matrix's row at a time, with AVX-512. Each product and sum is rounded by itself, as in the
// formats' definitions: the intrinsics with a rounding mode keep the compiler from fusing them.
#pragma once
#include <cstring>

#include "quant.h"
#include "vec.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,f16c")

namespace gp {

constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

inline __m512 times(__m512 a, __m512 b) { return _mm512_mul_round_ps(a, b, kNearest); }
inline __m512 plus(__m512 a, __m512 b) { return _mm512_add_round_ps(a, b, kNearest); }
inline __m512 minus(__m512 a, __m512 b) { return _mm512_sub_round_ps(a, b, kNearest); }

inline float half_at(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return _cvtsh_ss(h);
}

inline uint32_t word_at(const uint8_t* p) {
  uint32_t v;
  std::memcpy(&v, p, 4);
  return v;
}

inline __m512i bytes_at(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline __m512i signed_at(const uint8_t* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline __m512i nibbles(__m512i bytes) { return _mm512_and_si512(bytes, _mm512_set1_epi32(15)); }
inline __m512 scaled(__m512i q, __m512 d) { return times(_mm512_cvtepi32_ps(q), d); }

// scale_at is the i-th scale of NF4 and FP4.
inline float scale_at(const Codes& w, int64_t i) {
  if (w.scales) return w.scales[i];
  const __m128 nested = _mm_set_ss(w.nested_map[w.nested[i]]), outer = _mm_set_ss(w.nested_scales[i >> w.nested_shift]);
  return _mm_cvtss_f32(_mm_add_round_ss(_mm_mul_round_ss(nested, outer, kNearest), _mm_set_ss(w.offset), kNearest));
}

// in_order interleaves the weights with even numbers and those with odd ones.
inline void in_order(__m512 even, __m512 odd, __m512 v[2]) {
  const __m512i lo = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  v[0] = _mm512_permutex2var_ps(even, lo, odd);
  v[1] = _mm512_permutex2var_ps(even, _mm512_add_epi32(lo, _mm512_set1_epi32(8)), odd);
}

// GroupScale is the scale and the minimum, of six bits each, of one of the eight groups of a Q4_K or Q5_K block.
struct GroupScale {
  float scale, minimum;
};

inline GroupScale group_scale(const uint8_t* packed, int64_t i) {
  if (i < 4) return {static_cast<float>(packed[i] & 63), static_cast<float>(packed[i + 4] & 63)};
  return {static_cast<float>((packed[i + 4] & 15) | (packed[i - 4] >> 6 << 4)),
          static_cast<float>((packed[i + 4] >> 4) | (packed[i] >> 6 << 4))};
}

// two_bits is bits i and i+1 of bytes as bits 4 and 5.
inline __m512i two_bits(__m512i bytes, unsigned i) {
  return _mm512_slli_epi32(_mm512_and_si512(_mm512_srli_epi32(bytes, i), _mm512_set1_epi32(3)), 4);
}

template <QuantKind K>
inline void decode_table(const Codes& w, int64_t row, int64_t k, __m512 v[2]) {
  const int64_t at = row * w.cols + k;
  const __m512 t = _mm512_loadu_ps(kTables[K]), s = _mm512_set1_ps(scale_at(w, at >> w.shift));
  const __m512i b = bytes_at(w.q + at / 2);
  in_order(times(_mm512_permutexvar_ps(_mm512_srli_epi32(b, 4), t), s), times(_mm512_permutexvar_ps(b, t), s), v);
}

inline void decode_int8_rows(const Codes& w, int64_t row, int64_t k, __m512 v[2]) {
  const uint8_t* p = w.q + row * w.stride + k;
  const __m512 s = _mm512_set1_ps(w.scales[row]), unit = _mm512_set1_ps(kInt8Unit);
  v[0] = times(scaled(signed_at(p), s), unit);
  v[1] = times(scaled(signed_at(p + 16), s), unit);
}

inline void decode_int4(const Codes& w, int64_t row, int64_t k, __m512 v[2]) {
  const int64_t at = row * (w.cols / w.block) + k / w.block;
  const __m512 s = _mm512_set1_ps(w.scales[at]), zero = _mm512_set1_ps(w.zeros[at]);
  const __m512i b = bytes_at(w.q + row * w.stride + k / 2);
  in_order(times(minus(_mm512_cvtepi32_ps(nibbles(b)), zero), s),
           times(minus(_mm512_cvtepi32_ps(_mm512_srli_epi32(b, 4)), zero), s), v);
}

// Blocks of 32: a half scale, in Q4_1 and Q5_1 a half minimum, in Q5_0 and Q5_1 the fifth bits, the codes.
template <QuantKind K>
inline void decode_block(const uint8_t* p, __m512 v[2]) {
  constexpr bool minimum = K == kQ4_1 || K == kQ5_1, fifth = K == kQ5_0 || K == kQ5_1;
  const __m512 d = _mm512_set1_ps(half_at(p));
  if constexpr (K == kQ8_0) {
    v[0] = scaled(signed_at(p + 2), d);
    v[1] = scaled(signed_at(p + 18), d);
    return;
  }
  constexpr int bits = minimum ? 4 : 2, codes = bits + (fifth ? 4 : 0);
  const __m512i b = bytes_at(p + codes);
  __m512i q[2] = {nibbles(b), _mm512_srli_epi32(b, 4)};
  for (int i = 0; i < 2; i++) {
    if constexpr (fifth) {
      const auto high = static_cast<__mmask16>(word_at(p + bits) >> (16 * i));
      q[i] = _mm512_mask_or_epi32(q[i], high, q[i], _mm512_set1_epi32(16));
    }
    if constexpr (minimum) v[i] = plus(scaled(q[i], d), _mm512_set1_ps(half_at(p + 2)));
    else v[i] = scaled(_mm512_sub_epi32(q[i], _mm512_set1_epi32(fifth ? 16 : 8)), d);
  }
}

// One of the eight groups of a block of Q4_K or Q5_K.
template <QuantKind K>
inline void decode_group(const uint8_t* p, int64_t group, __m512 v[2]) {
  const GroupScale s = group_scale(p + 4, group);
  const __m512 d = times(_mm512_set1_ps(half_at(p)), _mm512_set1_ps(s.scale));
  const __m512 m = times(_mm512_set1_ps(half_at(p + 2)), _mm512_set1_ps(s.minimum));
  const uint8_t* codes = p + (K == kQ5_K ? 48 : 16) + group / 2 * 32;
  for (int i = 0; i < 2; i++) {
    const __m512i b = bytes_at(codes + 16 * i);
    __m512i q = group % 2 ? _mm512_srli_epi32(b, 4) : nibbles(b);
    if constexpr (K == kQ5_K) {
      const __mmask16 high = _mm512_test_epi32_mask(bytes_at(p + 16 + 16 * i), _mm512_set1_epi32(1 << group));
      q = _mm512_mask_or_epi32(q, high, q, _mm512_set1_epi32(16));
    }
    v[i] = minus(scaled(q, d), m);
  }
}

// A quarter of one side of a Q6_K block: 32 weights, with a scale for each half of them.
inline void decode_quarter(const uint8_t* p, int64_t side, int64_t quarter, __m512 v[2]) {
  const uint8_t *low = p + side * 64 + quarter % 2 * 32, *high = p + 128 + side * 32;
  const auto* scales = reinterpret_cast<const int8_t*>(p + 192 + side * 8 + quarter * 2);
  const __m512 d = _mm512_set1_ps(half_at(p + 208));
  for (int i = 0; i < 2; i++) {
    const __m512i b = bytes_at(low + 16 * i);
    const __m512i q = _mm512_or_si512(quarter < 2 ? nibbles(b) : _mm512_srli_epi32(b, 4),
                                      two_bits(bytes_at(high + 16 * i), static_cast<unsigned>(2 * quarter)));
    v[i] = scaled(_mm512_sub_epi32(q, _mm512_set1_epi32(32)), times(d, _mm512_set1_ps(scales[i])));
  }
}

// decode gives the weights k to k+31 of a row, for k a multiple of 32.
template <QuantKind K>
inline void decode(const Codes& w, int64_t row, int64_t k, __m512 v[2]) {
  if constexpr (has_table(K)) decode_table<K>(w, row, k, v);
  else if constexpr (K == kInt8Rows) decode_int8_rows(w, row, k, v);
  else if constexpr (K == kInt4) decode_int4(w, row, k, v);
  else {
    const uint8_t* p = w.q + row * w.stride + k / block_weights(K) * block_bytes(K);
    if constexpr (K == kQ4_K || K == kQ5_K) decode_group<K>(p, k % 256 / 32, v);
    else if constexpr (K == kQ6_K) decode_quarter(p, k % 256 / 128, k % 128 / 32, v);
    else decode_block<K>(p, v);
  }
}

}  // namespace gp

#pragma GCC pop_options
