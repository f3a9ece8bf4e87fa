// What the passes of attention share: the products of one block, and its scores.
#pragma once
#include "attention.h"
#include "vec.h"

namespace gp::GP_PATH {

// products fills out[key][query] = Σd rows(key, d)·b(query, d) for the block's keys.
inline void products(const Attention& a, const Block& k, const uint32_t* rows, const uint32_t* b, float* out) {
  const int64_t words = panel_words(a.d, a.bf16);
  for (int64_t key = k.first; key < k.last; key += kTileM) {
    Tile t{};
    t.c = out + key * kQ;
    t.ldc = kQ;
    t.cols = kQ;
    const int height = static_cast<int>(std::min<int64_t>(kTileM, k.last - key));
    tile_kernel(a.bf16, height, words, rows + key * words, kTileM, b, kQ, t);
  }
}

#ifdef GP_BF16
// squeeze turns rows of fp32 into words of two rows each, in place.
inline void squeeze(float* rows, int64_t first, int64_t last) {
  auto* words = reinterpret_cast<uint32_t*>(rows);
  for (int64_t key = first; key < last; key += 2)
    for (int half = 0; half < 2; half++) {
      const F16 even = load16(rows + key * kQ + half * 16);
      const F16 odd = key + 1 < last ? load16(rows + (key + 1) * kQ + half * 16) : all(0);
      store_pairs(words + (key / 2) * kQ + half * 16, even, odd);
    }
}
#endif

// times gives out[query][dim] = Σkey p[key][query]·v(dim, key) over the block's keys, as [32][ldo] fp32. p is lost when
// the product is in bf16. v is packed by dimensions, kTileN to a panel.
inline void times(const Attention& a, const Block& k, float* p, const uint32_t* v, float* out, int64_t ldo) {
  int64_t first = k.first, words = k.last - k.first;
#ifdef GP_BF16
  if (a.bf16) {
    squeeze(p, k.first, k.last);  // k.first is even
    first /= 2;
    words = (words + 1) / 2;
  }
#endif
  const auto* weights = reinterpret_cast<const uint32_t*>(p) + first * kQ;
  const int64_t depth = panel_words(a.sk, a.bf16);
  for (int64_t j = 0; j < a.d; j += kTileN)
    for (int64_t i = 0; i < k.n; i += kTileM) {
      Tile t{};
      t.c = out + i * ldo + j;
      t.ldc = ldo;
      t.cols = static_cast<int>(std::min<int64_t>(kTileN, a.d - j));
      const int height = static_cast<int>(std::min<int64_t>(kTileM, k.n - i));
      tile_kernel(a.bf16, height, words, weights + i, kQ, v + j * depth + first * kTileN, kTileN, t);
    }
}

// score is scale·s + bias of one key for half of the block's queries, the lowest number where one must not see it.
GP_INLINE F16 score(const Attention& a, const Block& k, F16 s, int64_t key, int half) {
  s = s * all(static_cast<float>(a.scale));
  if (k.bias) {
    const float* p = k.bias + key * k.bias_key;
    s = s + (k.bias_per_query ? load16(p + half * 16, first16(k.n - half * 16)) : all(*p));
  }
  if (a.causal) {
    // Query i sees keys up to i + sk - sq.
    const int64_t shown = key - (a.sk - a.sq) - k.q0 - half * 16;
    s = choose(from_lane(shown), s, all(std::numeric_limits<float>::lowest()));
  }
  if (k.starts && key >= a.lead) {
    const F16 from = load16(k.starts + half * 16, first16(k.n - half * 16));
    s = choose(not_negative(all(static_cast<float>(key)) - from), s, all(std::numeric_limits<float>::lowest()));
  }
  return s;
}

}  // namespace gp::GP_PATH
