// Attention per head in blocks of 32 queries, whose scores stay in the second-level cache; the backward pass
// computes them again (as in Dao et al. 2022, with whole rows of scores: they fit).
//
// Scores are held transposed, [keys][32 queries]: the softmax then runs over rows without reductions across
// lanes, and the block is already a panel for the product with V.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <limits>

#include "fused.h"
#include "gemm.h"
#include "guard.h"
#include "kernels.h"
#include "vec.h"

using at::Tensor;
using c10::BFloat16;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

namespace gp {
namespace {

constexpr int kQ = kTileN;  // queries per block
static_assert(kQ == 32, "rows of scores are two vectors");

int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Memory hands out 64-byte aligned pieces of the thread's scratch block.
class Memory {
 public:
  void* take(int64_t bytes) {
    void* p = base_ ? base_ + used_ : nullptr;
    used_ += up(bytes, 64);
    return p;
  }
  float* floats(int64_t n) { return static_cast<float*>(take(n * 4)); }
  uint32_t* words(int64_t n) { return static_cast<uint32_t*>(take(n * 4)); }
  int64_t used() const { return used_; }
  void start(void* base) {
    base_ = static_cast<char*>(base);
    used_ = 0;
  }

 private:
  char* base_ = nullptr;
  int64_t used_ = 0;
};

struct Attention {
  Tensor q, k, v, bias;  // [B, H, Sq, D], [B, Hkv, Sk, D] twice, [B|1, H|1, Sk, Sq|1] fp32 or undefined
  double scale;
  bool causal, bf16;
  Dropout drop;
  int64_t b, h, hkv, sq, sk, d;
  std::vector<int64_t> first, last;  // keys that a block of queries may see, by [bias batch][bias head][block]

