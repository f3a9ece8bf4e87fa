// Dropout whose mask is a function of a seed and the element's index, so that the backward pass computes it again
// instead of keeping it.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace gp {

// draw_seed takes one number from libtorch's generator, so that what is random here follows its seed and state.
uint64_t draw_seed();

// The mixing is Wellons' lowbias32 with a key between its rounds.
struct Dropout {
  uint32_t k0 = 0, k1 = 0, threshold = 0;  // drops where the hash is below the threshold
  float scale = 1;
  Dropout() = default;
  Dropout(double p, uint64_t seed)
      : k0(static_cast<uint32_t>(seed)),
        k1(static_cast<uint32_t>(seed >> 32)),
        threshold(static_cast<uint32_t>(p * 4294967296.0)),
        scale(static_cast<float>(1 / (1 - p))) {}
  bool on() const { return threshold != 0; }
  // stream gives independent masks from one seed.
  Dropout stream(uint64_t i) const {
    Dropout d = *this;
    uint64_t z = (static_cast<uint64_t>(k1) << 32 | k0) + (i + 1) * 0x9e3779b97f4a7c15ull;  // splitmix64
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    d.k0 = static_cast<uint32_t>(z);
    d.k1 = static_cast<uint32_t>(z >> 32);
    return d;
  }
};

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

// keep16 is where 16 elements from index i on are kept.
inline __mmask16 keep16(const Dropout& d, uint64_t i) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const uint32_t key = d.k1 + static_cast<uint32_t>(i >> 32) * 0x9e3779b9u;
  __m512i x = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int>(static_cast<uint32_t>(i) + d.k0)));
  x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
  x = _mm512_mullo_epi32(x, _mm512_set1_epi32(0x7feb352d));
  x = _mm512_xor_si512(x, _mm512_set1_epi32(static_cast<int>(key)));
  x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
  x = _mm512_mullo_epi32(x, _mm512_set1_epi32(static_cast<int>(0x846ca68bu)));
  x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
  return _mm512_cmpge_epu32_mask(x, _mm512_set1_epi32(static_cast<int>(d.threshold)));
}

#pragma GCC pop_options

}  // namespace gp
