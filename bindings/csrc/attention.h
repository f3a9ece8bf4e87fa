// Attention per head in blocks of 32 queries, whose scores stay in the second-level cache; the backward pass
// computes them again (as in Dao et al. 2022, with whole rows of scores: they fit).
//
// Scores are held transposed, [keys][32 queries]: the softmax then runs over rows without reductions across
// lanes, and the block is already a panel for the product with V.
#pragma once
#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "dropout.h"
#include "gemm.h"
#include "vec.h"

namespace gp {

constexpr int kQ = kTileN;  // queries per block
static_assert(kQ == 32, "rows of scores are two vectors");

// Attention is one problem: what is attended to, and how.
struct Attention {
  at::Tensor q, k, v, bias;  // [B, H, Sq, D], [B, Hkv, Sk, D] twice, [B|1, H|1, Sk, Sq|1] fp32 or undefined
  double scale;
  bool causal, bf16;
  Dropout drop;
  int64_t b, h, hkv, sq, sk, d;
  std::vector<int64_t> first, last;  // keys that a block of queries may see, by [bias batch][bias head][block]

  int64_t blocks() const { return (sq + kQ - 1) / kQ; }
};

// Block is 32 queries of one head.
struct Block {
  int64_t bi, hi, q0, n;  // batch, query head, first query and how many
  int64_t first, last;    // keys
  const float* bias;      // of key 0 and query q0, or null
  int64_t bias_key;       // stride over keys
  bool bias_per_query;
  Dropout drop;
};

Block block_of(const Attention& a, int64_t bi, int64_t hi, int64_t index);

// The passes. The forward pass gives out [B, H, Sq, D] laid out as [B, Sq, H, D] and, unless lse is null,
// log Σ e^score [B, H, Sq]; for at most kFew queries without dropout or backward pass the one for decoding is faster.
// Undefined gradients are not computed.
at::Tensor attention_forward(const Attention& a, at::ScalarType type, at::Tensor* lse);
at::Tensor attention_decode(const Attention& a, at::ScalarType type);
void attention_backward(const Attention& a, const at::Tensor& out, const at::Tensor& lse, const at::Tensor& dout,
                        at::Tensor dq, at::Tensor dk, at::Tensor dv);
constexpr int64_t kFew = 8;

// --- what the passes share --------------------------------------------------------------------------------

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Memory hands out 64-byte aligned pieces of the thread's scratch block.
class Memory {
 public:
  float* floats(int64_t n) { return static_cast<float*>(take(n * 4)); }
  uint32_t* words(int64_t n) { return static_cast<uint32_t*>(take(n * 4)); }
  int64_t used() const { return used_; }
  void start(void* base) {
    base_ = static_cast<char*>(base);
    used_ = 0;
  }

 private:
  void* take(int64_t bytes) {
    void* p = base_ ? base_ + used_ : nullptr;
    used_ += round_up(bytes, 64);
    return p;
  }

  char* base_ = nullptr;
  int64_t used_ = 0;
};

// room_for gives a pass its working memory: Room::take names the pieces, once to add up their sizes and once for real.
template <class Room>
Room room_for(const Attention& a) {
  Memory mem;
  Room room;
  room.take(mem, a);
  mem.start(scratch(3, mem.used()));
  room.take(mem, a);
  return room;
}

// offset is where [S, D] of a head begins, in elements.
inline int64_t offset(const at::Tensor& t, int64_t bi, int64_t hi) { return bi * t.stride(0) + hi * t.stride(1); }

// one_head views [S, D] of a head as an operand, rows being positions (or, turned, dimensions).
Operand one_head(const at::Tensor& t, int64_t bi, int64_t hi, bool turned);

// products fills out[key][query] = Σd rows(key, d)·b(query, d) for the block's keys.
void products(const Attention& a, const Block& k, const uint32_t* rows, const uint32_t* b, float* out);

// times gives out[query][dim] = Σkey p[key][query]·v(dim, key) over the block's keys, as [32][ldo] fp32. p is lost when
// the product is in bf16. v is packed by dimensions, kTileN to a panel.
void times(const Attention& a, const Block& k, float* p, const uint32_t* v, float* out, int64_t ldo);

inline uint64_t mask_index(const Attention& a, const Block& k, int64_t key, int half) {
  return static_cast<uint64_t>(key * round_up(a.sq, kQ) + k.q0 + half * 16);
}

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

// score is scale·s + bias of one key for half of the block's queries.
inline __m512 score(const Attention& a, const Block& k, __m512 s, int64_t key, int half) {
  s = _mm512_mul_ps(s, _mm512_set1_ps(static_cast<float>(a.scale)));
  if (k.bias) {
    const float* p = k.bias + key * k.bias_key;
    s = _mm512_add_ps(
        s, k.bias_per_query ? _mm512_maskz_loadu_ps(first16(k.n - half * 16), p + half * 16) : _mm512_set1_ps(*p));
  }
  if (a.causal) {
    // Query i sees keys up to i + sk - sq.
    const int64_t shown = key - (a.sk - a.sq) - k.q0 - half * 16;  // lanes from this one on
    const __mmask16 m = shown <= 0 ? 0xffff : shown >= 16 ? 0 : static_cast<__mmask16>(0xffffu << shown);
    s = _mm512_mask_mov_ps(_mm512_set1_ps(std::numeric_limits<float>::lowest()), m, s);
  }
  return s;
}

#pragma GCC pop_options

}  // namespace gp