  int64_t blocks() const { return (sq + kQ - 1) / kQ; }
};

// one_head views [S, D] of a head as an operand, rows being positions (or, turned, dimensions).
Operand one_head(const Tensor& t, int64_t bi, int64_t hi, bool turned) {
  const bool low = t.scalar_type() == at::kBFloat16;
  const auto* p = static_cast<const char*>(t.const_data_ptr()) + (bi * t.stride(0) + hi * t.stride(1)) * (low ? 2 : 4);
  return turned ? Operand{p, low, 1, t.stride(2)} : Operand{p, low, t.stride(2), 1};
}

// find_visible fills first and last: what lies outside has no part in any of the block's softmaxes.
void find_visible(Attention& a) {
  const int64_t nb = a.bias.defined() ? a.bias.size(0) : 1, nh = a.bias.defined() ? a.bias.size(1) : 1;
  a.first.assign(static_cast<size_t>(nb * nh * a.blocks()), 0);
  a.last.assign(a.first.size(), a.sk);
  const float hidden = -1e30f;
  size_t at = 0;
  for (int64_t bi = 0; bi < nb; bi++)
    for (int64_t hi = 0; hi < nh; hi++)
      for (int64_t block = 0; block < a.blocks(); block++, at++) {
        if (a.causal) a.last[at] = std::max<int64_t>(1, std::min(a.sk, (block + 1) * kQ + a.sk - a.sq));
        if (!a.bias.defined()) continue;
        const int64_t q0 = a.bias.size(3) == 1 ? 0 : block * kQ, n = a.bias.size(3) == 1 ? 1 : std::min<int64_t>(kQ, a.sq - q0);
        const float* p = a.bias.const_data_ptr<float>() + bi * a.bias.stride(0) + hi * a.bias.stride(1) + q0;
        // A query that sees nothing has an even softmax over all keys: nothing is left out for its block.
        std::vector<char> sees(static_cast<size_t>(n), 0);
        int64_t first = a.sk, last = 0;
        for (int64_t key = 0; key < a.last[at]; key++)
          for (int64_t i = 0; i < n; i++)
            if (p[key * a.bias.stride(2) + i] > hidden) {
              sees[static_cast<size_t>(i)] = 1;
              first = std::min(first, key);
              last = key + 1;
            }
        if (std::find(sees.begin(), sees.end(), 0) != sees.end()) continue;
        a.first[at] = first;
        a.last[at] = last;
      }
}

// Block is 32 queries of one head.
struct Block {
  int64_t bi, hi, q0, n;   // batch, query head, first query and how many
  int64_t first, last;     // keys
  const float* bias;       // of key 0 and query q0, or null
  int64_t bias_key;        // stride over keys
  bool bias_per_query;
  Dropout drop;
};

Block block_of(const Attention& a, int64_t bi, int64_t hi, int64_t index) {
  Block k{};
  k.bi = bi;
  k.hi = hi;
  k.q0 = index * kQ;
  k.n = std::min<int64_t>(kQ, a.sq - k.q0);
  int64_t at = index;
  if (a.bias.defined()) {
    const int64_t bb = a.bias.size(0) == 1 ? 0 : bi, bh = a.bias.size(1) == 1 ? 0 : hi;
    at += (bb * a.bias.size(1) + bh) * a.blocks();
    k.bias_per_query = a.bias.size(3) != 1;
    k.bias = a.bias.const_data_ptr<float>() + bb * a.bias.stride(0) + bh * a.bias.stride(1) + (k.bias_per_query ? k.q0 : 0);
    k.bias_key = a.bias.stride(2);
  }
  k.first = a.first[static_cast<size_t>(at)] / kTileM * kTileM;  // panels of K begin at multiples of the tile
  k.last = a.last[static_cast<size_t>(at)];
  if (a.drop.on()) k.drop = a.drop.stream(static_cast<uint64_t>(bi * a.h + hi));
  return k;
}

// products fills out[key][query] = Σd rows(key, d)·b(query, d) for the block's keys.
void products(const Attention& a, const Block& k, const uint32_t* rows, const uint32_t* b, float* out) {
  const int64_t words = panel_words(a.d, a.bf16);
  for (int64_t key = k.first; key < k.last; key += kTileM) {
    Tile t{};
    t.c = out + key * kQ;
    t.ldc = kQ;
    t.cols = kQ;
    tile(a.bf16, static_cast<int>(std::min<int64_t>(kTileM, k.last - key)), words, rows + key * words, kTileM, b, kQ, t);
  }
}

// score is scale·s + bias of one key for half of the block's queries.
inline __m512 score(const Attention& a, const Block& k, __m512 s, int64_t key, int half) {
  s = _mm512_mul_ps(s, _mm512_set1_ps(static_cast<float>(a.scale)));
  if (k.bias) {
    const float* p = k.bias + key * k.bias_key;
    s = _mm512_add_ps(s, k.bias_per_query ? _mm512_maskz_loadu_ps(first16(k.n - half * 16), p + half * 16) : _mm512_set1_ps(*p));
  }
  if (a.causal) {
    // Query i sees keys up to i + sk - sq.
    const int64_t shown = key - (a.sk - a.sq) - k.q0 - half * 16;  // lanes from this one on
    const __mmask16 m = shown <= 0 ? 0xffff : shown >= 16 ? 0 : static_cast<__mmask16>(0xffffu << shown);
    s = _mm512_mask_mov_ps(_mm512_set1_ps(std::numeric_limits<float>::lowest()), m, s);
  }
  return s;
}

inline uint64_t mask_index(const Attention& a, const Block& k, int64_t key, int half) {
  return static_cast<uint64_t>(key * up(a.sq, kQ) + k.q0 + half * 16);
}

inline __m512i pair(__m512 even, __m512 odd) {
  const __m512i lo = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even)), hi = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
  return _mm512_or_si512(lo, _mm512_slli_epi32(hi, 16));
}

// squeeze turns rows of fp32 into words of two rows each, in place.
void squeeze(float* rows, int64_t first, int64_t last) {
  auto* words = reinterpret_cast<uint32_t*>(rows);
  for (int64_t key = first; key < last; key += 2)
    for (int half = 0; half < 2; half++) {
      const __m512 even = _mm512_loadu_ps(rows + key * kQ + half * 16);
      const __m512 odd = key + 1 < last ? _mm512_loadu_ps(rows + (key + 1) * kQ + half * 16) : _mm512_setzero_ps();
      _mm512_storeu_si512(words + (key / 2) * kQ + half * 16, pair(even, odd));
    }
}

