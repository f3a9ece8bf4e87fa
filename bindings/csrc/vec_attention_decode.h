// Attention for a few queries, as in decoding: keys and values are read as they lie, since packing them would cost more
// than the products.
#pragma once
#include "vec_attention.h"

namespace gp::GP_PATH {
namespace {

// Rows of a head are `stride` apart.
template <class X>
struct Rows {
  const X* p;
  int64_t stride;
};

template <class X>
Rows<X> rows_of(const X* p, const Tensor& t, int64_t bi, int64_t hi) {
  return {p + offset(t, bi, hi), t.stride(2)};
}

// Bias of one query: of a tensor, or null, and what hides the keys from lead to start.
struct Bias {
  const float* p;
  int64_t stride;  // over keys
  int64_t lead, start;
  float of(int64_t key) const {
    if (key >= lead && key < start) return -1e38f;
    return p ? p[key * stride] : 0.f;
  }
};

Bias bias_of(const Attention& a, int64_t bi, int64_t hi, int64_t i) {
  if (a.starts.defined()) {
    const float* from = a.starts.const_data_ptr<float>() + (a.starts.size(0) == 1 ? 0 : bi) * a.sq;
    return {nullptr, 0, a.lead, static_cast<int64_t>(from[i])};
  }
  if (!a.bias.defined()) return {nullptr, 0, 0, 0};
  const float* p = a.bias.const_data_ptr<float>();
  p += offset(a.bias, a.bias.size(0) == 1 ? 0 : bi, a.bias.size(1) == 1 ? 0 : hi);
  return {p + (a.bias.size(3) == 1 ? 0 : i), a.bias.stride(2), 0, 0};
}

// scores writes q·k + bias of n keys and returns the largest.
template <class K>
float scores(const float* q, Rows<K> keys, Bias bias, int64_t n, int64_t d, float* s) {
  float most = -std::numeric_limits<float>::infinity();
  for (int64_t key = 0; key < n; key++) {
    const K* row = keys.p + key * keys.stride;
    F16 dot = all(0);
    for (int64_t j = 0; j < d; j += 16) dot = fma(load16(row + j, first16(d - j)), load16(q + j), dot);
    s[key] = sum_of(dot) + bias.of(key);
    most = std::max(most, s[key]);
  }
  return most;
}

// exponentials turns n scores into e^(s-most) and returns their sum.
float exponentials(float* s, int64_t n, float most) {
  float total = 0;
  for (int64_t key = 0; key < n; key += 16) {
    const Tail m = first16(n - key);
    const F16 e = only(m, exp16(load16(s + key, m) - all(most)));
    total += sum_of(e);
    store16(s + key, m, e);
  }
  return total;
}

// weigh adds s[key] times each of n values to sum.
template <class V>
void weigh(const float* s, Rows<V> values, int64_t n, int64_t d, float* sum) {
  for (int64_t key = 0; key < n; key++) {
    const V* row = values.p + key * values.stride;
    for (int64_t j = 0; j < d; j += 16) {
      const F16 v = load16(row + j, first16(d - j));
      store16(sum + j, fma(v, all(s[key]), load16(sum + j)));
    }
  }
}

struct DecodeRoom {
  float *s, *q, *sum;  // the scores of one query, the query times the scale, its result before the division
};

template <class Q, class K, class V, class O>
void one_query(const Attention& a, const Q* query, Rows<K> keys, Rows<V> values, Bias bias, int64_t seen, O* to,
               const DecodeRoom& r) {
  const int64_t d = a.d;
  for (int64_t j = 0; j < d; j += 16) {
    const F16 q = load16(query + j, first16(d - j));
    store16(r.q + j, q * all(static_cast<float>(a.scale)));
    store16(r.sum + j, all(0));
  }
  const float most = scores(r.q, keys, bias, seen, d, r.s);
  const float total = exponentials(r.s, seen, most);
  weigh(r.s, values, seen, d, r.sum);
  for (int64_t j = 0; j < d; j += 16) store16(to + j, first16(d - j), load16(r.sum + j) * all(1 / total));
}

}  // namespace

void attention_decode(const Attention& a, const Tensor& out) {
  const int64_t group = a.h / a.hkv;
  typed(
      [&](const auto* pq, const auto* pk, const auto* pv, auto* po) {
        each(a.b * a.h, [&](int64_t job) {
          const int64_t bi = job / a.h, hi = job % a.h, kv = hi / group, wide = round_up(a.d, 16);
          Memory mem;
          mem.start(scratch(3, (a.sk + 2 * wide) * 4 + 256));
          const DecodeRoom r{mem.floats(a.sk), mem.floats(wide), mem.floats(wide)};
          for (int64_t i = 0; i < a.sq; i++) {
            const int64_t seen = a.causal ? std::max<int64_t>(1, std::min(a.sk, i + 1 + a.sk - a.sq)) : a.sk;
            one_query(a, pq + offset(a.q, bi, hi) + i * a.q.stride(2), rows_of(pk, a.k, bi, kv),
                      rows_of(pv, a.v, bi, kv), bias_of(a, bi, hi, i), seen,
                      po + offset(out, bi, hi) + i * out.stride(2), r);
          }
        });
      },
      a.q, a.k, a.v, out);
}

}  // namespace gp::GP_PATH
