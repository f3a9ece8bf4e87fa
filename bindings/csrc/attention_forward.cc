// The forward pass of attention.
#include <cmath>

#include "attention.h"
#include "fused.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

namespace gp {
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
  __m512 most = _mm512_set1_ps(-std::numeric_limits<float>::infinity()), sum = _mm512_setzero_ps();
  for (int64_t key = k.first; key < k.last; key++) {
    float* p = s + key * kQ + half * 16;
    const __m512 v = score(a, k, _mm512_loadu_ps(p), key, half);
    _mm512_storeu_ps(p, v);
    most = _mm512_max_ps(most, v);
  }
  for (int64_t key = k.first; key < k.last; key++) {
    float* p = s + key * kQ + half * 16;
    __m512 e = exp16(_mm512_sub_ps(_mm512_loadu_ps(p), most));
    sum = _mm512_add_ps(sum, e);
    if (k.drop.on()) e = _mm512_maskz_mov_ps(keep16(k.drop, mask_index(a, k, key, half)), e);
    _mm512_storeu_ps(p, e);
  }
  _mm512_storeu_ps(inv + half * 16, _mm512_div_ps(_mm512_set1_ps(k.drop.scale), sum));
  if (!lse) return;
  float m[16], total[16];
  _mm512_storeu_ps(m, most);
  _mm512_storeu_ps(total, sum);
  for (int64_t i = half * 16; i < std::min<int64_t>(k.n, half * 16 + 16); i++)
    lse[i] = m[i - half * 16] + std::log(total[i - half * 16]);
}

// write_scaled writes a block's result, each query times its factor.
template <class O>
void write_scaled(const float* from, int64_t ldf, const float* factors, int64_t n, int64_t d, O* to, int64_t ldt) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < d; j += 16)
      store16(to + i * ldt + j, first16(d - j),
              _mm512_mul_ps(_mm512_loadu_ps(from + i * ldf + j), _mm512_set1_ps(factors[i])));
}

}  // namespace

at::Tensor attention_forward(const Attention& a, at::ScalarType type, at::Tensor* lse) {
  Tensor out = at::empty({a.b, a.sq, a.h, a.d}, at::TensorOptions().dtype(type)).transpose(1, 2);
  if (lse) *lse = at::empty({a.b, a.h, a.sq}, at::TensorOptions().dtype(at::kFloat));
  float* plse = lse ? lse->mutable_data_ptr<float>() : nullptr;
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
            float* logs = plse ? plse + (bi * a.h + k.hi) * a.sq + k.q0 : nullptr;
            pack(one_head(a.q, bi, k.hi, false), k.q0, k.n, 0, a.d, a.bf16, kQ, r.queries);
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
  return out;
}

}  // namespace gp
