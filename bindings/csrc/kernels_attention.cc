// Attention as one autograd function; attention.h says how it is computed.
#include <algorithm>
#include <vector>

#include "attention.h"
#include "fused.h"
#include "kernel_table.h"

namespace gp {
namespace {

// visible narrows [first, last) to the keys that a block's queries may see by the bias of the first of them. A query
// that sees nothing has an even softmax over all keys: nothing is left out for its block.
void visible(const float* bias, int64_t stride, int64_t queries, int64_t* first, int64_t* last) {
  const float hidden = -1e30f;
  std::vector<char> sees(static_cast<size_t>(queries), 0);
  int64_t from = *last, to = 0;
  for (int64_t key = 0; key < *last; key++)
    for (int64_t i = 0; i < queries; i++) {
      if (!(bias[key * stride + i] > hidden)) continue;
      sees[static_cast<size_t>(i)] = 1;
      from = std::min(from, key);
      to = key + 1;
    }
  if (std::find(sees.begin(), sees.end(), 0) != sees.end()) return;
  *first = from;
  *last = to;
}

// find_visible fills first and last: what lies outside has no part in any of the block's softmaxes.
void find_visible(Attention& a) {
  const int64_t nb = a.bias.defined()     ? a.bias.size(0)
                     : a.starts.defined() ? a.starts.size(0)
                                          : 1,
                nh = a.bias.defined() ? a.bias.size(1) : 1;
  a.first.assign(static_cast<size_t>(nb * nh * a.blocks()), 0);
  a.last.assign(a.first.size(), a.sk);
  for (size_t at = 0; at < a.first.size(); at++) {
    const int64_t i = static_cast<int64_t>(at), block = i % a.blocks(), head = i / a.blocks();
    if (a.causal) a.last[at] = std::max<int64_t>(1, std::min(a.sk, (block + 1) * kQ + a.sk - a.sq));
    if (a.starts.defined() && a.lead == 0) {
      const float* from = a.starts.const_data_ptr<float>() + head * a.sq + block * kQ;
      const float least = *std::min_element(from, from + std::min<int64_t>(kQ, a.sq - block * kQ));
      a.first[at] = std::max<int64_t>(0, std::min(static_cast<int64_t>(least), a.last[at] - 1));
    }
    if (!a.bias.defined()) continue;
    const bool per_query = a.bias.size(3) != 1;
    const int64_t q0 = per_query ? block * kQ : 0, n = per_query ? std::min<int64_t>(kQ, a.sq - q0) : 1;
    const float* p = a.bias.const_data_ptr<float>() + offset(a.bias, head / nh, head % nh) + q0;
    visible(p, a.bias.stride(2), n, &a.first[at], &a.last[at]);
  }
}

Tensor dense_last(const Tensor& t) { return t.stride(3) == 1 || t.size(3) == 1 ? t : t.contiguous(); }

// Sight is what says which keys a query sees.
struct Sight {
  Tensor bias;
  bool causal;
  Tensor starts;
  int64_t lead;
};

Attention problem(const Tensor& q, const Tensor& k, const Tensor& v, const Sight& sight, double scale,
                  const Dropout& drop, bool bf16) {
  const Tensor& bias = sight.bias;
  Attention a;
  TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && v.sizes() == k.sizes() && q.size(0) == k.size(0) &&
                  q.size(3) == k.size(3) && k.size(1) > 0 && q.size(1) % k.size(1) == 0 && k.size(2) > 0 &&
                  q.size(3) > 0,
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
    TORCH_CHECK(bias.dim() == 4 && (bias.size(0) == 1 || bias.size(0) == a.b) &&
                    (bias.size(1) == 1 || bias.size(1) == a.h) && (bias.size(2) == 1 || bias.size(2) == a.sq) &&
                    (bias.size(3) == 1 || bias.size(3) == a.sk),
                "the bias does not broadcast to the scores");
    a.bias = bias.expand({-1, -1, -1, a.sk}).transpose(2, 3).to(at::kFloat).contiguous();
  }
  a.lead = sight.lead;
  if (sight.starts.defined()) {
    const Tensor& t = sight.starts;
    TORCH_CHECK(t.dim() == 2 && (t.size(0) == 1 || t.size(0) == a.b) && t.size(1) == a.sq && sight.causal &&
                    !bias.defined() && a.sk < (int64_t{1} << 24),
                "the first keys that queries see do not fit them");
    a.starts = t.to(at::kFloat).contiguous();
  }
  a.scale = scale;
  a.causal = sight.causal;
  a.bf16 = bf16;
  a.drop = drop;
  find_visible(a);
  return a;
}

// result is room for a problem's result [B, H, Sq, D], laid out as [B, Sq, H, D].
Tensor result(const Attention& a, at::ScalarType type) {
  return at::empty({a.b, a.sq, a.h, a.d}, at::TensorOptions().dtype(type)).transpose(1, 2);
}

struct Fused : torch::autograd::Function<Fused> {
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Maybe& maybe_bias, bool causal, const Maybe& maybe_starts, int64_t lead, double scale,
                        double p, int64_t seed, bool bf16, at::ScalarType type) {
    at::AutoDispatchBelowAutograd below;
    const Sight sight{known(maybe_bias), causal, known(maybe_starts), lead};
    const Attention a = problem(q, k, v, sight, scale, Dropout(p, static_cast<uint64_t>(seed)), bf16);
    Tensor out = result(a, type), lse = at::empty({a.b, a.h, a.sq}, at::TensorOptions().dtype(at::kFloat));
    kernels().attention_forward(a, out, lse.mutable_data_ptr<float>());
    ctx->save_for_backward({q, k, v, out, lse, sight.bias, sight.starts});
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["causal"] = causal;
    ctx->saved_data["lead"] = lead;
    ctx->saved_data["p"] = p;
    ctx->saved_data["seed"] = seed;
    ctx->saved_data["bf16"] = bf16;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::NoGradGuard no_grad;
    constexpr size_t kInputs = 12;
    if (!grads[0].defined()) return variable_list(kInputs);
    auto saved = ctx->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2];
    const Dropout drop(ctx->saved_data["p"].toDouble(), static_cast<uint64_t>(ctx->saved_data["seed"].toInt()));
    const Sight sight{saved[5], ctx->saved_data["causal"].toBool(), saved[6], ctx->saved_data["lead"].toInt()};
    const Attention a =
        problem(q, k, v, sight, ctx->saved_data["scale"].toDouble(), drop, ctx->saved_data["bf16"].toBool());
    // Gradients lie as [B, S, H, D] does, which is how the heads were split from a projection.
    auto room = [&](const Tensor& t, size_t i) {
      if (!ctx->needs_input_grad(i)) return Tensor();
      return at::empty({t.size(0), t.size(2), t.size(1), t.size(3)}, at::TensorOptions().dtype(t.scalar_type()))
          .transpose(1, 2);
    };
    Tensor dq = room(q, 0), dk = room(k, 1), dv = room(v, 2);
    kernels().attention_backward(a, saved[3], saved[4], dense_last(grads[0]), dq, dk, dv);
    variable_list out(kInputs);
    out[0] = dq;
    out[1] = dk;
    out[2] = dv;
    return out;
  }
};

}  // namespace

