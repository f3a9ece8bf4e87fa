// Quantised matrices' weights on any CPU: GGUF's blocks after ggml's definitions, the others after bitsandbytes'.
#include <c10/util/Half.h>

#include <algorithm>
#include <cstring>

#include "quant.h"

// Each product and sum is rounded by itself.
#pragma GCC optimize("fp-contract=off")

namespace gp {
namespace {

float half(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return static_cast<float>(c10::Half(bits, c10::Half::from_bits()));
}

float scale_at(const Codes& w, int64_t i) {
  if (w.scales) return w.scales[i];
  return w.nested_map[w.nested[i]] * w.nested_scales[i >> w.nested_shift] + w.offset;
}

void table_row(const Codes& w, int64_t row, float* y) {
  const float* table = w.table();
  float scale = 0;
  for (int64_t i = 0; i < w.cols; i++) {
    const int64_t at = row * w.cols + i;
    if (i == 0 || at % w.block == 0) scale = scale_at(w, at >> w.shift);
    y[i] = table[at % 2 ? w.q[at / 2] & 15 : w.q[at / 2] >> 4] * scale;
  }
}

void int8_row(const Codes& w, int64_t row, float* y) {
  const auto* q = reinterpret_cast<const int8_t*>(w.q) + row * w.stride;
  const float scale = w.scales[row];
  for (int64_t i = 0; i < w.cols; i++) y[i] = static_cast<float>(q[i]) * scale * kInt8Unit;
}

void int4_row(const Codes& w, int64_t row, float* y) {
  const uint8_t* q = w.q + row * w.stride;
  for (int64_t i = 0; i < w.cols; i++) {
    const int64_t at = row * (w.cols / w.block) + i / w.block;
    y[i] = (static_cast<float>(i % 2 ? q[i / 2] >> 4 : q[i / 2] & 15) - w.zeros[at]) * w.scales[at];
  }
}

// Blocks of 32: a half scale, in Q4_1 and Q5_1 a half minimum, in Q5_0 and Q5_1 the fifth bits, then nibbles.
void block_of_32(QuantKind kind, const uint8_t* p, float* y) {
  const bool minimum = kind == kQ4_1 || kind == kQ5_1, fifth = kind == kQ5_0 || kind == kQ5_1;
  const float d = half(p), m = minimum ? half(p + 2) : 0;
  const int shift = minimum ? 0 : fifth ? 16 : 8;
  p += minimum ? 4 : 2;
  uint32_t high = 0;
  if (fifth) {
    std::memcpy(&high, p, 4);
    p += 4;
  }
  for (int i = 0; i < 32; i++) {
    const int nibble = i < 16 ? p[i] & 15 : p[i - 16] >> 4;
    const float v = d * static_cast<float>(nibble + static_cast<int>(high >> i & 1) * 16 - shift);
    y[i] = minimum ? v + m : v;
  }
}

void block_q8(const uint8_t* p, float* y) {
  const float d = half(p);
  for (int i = 0; i < 32; i++) y[i] = d * static_cast<float>(static_cast<int8_t>(p[2 + i]));
}

// Q4_K and Q5_K: a scale for the scales and one for the minima, eight of each in 6 bits, in Q5_K the fifth bits (bit g
// of byte i for weight i of group g), then nibbles, two groups in 32 bytes.
void block_of_groups(QuantKind kind, const uint8_t* p, float* y) {
  const float d = half(p), dmin = half(p + 2);
  const uint8_t *packed = p + 4, *high = p + 16, *codes = p + (kind == kQ5_K ? 48 : 16);
  for (int g = 0; g < 8; g++, y += 32) {
    const int scale = g < 4 ? packed[g] & 63 : (packed[g + 4] & 15) | (packed[g - 4] >> 6 << 4);
    const int minimum = g < 4 ? packed[g + 4] & 63 : packed[g + 4] >> 4 | (packed[g] >> 6 << 4);
    const float s = d * static_cast<float>(scale), m = dmin * static_cast<float>(minimum);
    for (int i = 0; i < 32; i++) {
      const int byte = codes[g / 2 * 32 + i];
      int q = g % 2 ? byte >> 4 : byte & 15;
      if (kind == kQ5_K) q |= (high[i] >> g & 1) << 4;
      y[i] = s * static_cast<float>(q) - m;
    }
  }
}

// Q6_K: 128 bytes of low nibbles, 64 of upper pairs of bits, 16 signed scales, their scale; two sides of 128 weights.
void block_q6(const uint8_t* p, float* y) {
  const float d = half(p + 208);
  for (int i = 0; i < 256; i++) {
    const int side = i / 128, quarter = i % 128 / 32, at = i % 32;
    const int low = p[side * 64 + quarter % 2 * 32 + at], high = p[128 + side * 32 + at] >> (2 * quarter) & 3;
    const float scale = d * static_cast<float>(static_cast<int8_t>(p[192 + i / 16]));
    y[i] = scale * static_cast<float>(((quarter < 2 ? low & 15 : low >> 4) | high << 4) - 32);
  }
}

}  // namespace

void decode_row(const Codes& w, int64_t row, float* out) {
  if (has_table(w.kind)) return table_row(w, row, out);
  if (w.kind == kInt8Rows) return int8_row(w, row, out);
  if (w.kind == kInt4) return int4_row(w, row, out);
  const uint8_t* p = w.q + row * w.stride;
  for (int64_t k = 0; k < w.cols; k += block_weights(w.kind), p += block_bytes(w.kind)) {
    if (w.kind == kQ8_0) block_q8(p, out + k);
    else if (w.kind == kQ6_K) block_q6(p, out + k);
    else if (w.kind == kQ4_K || w.kind == kQ5_K) block_of_groups(w.kind, p, out + k);
    else block_of_32(w.kind, p, out + k);
  }
}

}  // namespace gp