// times gives out[query][dim] = Σkey p[key][query]·v(dim, key) over the block's keys, as [32][ldo] fp32.
// p is fp32 rows, squeezed here if the product is in bf16. v is packed by dimensions, kTileN to a panel.
void times(const Attention& a, const Block& k, float* p, const uint32_t* v, float* out, int64_t ldo) {
  int64_t first = k.first, words = k.last - k.first;
  if (a.bf16) {
    squeeze(p, k.first, k.last);  // k.first is even
    first /= 2;
    words = (words + 1) / 2;
  }
  const int64_t depth = panel_words(a.sk, a.bf16);
  for (int64_t j = 0; j < a.d; j += kTileN)
    for (int64_t i = 0; i < k.n; i += kTileM) {
      Tile t{};
      t.c = out + i * ldo + j;
      t.ldc = ldo;
      t.cols = static_cast<int>(std::min<int64_t>(kTileN, a.d - j));
      tile(a.bf16, static_cast<int>(std::min<int64_t>(kTileM, k.n - i)), words, reinterpret_cast<uint32_t*>(p) + first * kQ + i, kQ,
           v + j * depth + first * kTileN, kTileN, t);
    }
}

// Result of the forward pass: out [B, H, Sq, D] laid out as [B, Sq, H, D], and log Σ e^score [B, H, Sq].
Tensor forward(const Attention& a, at::ScalarType type, Tensor* lse) {
  Tensor out = at::empty({a.b, a.sq, a.h, a.d}, at::TensorOptions().dtype(type)).transpose(1, 2);
  if (lse) *lse = at::empty({a.b, a.h, a.sq}, at::TensorOptions().dtype(at::kFloat));
  float* plse = lse ? lse->mutable_data_ptr<float>() : nullptr;
  const int64_t words = panel_words(a.d, a.bf16), ld = up(a.d, kTileN), group = a.h / a.hkv;
  typed(out, [&](auto* po) {
    each(a.b * a.hkv, [&](int64_t job) {
      const int64_t bi = job / a.hkv, kv = job % a.hkv;
      Memory mem;
      uint32_t *keys = nullptr, *values = nullptr, *queries = nullptr;
      float *s = nullptr, *o = nullptr;
      for (int pass = 0; pass < 2; pass++) {
        if (pass) mem.start(scratch(3, mem.used()));
        keys = mem.words(up(a.sk, kTileM) * words);
        values = mem.words(panel_words(a.sk, a.bf16) * ld);
        queries = mem.words(words * kQ);
        s = mem.floats(up(a.sk, 2) * kQ);
        o = mem.floats(kQ * ld);
      }
      pack_panels(one_head(a.k, bi, kv, false), 0, a.sk, 0, a.d, a.bf16, kTileM, keys);
      pack_panels(one_head(a.v, bi, kv, true), 0, a.d, 0, a.sk, a.bf16, kTileN, values);
      for (int64_t g = 0; g < group * a.blocks(); g++) {
        const Block k = block_of(a, bi, kv * group + g / a.blocks(), g % a.blocks());
        pack(one_head(a.q, bi, k.hi, false), k.q0, k.n, 0, a.d, a.bf16, kQ, queries);
        products(a, k, keys, queries, s);
        float inv[kQ];
        for (int half = 0; half < 2; half++) {
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
          if (plse) {
            float m[16], total[16];
            _mm512_storeu_ps(m, most);
            _mm512_storeu_ps(total, sum);
            for (int64_t i = half * 16; i < std::min<int64_t>(k.n, half * 16 + 16); i++)
              plse[(bi * a.h + k.hi) * a.sq + k.q0 + i] = m[i - half * 16] + std::log(total[i - half * 16]);
          }
        }
        times(a, k, s, values, o, ld);
        for (int64_t i = 0; i < k.n; i++) {
          auto* to = po + bi * out.stride(0) + k.hi * out.stride(1) + (k.q0 + i) * out.stride(2);
          for (int64_t j = 0; j < a.d; j += 16)
            store16(to + j, first16(a.d - j), _mm512_mul_ps(_mm512_loadu_ps(o + i * ld + j), _mm512_set1_ps(inv[i])));
        }
      }
    });
  });
  return out;
}

