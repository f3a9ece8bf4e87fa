// 32 weights of a quantised matrix's row at a time. Each product and sum is rounded by itself, as in the formats'
// definitions.
#pragma once
#include "quant.h"
#include "vec.h"

namespace gp::GP_PATH {

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

inline U16 nibbles(U16 bytes) { return bits_in_both(bytes, words(15)); }
inline F16 scaled(U16 q, F16 d) { return rounded_product(numbers(q), d); }

// scale_at is the i-th scale of NF4 and FP4.
inline float scale_at(const Codes& w, int64_t i) {
  if (w.scales) return w.scales[i];
  return rounded_product(w.nested_map[w.nested[i]], w.nested_scales[i >> w.nested_shift]) + w.offset;
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

// table_values gives the even weights of 32, then the odd ones.
template <QuantKind K>
inline void table_values(const Codes& w, int64_t row, int64_t k, F16 v[2]) {
  const int64_t at = row * w.cols + k;
  const F16 s = all(scale_at(w, at >> w.shift));
  const U16 b = bytes_at(w.q + at / 2);
  v[0] = rounded_product(looked_up(kTables[K], shifted_right<4>(b)), s);
  v[1] = rounded_product(looked_up(kTables[K], b), s);
}

template <QuantKind K>
inline void decode_table(const Codes& w, int64_t row, int64_t k, F16 v[2]) {
  F16 apart[2];
  table_values<K>(w, row, k, apart);
  interleave(apart[0], apart[1], v);
}

inline void decode_int8_rows(const Codes& w, int64_t row, int64_t k, F16 v[2]) {
  const uint8_t* p = w.q + row * w.stride + k;
  const F16 s = all(w.scales[row]), unit = all(kInt8Unit);
  v[0] = rounded_product(scaled(signed_at(p), s), unit);
  v[1] = rounded_product(scaled(signed_at(p + 16), s), unit);
}

inline void decode_int4(const Codes& w, int64_t row, int64_t k, F16 v[2]) {
  const int64_t at = row * (w.cols / w.block) + k / w.block;
  const F16 s = all(w.scales[at]), zero = all(w.zeros[at]);
  const U16 b = bytes_at(w.q + row * w.stride + k / 2);
  interleave(rounded_product(numbers(nibbles(b)) - zero, s), rounded_product(numbers(shifted_right<4>(b)) - zero, s),
             v);
}

// Blocks of 32: a half scale, in Q4_1 and Q5_1 a half minimum, in Q5_0 and Q5_1 the fifth bits, the codes.
template <QuantKind K>
inline void decode_block(const uint8_t* p, F16 v[2]) {
  constexpr bool minimum = K == kQ4_1 || K == kQ5_1, fifth = K == kQ5_0 || K == kQ5_1;
  const F16 d = all(half_at(p));
  if constexpr (K == kQ8_0) {
    v[0] = scaled(signed_at(p + 2), d);
    v[1] = scaled(signed_at(p + 18), d);
    return;
  }
  constexpr int bits = minimum ? 4 : 2, codes = bits + (fifth ? 4 : 0);
  const U16 b = bytes_at(p + codes);
  U16 q[2] = {nibbles(b), shifted_right<4>(b)};
  for (int i = 0; i < 2; i++) {
    if constexpr (fifth) {
      q[i] = bits_where(lanes_of(word_at(p + bits) >> (16 * i)), q[i], words(16));
    }
    if constexpr (minimum) v[i] = scaled(q[i], d) + all(half_at(p + 2));
    else v[i] = scaled(subtract(q[i], words(fifth ? 16 : 8)), d);
  }
}

// One of the eight groups of a block of Q4_K or Q5_K.
template <QuantKind K>
inline void decode_group(const uint8_t* p, int64_t group, F16 v[2]) {
  const GroupScale s = group_scale(p + 4, group);
  const F16 d = rounded_product(all(half_at(p)), all(s.scale));
  const F16 m = rounded_product(all(half_at(p + 2)), all(s.minimum));
  const uint8_t* codes = p + (K == kQ5_K ? 48 : 16) + group / 2 * 32;
  for (int i = 0; i < 2; i++) {
    const U16 b = bytes_at(codes + 16 * i);
    U16 q = group % 2 ? shifted_right<4>(b) : nibbles(b);
    if constexpr (K == kQ5_K) {
      q = bits_where(share_bits(bytes_at(p + 16 + 16 * i), words(1u << group)), q, words(16));
    }
    v[i] = scaled(q, d) - m;
  }
}

// A quarter of one side of a Q6_K block: 32 weights, with a scale for each half of them.
inline void decode_quarter(const uint8_t* p, int64_t side, int64_t quarter, F16 v[2]) {
  const uint8_t *low = p + side * 64 + quarter % 2 * 32, *high = p + 128 + side * 32;
  const auto* scales = reinterpret_cast<const int8_t*>(p + 192 + side * 8 + quarter * 2);
  const F16 d = all(half_at(p + 208));
  for (int i = 0; i < 2; i++) {
    const U16 b = bytes_at(low + 16 * i);
    const U16 bits = bits_in_both(shifted_right(bytes_at(high + 16 * i), static_cast<int>(2 * quarter)), words(3));
    const U16 q = bits_in_any(quarter < 2 ? nibbles(b) : shifted_right<4>(b), shifted_left<4>(bits));
    v[i] = scaled(subtract(q, words(32)), rounded_product(d, all(static_cast<float>(scales[i]))));
  }
}

// decode gives the weights k to k+31 of a row, for k a multiple of 32.
template <QuantKind K>
inline void decode(const Codes& w, int64_t row, int64_t k, F16 v[2]) {
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

}  // namespace gp::GP_PATH
