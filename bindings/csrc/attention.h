// Attention per head in blocks of 32 queries, whose scores stay in the second-level cache; the backward pass
// computes them again (as in Dao et al. 2022, with whole rows of scores: they fit).
//
// Scores are held transposed, [keys][32 queries]: the softmax then runs over rows without reductions across
// lanes, and the block is already a panel for the product with V.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "dropout.h"
#include "gemm.h"

namespace gp {

constexpr int kQ = kTileN;  // queries per block
static_assert(kQ == 32, "rows of scores are two vectors");

// Attention is one problem: what is attended to, and how.
struct Attention {
  at::Tensor q, k, v, bias;  // [B, H, Sq, D], [B, Hkv, Sk, D] twice, [B|1, H|1, Sk, Sq|1] fp32 or undefined
  at::Tensor starts;  // [B|1, Sq] fp32 or undefined: a query sees the keys from here on, and the first `lead` ones
  int64_t lead;
  double scale;
  bool causal, bf16;
  Dropout drop;
  int64_t b, h, hkv, sq, sk, d;
  // Keys that a block of queries may see, by [batch][head][block] of the bias or the starts.
  std::vector<int64_t> first, last;

  int64_t blocks() const { return (sq + kQ - 1) / kQ; }
};

// Block is 32 queries of one head.
struct Block {
  int64_t bi, hi, q0, n;  // batch, query head, first query and how many
  int64_t first, last;    // keys
  const float* bias;      // of key 0 and query q0, or null
  int64_t bias_key;       // stride over keys
  bool bias_per_query;
  const float* starts;  // of query q0, or null
  Dropout drop;
};

Block block_of(const Attention& a, int64_t bi, int64_t hi, int64_t index);

// For at most so many queries without dropout or backward pass the way of decoding is faster.
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

inline uint64_t mask_index(const Attention& a, const Block& k, int64_t key, int half) {
  return static_cast<uint64_t>(key * round_up(a.sq, kQ) + k.q0 + half * 16);
}

}  // namespace gp