// gather_keys adds Σquery p[key][query]·x(dim, query) to out[key][dim]: the part of one block in dK or dV.
// x is packed by dimensions with the block's queries as depth.
void gather_keys(const Attention& a, const Block& k, const float* p, const uint32_t* x, uint32_t* turned, float* out, int64_t ldo) {
  const Operand o{p, false, kQ, 1};
  const int64_t words = panel_words(k.n, a.bf16);
  for (int64_t key = k.first; key < k.last; key += kTileM) {
    const int rows = static_cast<int>(std::min<int64_t>(kTileM, k.last - key));
    pack(o, key, rows, 0, k.n, a.bf16, kTileM, turned);
    for (int64_t j = 0; j < a.d; j += kTileN) {
      Tile t{};
      t.c = out + key * ldo + j;
      t.ldc = ldo;
      t.cols = static_cast<int>(std::min<int64_t>(kTileN, a.d - j));
      t.add = true;
      tile(a.bf16, rows, words, turned, kTileM, x + j * words, kTileN, t);
    }
  }
}

void write_head(const float* from, int64_t ldf, const Tensor& t, int64_t bi, int64_t hi, int64_t at, int64_t rows) {
  typed(t, [&](auto* p) {
    for (int64_t i = 0; i < rows; i++) {
      auto* to = p + bi * t.stride(0) + hi * t.stride(1) + (at + i) * t.stride(2);
      for (int64_t j = 0; j < t.size(3); j += 16) {
        const __mmask16 m = first16(t.size(3) - j);
        store16(to + j, m, _mm512_maskz_loadu_ps(m, from + i * ldf + j));
      }
    }
  });
}

// delta is Σdim dout·out per query of a block.
void delta_of(const Attention& a, const Block& k, const Tensor& out, const Tensor& dout, float* delta) {
  typed(out, [&](const auto* po) {
    typed(dout, [&](const auto* pg) {
      for (int64_t i = 0; i < kQ; i++) {
        __m512 sum = _mm512_setzero_ps();
        if (i < k.n) {
          const auto* o = po + k.bi * out.stride(0) + k.hi * out.stride(1) + (k.q0 + i) * out.stride(2);
          const auto* g = pg + k.bi * dout.stride(0) + k.hi * dout.stride(1) + (k.q0 + i) * dout.stride(2);
          for (int64_t j = 0; j < a.d; j += 16) sum = _mm512_fmadd_ps(load16(o + j, first16(a.d - j)), load16(g + j, first16(a.d - j)), sum);
        }
        delta[i] = _mm512_reduce_add_ps(sum);
      }
    });
  });
}

