// The forward pass of attention.
#pragma once
#include "vec_attention.h"

namespace gp::GP_PATH {
namespace {

struct ForwardRoom {
  uint32_t *keys, *values, *queries;  // packed
  float *s, *o;                       // a block's scores and its result
  void take(Memory& mem, const Attention& a) {
    const int64_t words = panel_words(a.d, a.bf16), ld = round_up(a.d, kTileN);
    keys = mem.words(round_up(a.sk, kTileM) * words);
    values = mem.words(panel_words(a.sk, a.bf16) * ld);
    queries = mem.words(words * kQ);
    s = mem.floats(round_up(a.sk, 2) * kQ);
    o = mem.floats(kQ * ld);
  }
};

// softmax turns half of a block's products into exponentials, dropped out, and gives what they are to be multiplied by;
// the logarithm of their sums goes to lse unless it is null.
void softmax(const Attention& a, const Block& k, int half, float* s, float* inv, float* lse) {
  F16 highest = all(-std::numeric_limits<float>::infinity()), sum = all(0);
  for (int64_t key = k.first; key < k.last; key++) {
    float* p = s + key * kQ + half * 16;
    const F16 v = score(a, k, load16(p), key, half);
    store16(p, v);
    highest = max16(highest, v);
  }
  for (int64_t key = k.first; key < k.last; key++) {
    float* p = s + key * kQ + half * 16;
    F16 e = exp16(load16(p) - highest);
    sum = sum + e;
    if (k.drop.on()) e = only(keep16(k.drop, mask_index(a, k, key, half)), e);
    store16(p, e);
  }
  store16(inv + half * 16, all(k.drop.scale) / sum);
  if (!lse) return;
  float m[16], total[16];
  store16(m, highest);
  store16(total, sum);
  for (int64_t i = half * 16; i < std::min<int64_t>(k.n, half * 16 + 16); i++)
    lse[i] = m[i - half * 16] + std::log(total[i - half * 16]);
}

// write_scaled writes a block's result, each query times its factor.
template <class O>
void write_scaled(const float* from, int64_t ldf, const float* factors, int64_t n, int64_t d, O* to, int64_t ldt) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < d; j += 16)
      store16(to + i * ldt + j, first16(d - j), load16(from + i * ldf + j) * all(factors[i]));
}

}  // namespace

void attention_forward(const Attention& a, const Tensor& out, float* lse) {
  const int64_t ld = round_up(a.d, kTileN), group = a.h / a.hkv;
  typed(
      [&](auto* po) {
        each(a.b * a.hkv, [&](int64_t job) {
          const int64_t bi = job / a.hkv, kv = job % a.hkv;
          const auto r = room_for<ForwardRoom>(a);
          pack_panels(one_head(a.k, bi, kv, false), 0, a.sk, 0, a.d, a.bf16, kTileM, r.keys);
          pack_panels(one_head(a.v, bi, kv, true), 0, a.d, 0, a.sk, a.bf16, kTileN, r.values);
          for (int64_t g = 0; g < group * a.blocks(); g++) {
            const Block k = block_of(a, bi, kv * group + g / a.blocks(), g % a.blocks());
            float* logs = lse ? lse + (bi * a.h + k.hi) * a.sq + k.q0 : nullptr;
            pack_kernel(one_head(a.q, bi, k.hi, false), k.q0, k.n, 0, a.d, a.bf16, kQ, r.queries);
            products(a, k, r.keys, r.queries, r.s);
            float inv[kQ];
            for (int half = 0; half < 2; half++) softmax(a, k, half, r.s, inv, logs);
            times(a, k, r.s, r.values, r.o, ld);
            auto* to = po + offset(out, bi, k.hi) + k.q0 * out.stride(2);
            write_scaled(r.o, ld, inv, k.n, a.d, to, out.stride(2));
          }
        });
      },
      out);
}

}  // namespace gp::GP_PATH
