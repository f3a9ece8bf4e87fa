// The backward pass of attention.
#pragma once
#include "vec_attention.h"

namespace gp::GP_PATH {
namespace {

struct BackwardRoom {
  // Packed: K by position and by dimension, V; and of one block q and dout by position and by dimension.
  uint32_t *keys, *key_dims, *values, *queries, *douts, *query_dims, *dout_dims;
  uint32_t* turned;  // a piece of the scores, packed by key
  float *s, *dp;     // a block's weights and the gradients of its scores
  float* o;          // a block's part of dq
  float *gk, *gv;    // dK and dV of the head
  void take(Memory& mem, const Attention& a) {
    const int64_t words = panel_words(a.d, a.bf16), ld = round_up(a.d, kTileN), rows = round_up(a.sk, kTileM);
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
};

template <class X, class Y>
float dot_of_rows(const X* x, const Y* y, int64_t d) {
  F16 sum = all(0);
  for (int64_t j = 0; j < d; j += 16) sum = fma(load16(x + j, first16(d - j)), load16(y + j, first16(d - j)), sum);
  return sum_of(sum);
}

// delta_of is Σdim dout·out per query of a block.
void delta_of(const Attention& a, const Block& k, const Tensor& out, const Tensor& dout, float* delta) {
  typed(
      [&](const auto* po, const auto* pg) {
        const auto* o = po + offset(out, k.bi, k.hi) + k.q0 * out.stride(2);
        const auto* g = pg + offset(dout, k.bi, k.hi) + k.q0 * dout.stride(2);
        for (int64_t i = 0; i < kQ; i++)
          delta[i] = i < k.n ? dot_of_rows(o + i * out.stride(2), g + i * dout.stride(2), a.d) : 0.f;
      },
      out, dout);
}

// score_gradients turns half of a block's products q·k into the weights that V had, and the products dout·v into the
// gradients of q·k. logs and delta are the forward pass's log Σ e^score and delta_of, per query.
void score_gradients(const Attention& a, const Block& k, int half, const float* logs, const float* delta, float* s,
                     float* dp) {
  const F16 log = load16(logs + half * 16), dl = load16(delta + half * 16);
  const F16 scale = all(static_cast<float>(a.scale)), up16 = all(k.drop.scale);
  const Mask there = first16(k.n - half * 16);
  for (int64_t key = k.first; key < k.last; key++) {
    float *ps = s + key * kQ + half * 16, *pd = dp + key * kQ + half * 16;
    const F16 e = exp16(score(a, k, load16(ps), key, half) - log);
    const F16 p = only(there, e);
    F16 d = load16(pd), kept = p;
    if (k.drop.on()) {
      const Mask m = keep16(k.drop, mask_index(a, k, key, half));
      kept = product_where(m, p, up16);
      d = product_where(m, d, up16);
    }
    store16(ps, kept);
    store16(pd, p * (d - dl) * scale);
  }
}

// gather_keys adds Σquery p[key][query]·x(dim, query) to out[key][dim]: the part of one block in dK or dV.
// x is packed by dimensions with the block's queries as depth.
void gather_keys(const Attention& a, const Block& k, const float* p, const uint32_t* x, uint32_t* turned, float* out,
                 int64_t ldo) {
  const Operand o{p, false, kQ, 1};
  const int64_t words = panel_words(k.n, a.bf16);
  for (int64_t key = k.first; key < k.last; key += kTileM) {
    const int rows = static_cast<int>(std::min<int64_t>(kTileM, k.last - key));
    pack_kernel(o, key, rows, 0, k.n, a.bf16, kTileM, turned);
    for (int64_t j = 0; j < a.d; j += kTileN) {
      Tile t{};
      t.c = out + key * ldo + j;
      t.ldc = ldo;
      t.cols = static_cast<int>(std::min<int64_t>(kTileN, a.d - j));
      t.add = true;
      tile_kernel(a.bf16, rows, words, turned, kTileM, x + j * words, kTileN, t);
    }
  }
}

// pack_dimensions packs a block's queries of t [B, H, Sq, D] by dimension.
void pack_dimensions(const Attention& a, const Block& k, const Tensor& t, uint32_t* out) {
  const int64_t depth = panel_words(k.n, a.bf16);
  for (int64_t j = 0; j < a.d; j += kTileN) {
    const int64_t n = std::min<int64_t>(kTileN, a.d - j);
    pack_kernel(one_head(t, k.bi, k.hi, true), j, n, k.q0, k.n, a.bf16, kTileN, out + j * depth);
  }
}

// write_head writes rows of a head, from the position at on.
void write_head(const float* from, int64_t ldf, const Tensor& t, int64_t bi, int64_t hi, int64_t at, int64_t rows) {
  const int64_t d = t.size(3);
  typed(
      [&](auto* p) {
        auto* to = p + offset(t, bi, hi) + at * t.stride(2);
        for (int64_t i = 0; i < rows; i++)
          for (int64_t j = 0; j < d; j += 16) {
            const Tail m = first16(d - j);
            store16(to + i * t.stride(2) + j, m, load16(from + i * ldf + j, m));
          }
      },
      t);
}

struct Gradients {
  Tensor q, k, v;
};

// backward_of_block adds a block's part to dK and dV of its head and writes its dq.
void backward_of_block(const Attention& a, const Block& k, const Tensor& out, const float* lse, const Tensor& dout,
                       const Gradients& grads, const BackwardRoom& r) {
  const int64_t ld = round_up(a.d, kTileN);
  pack_kernel(one_head(a.q, k.bi, k.hi, false), k.q0, k.n, 0, a.d, a.bf16, kQ, r.queries);
  pack_kernel(one_head(dout, k.bi, k.hi, false), k.q0, k.n, 0, a.d, a.bf16, kQ, r.douts);
  products(a, k, r.keys, r.queries, r.s);
  products(a, k, r.values, r.douts, r.dp);
  float logs[kQ] = {}, delta[kQ];
  for (int64_t i = 0; i < k.n; i++) logs[i] = lse[(k.bi * a.h + k.hi) * a.sq + k.q0 + i];
  delta_of(a, k, out, dout, delta);
  for (int half = 0; half < 2; half++) score_gradients(a, k, half, logs, delta, r.s, r.dp);
  if (grads.v.defined()) {
    pack_dimensions(a, k, dout, r.dout_dims);
    gather_keys(a, k, r.s, r.dout_dims, r.turned, r.gv, ld);
  }
  if (grads.k.defined()) {
    pack_dimensions(a, k, a.q, r.query_dims);
    gather_keys(a, k, r.dp, r.query_dims, r.turned, r.gk, ld);
  }
  if (!grads.q.defined()) return;
  times(a, k, r.dp, r.key_dims, r.o, ld);
  write_head(r.o, ld, grads.q, k.bi, k.hi, k.q0, k.n);
}

}  // namespace

void attention_backward(const Attention& a, const Tensor& out, const Tensor& lse, const Tensor& dout, const Tensor& dq,
                        const Tensor& dk, const Tensor& dv) {
  const float* plse = lse.const_data_ptr<float>();
  const int64_t ld = round_up(a.d, kTileN), group = a.h / a.hkv, rows = round_up(a.sk, kTileM);
  const Gradients grads{dq, dk, dv};
  each(a.b * a.hkv, [&](int64_t job) {
    const int64_t bi = job / a.hkv, kv = job % a.hkv;
    const auto r = room_for<BackwardRoom>(a);
    pack_panels(one_head(a.k, bi, kv, false), 0, a.sk, 0, a.d, a.bf16, kTileM, r.keys);
    pack_panels(one_head(a.v, bi, kv, false), 0, a.sk, 0, a.d, a.bf16, kTileM, r.values);
    if (dq.defined()) pack_panels(one_head(a.k, bi, kv, true), 0, a.d, 0, a.sk, a.bf16, kTileN, r.key_dims);
    std::fill(r.gk, r.gk + rows * ld, 0.f);
    std::fill(r.gv, r.gv + rows * ld, 0.f);
    for (int64_t g = 0; g < group * a.blocks(); g++) {
      const Block k = block_of(a, bi, kv * group + g / a.blocks(), g % a.blocks());
      backward_of_block(a, k, out, plse, dout, grads, r);
    }
    if (dk.defined()) write_head(r.gk, ld, dk, bi, kv, 0, a.sk);
    if (dv.defined()) write_head(r.gv, ld, dv, bi, kv, 0, a.sk);
  });
}

}  // namespace gp::GP_PATH