void backward(const Attention& a, const Tensor& out, const Tensor& lse, const Tensor& dout, Tensor dq, Tensor dk, Tensor dv) {
  const float* plse = lse.const_data_ptr<float>();
  const int64_t words = panel_words(a.d, a.bf16), ld = up(a.d, kTileN), group = a.h / a.hkv, rows = up(a.sk, kTileM);
  each(a.b * a.hkv, [&](int64_t job) {
    const int64_t bi = job / a.hkv, kv = job % a.hkv;
    Memory mem;
    uint32_t *keys = nullptr, *values = nullptr, *key_dims = nullptr, *queries = nullptr, *douts = nullptr, *query_dims = nullptr,
             *dout_dims = nullptr, *turned = nullptr;
    float *s = nullptr, *dp = nullptr, *o = nullptr, *gk = nullptr, *gv = nullptr;
    for (int pass = 0; pass < 2; pass++) {
      if (pass) mem.start(scratch(3, mem.used()));
      keys = mem.words(rows * words);
      values = mem.words(rows * words);
      key_dims = mem.words(panel_words(a.sk, a.bf16) * ld);
      queries = mem.words(words * kQ);
      douts = mem.words(words * kQ);
      query_dims = mem.words(kQ * ld);
      dout_dims = mem.words(kQ * ld);
      turned = mem.words(kQ * kTileM);
      s = mem.floats(rows * kQ);
      dp = mem.floats(rows * kQ);
      o = mem.floats(kQ * ld);
      gk = mem.floats(rows * ld);
      gv = mem.floats(rows * ld);
    }
    pack_panels(one_head(a.k, bi, kv, false), 0, a.sk, 0, a.d, a.bf16, kTileM, keys);
    pack_panels(one_head(a.v, bi, kv, false), 0, a.sk, 0, a.d, a.bf16, kTileM, values);
    if (dq.defined()) pack_panels(one_head(a.k, bi, kv, true), 0, a.d, 0, a.sk, a.bf16, kTileN, key_dims);
    std::fill(gk, gk + rows * ld, 0.f);
    std::fill(gv, gv + rows * ld, 0.f);
    for (int64_t g = 0; g < group * a.blocks(); g++) {
      const Block k = block_of(a, bi, kv * group + g / a.blocks(), g % a.blocks());
      const Operand qo = one_head(a.q, bi, k.hi, false), go = one_head(dout, bi, k.hi, false);
      pack(qo, k.q0, k.n, 0, a.d, a.bf16, kQ, queries);
      pack(go, k.q0, k.n, 0, a.d, a.bf16, kQ, douts);
      products(a, k, keys, queries, s);
      products(a, k, values, douts, dp);
      float logs[kQ] = {}, delta[kQ];
      for (int64_t i = 0; i < k.n; i++) logs[i] = plse[(bi * a.h + k.hi) * a.sq + k.q0 + i];
      delta_of(a, k, out, dout, delta);
      for (int half = 0; half < 2; half++) {
        const __m512 log = _mm512_loadu_ps(logs + half * 16), dl = _mm512_loadu_ps(delta + half * 16);
        const __m512 scale = _mm512_set1_ps(static_cast<float>(a.scale)), up16 = _mm512_set1_ps(k.drop.scale);
        const __mmask16 there = first16(k.n - half * 16);
        for (int64_t key = k.first; key < k.last; key++) {
          float *ps = s + key * kQ + half * 16, *pd = dp + key * kQ + half * 16;
          const __m512 p = _mm512_maskz_mov_ps(there, exp16(_mm512_sub_ps(score(a, k, _mm512_loadu_ps(ps), key, half), log)));
          __m512 d = _mm512_loadu_ps(pd), kept = p;
          if (k.drop.on()) {
            const __mmask16 m = keep16(k.drop, mask_index(a, k, key, half));
            kept = _mm512_maskz_mul_ps(m, p, up16);
            d = _mm512_maskz_mul_ps(m, d, up16);
          }
          _mm512_storeu_ps(ps, kept);
          _mm512_storeu_ps(pd, _mm512_mul_ps(_mm512_mul_ps(p, _mm512_sub_ps(d, dl)), scale));
        }
      }
      const int64_t depth = panel_words(k.n, a.bf16);
      for (int64_t j = 0; j < a.d; j += kTileN) {
        const int64_t n = std::min<int64_t>(kTileN, a.d - j);
        if (dk.defined()) pack(one_head(a.q, bi, k.hi, true), j, n, k.q0, k.n, a.bf16, kTileN, query_dims + j * depth);
        if (dv.defined()) pack(one_head(dout, bi, k.hi, true), j, n, k.q0, k.n, a.bf16, kTileN, dout_dims + j * depth);
      }
      if (dv.defined()) gather_keys(a, k, s, dout_dims, turned, gv, ld);
      if (dk.defined()) gather_keys(a, k, dp, query_dims, turned, gk, ld);
      if (dq.defined()) {
        times(a, k, dp, key_dims, o, ld);
        write_head(o, ld, dq, bi, k.hi, k.q0, k.n);
      }
    }
    if (dk.defined()) write_head(gk, ld, dk, bi, kv, 0, a.sk);
    if (dv.defined()) write_head(gv, ld, dv, bi, kv, 0, a.sk);
  });
}

// few is the forward pass for a few queries, as in decoding: keys and values are read as they lie, since packing
// them would cost more than the products.
constexpr int64_t kFew = 8;