Operand one_head(const at::Tensor& t, int64_t bi, int64_t hi, bool turned) {
  const bool low = t.scalar_type() == at::kBFloat16;
  const auto* p = static_cast<const char*>(t.const_data_ptr()) + offset(t, bi, hi) * (low ? 2 : 4);
  return turned ? Operand{p, low, 1, t.stride(2)} : Operand{p, low, t.stride(2), 1};
}

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
    k.bias =
        a.bias.const_data_ptr<float>() + bb * a.bias.stride(0) + bh * a.bias.stride(1) + (k.bias_per_query ? k.q0 : 0);
    k.bias_key = a.bias.stride(2);
  }
  if (a.starts.defined()) {
    const int64_t row = a.starts.size(0) == 1 ? 0 : bi;
    at += row * a.blocks();
    k.starts = a.starts.const_data_ptr<float>() + row * a.sq + k.q0;
  }
  k.first = a.first[static_cast<size_t>(at)] / kTileM * kTileM;  // panels of K begin at multiples of the tile
  k.last = a.last[static_cast<size_t>(at)];
  if (a.drop.on()) k.drop = a.drop.stream(static_cast<uint64_t>(bi * a.h + hi));
  return k;
}

}  // namespace gp

using gp::T;

char* gp_fused_attention(gp_tensor* out, gp_tensor q, gp_tensor k, gp_tensor v, gp_tensor bias, gp_bool causal,
                         gp_tensor starts, int64_t lead, double scale, double p) {
  return gp::give(out, [&] {
    const at::Tensor &tq = T(q), &tk = T(k), &tv = T(v);
    const gp::Sight sight{gp::opt(bias), causal != 0, gp::opt(starts), lead};
    const bool cast = gp::autocast(c10::kCPU).enabled;
    const bool bf16 = cast || (tq.scalar_type() == at::kBFloat16 && tk.scalar_type() == at::kBFloat16);
    const at::ScalarType type = cast ? at::kBFloat16 : at::promote_types(tq.scalar_type(), tv.scalar_type());
    const uint64_t seed = p > 0 ? gp::draw_seed() : 0;
    if (gp::recorded({tq, tk, tv}))
      return gp::Fused::apply(tq, tk, tv, gp::maybe(sight.bias), sight.causal, gp::maybe(sight.starts), lead, scale, p,
                              static_cast<int64_t>(seed), bf16, type);
    const gp::Attention a = gp::problem(tq, tk, tv, sight, scale, gp::Dropout(p, seed), bf16);
    at::Tensor y = gp::result(a, type);
    if (a.sq <= gp::kFew && p == 0) gp::kernels().attention_decode(a, y);
    else gp::kernels().attention_forward(a, y, nullptr);
    return y;
  });
}