Tensor few(const Attention& a, at::ScalarType type) {
  Tensor out = at::empty({a.b, a.sq, a.h, a.d}, at::TensorOptions().dtype(type)).transpose(1, 2);
  const int64_t group = a.h / a.hkv;
  typed(a.q, [&](const auto* pq) {
    typed(a.k, [&](const auto* pk) {
      typed(a.v, [&](const auto* pv) {
        typed(out, [&](auto* po) {
          each(a.b * a.h, [&](int64_t job) {
            const int64_t bi = job / a.h, hi = job % a.h, kv = hi / group, wide = up(a.d, 16);
            Memory mem;
            mem.start(scratch(3, (a.sk + 2 * wide) * 4 + 256));
            float *s = mem.floats(a.sk), *q = mem.floats(wide), *sum = mem.floats(wide);
            for (int64_t i = 0; i < a.sq; i++) {
              const auto* from = pq + bi * a.q.stride(0) + hi * a.q.stride(1) + i * a.q.stride(2);
              for (int64_t j = 0; j < a.d; j += 16) {
                _mm512_storeu_ps(q + j, _mm512_mul_ps(load16(from + j, first16(a.d - j)), _mm512_set1_ps(static_cast<float>(a.scale))));
                _mm512_storeu_ps(sum + j, _mm512_setzero_ps());
              }
              const float* bias = nullptr;
              if (a.bias.defined())
                bias = a.bias.const_data_ptr<float>() + (a.bias.size(0) == 1 ? 0 : bi) * a.bias.stride(0) +
                       (a.bias.size(1) == 1 ? 0 : hi) * a.bias.stride(1) + (a.bias.size(3) == 1 ? 0 : i);
              const int64_t seen = a.causal ? std::max<int64_t>(1, std::min(a.sk, i + 1 + a.sk - a.sq)) : a.sk;
              float most = -std::numeric_limits<float>::infinity(), total = 0;
              for (int64_t key = 0; key < seen; key++) {
                const auto* row = pk + bi * a.k.stride(0) + kv * a.k.stride(1) + key * a.k.stride(2);
                __m512 dot = _mm512_setzero_ps();
                for (int64_t j = 0; j < a.d; j += 16) dot = _mm512_fmadd_ps(load16(row + j, first16(a.d - j)), _mm512_loadu_ps(q + j), dot);
                s[key] = _mm512_reduce_add_ps(dot) + (bias ? bias[key * a.bias.stride(2)] : 0.f);
                most = std::max(most, s[key]);
              }
              for (int64_t key = 0; key < seen; key += 16) {
                const __mmask16 m = first16(seen - key);
                const __m512 e = _mm512_maskz_mov_ps(m, exp16(_mm512_sub_ps(_mm512_maskz_loadu_ps(m, s + key), _mm512_set1_ps(most))));
                total += _mm512_reduce_add_ps(e);
                _mm512_mask_storeu_ps(s + key, m, e);
              }
              for (int64_t key = 0; key < seen; key++) {
                const auto* row = pv + bi * a.v.stride(0) + kv * a.v.stride(1) + key * a.v.stride(2);
                for (int64_t j = 0; j < a.d; j += 16)
                  _mm512_storeu_ps(sum + j, _mm512_fmadd_ps(load16(row + j, first16(a.d - j)), _mm512_set1_ps(s[key]), _mm512_loadu_ps(sum + j)));
              }
              auto* to = po + bi * out.stride(0) + hi * out.stride(1) + i * out.stride(2);
              for (int64_t j = 0; j < a.d; j += 16)
                store16(to + j, first16(a.d - j), _mm512_mul_ps(_mm512_loadu_ps(sum + j), _mm512_set1_ps(1 / total)));
            }
          });
        });
      });
    });
  });
  return out;
}

Tensor dense_last(const Tensor& t) { return t.stride(3) == 1 || t.size(3) == 1 ? t : t.contiguous(); }

Attention problem(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias, double scale, bool causal, const Dropout& drop, bool bf16) {
  Attention a;
  TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && v.sizes() == k.sizes() && q.size(0) == k.size(0) && q.size(3) == k.size(3) &&
                  k.size(1) > 0 && q.size(1) % k.size(1) == 0 && k.size(2) > 0 && q.size(3) > 0,
              "queries, keys and values do not fit together");
  a.q = dense_last(q);
  a.k = dense_last(k);
  a.v = dense_last(v);
  a.b = q.size(0);
  a.h = q.size(1);
  a.hkv = k.size(1);
  a.sq = q.size(2);
  a.sk = k.size(2);
  a.d = q.size(3);
  if (bias.defined()) {
    TORCH_CHECK(bias.dim() == 4 && (bias.size(0) == 1 || bias.size(0) == a.b) && (bias.size(1) == 1 || bias.size(1) == a.h) &&
                    (bias.size(2) == 1 || bias.size(2) == a.sq) && (bias.size(3) == 1 || bias.size(3) == a.sk),
                "the bias does not broadcast to the scores");
    a.bias = bias.expand({-1, -1, -1, a.sk}).transpose(2, 3).to(at::kFloat).contiguous();
  }
  a.scale = scale;
  a.causal = causal;
  a.bf16 = bf16;
  a.drop = drop;
  find_visible(a);
  return a;
}

struct Fused : torch::autograd::Function<Fused> {
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v, const Maybe& maybe_bias, double scale,
                        bool causal, double p, int64_t seed, bool bf16, at::ScalarType type) {
    at::AutoDispatchBelowAutograd below;
    const Tensor bias = known(maybe_bias);
    Tensor lse;
    Tensor out = gp::forward(problem(q, k, v, bias, scale, causal, Dropout(p, static_cast<uint64_t>(seed)), bf16), type, &lse);
    ctx->save_for_backward({q, k, v, bias, out, lse});
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["causal"] = causal;
    ctx->saved_data["p"] = p;
    ctx->saved_data["seed"] = seed;
    ctx->saved_data["bf16"] = bf16;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::NoGradGuard no_grad;
    if (!grads[0].defined()) return variable_list(10);
    auto saved = ctx->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    const Dropout drop(ctx->saved_data["p"].toDouble(), static_cast<uint64_t>(ctx->saved_data["seed"].toInt()));
    Attention a = problem(q, k, v, saved[3], ctx->saved_data["scale"].toDouble(), ctx->saved_data["causal"].toBool(), drop, ctx->saved_data["bf16"].toBool());
    // Gradients lie as [B, S, H, D] does, which is how the heads were split from a projection.
    auto room = [&](const Tensor& t, size_t i) {
      if (!ctx->needs_input_grad(i)) return Tensor();
      return at::empty({t.size(0), t.size(2), t.size(1), t.size(3)}, at::TensorOptions().dtype(t.scalar_type())).transpose(1, 2);
    };
    Tensor dq = room(q, 0), dk = room(k, 1), dv = room(v, 2);
    gp::backward(a, saved[4], saved[5], dense_last(grads[0]), dq, dk, dv);
    variable_list out(10);
    out[0] = dq;
    out[1] = dk;
    out[2] = dv;
    return out;
  }
};

}  // namespace
}  // namespace gp

char* gp_fused_attention(gp_tensor* out, gp_tensor q, gp_tensor k, gp_tensor v, gp_tensor bias, int causal, double scale, double p) {
  GUARD(const Tensor &tq = gp::T(q), &tk = gp::T(k), &tv = gp::T(v); Tensor mask = gp::opt(bias); const bool ac = gp::autocast();
        const bool bf16 = ac || (tq.scalar_type() == at::kBFloat16 && tk.scalar_type() == at::kBFloat16);
        const at::ScalarType type = ac ? at::kBFloat16 : at::promote_types(tq.scalar_type(), tv.scalar_type());
        const uint64_t seed = p > 0 ? gp::draw_seed() : 0;
        if (gp::recorded({tq, tk, tv})) *out = gp::box(gp::Fused::apply(tq, tk, tv, gp::maybe(mask), scale, causal != 0, p, static_cast<int64_t>(seed), bf16, type));
        else {
          const gp::Attention a = gp::problem(tq, tk, tv, mask, scale, causal != 0, gp::Dropout(p, seed), bf16);
          *out = gp::box(a.sq <= gp::kFew && p == 0 ? gp::few(a, type) : gp::forward(a, type, nullptr));
        })
}
