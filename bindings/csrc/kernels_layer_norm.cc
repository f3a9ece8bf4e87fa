// LayerNorm(dropout(x) + residual) in one pass over memory forward and one back.
#include <cmath>
#include <type_traits>

#include "dropout.h"
#include "fused.h"
#include "gemm.h"
#include "vec.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

namespace gp {
namespace {

struct Norm {
  double eps;
  Dropout drop;
};

// Weights is the scale and shift, d elements each.
struct Weights {
  const float *w, *b;
  int64_t d;
};

// normalise computes one row, whose first element has the given index in the tensor, and returns 1/σ. residual and
// hat, which takes the normalised values, may be null; h is memory for the row.
template <class X, class R, class O>
float normalise(const Norm& o, const Weights& p, const X* x, const R* residual, O* out, X* hat, float* h,
                int64_t index) {
  const int64_t d = p.d;
  __m512 sum = _mm512_setzero_ps();
  for (int64_t j = 0; j < d; j += 16) {
    const __mmask16 m = first16(d - j);
    __m512 v = load16(x + j, m);
    if (o.drop.on())
      v = _mm512_maskz_mul_ps(keep16(o.drop, static_cast<uint64_t>(index + j)), v, _mm512_set1_ps(o.drop.scale));
    if (residual) v = _mm512_add_ps(v, load16(residual + j, m));
    _mm512_storeu_ps(h + j, v);
    sum = _mm512_mask_add_ps(sum, m, sum, v);
  }
  const float mean = _mm512_reduce_add_ps(sum) / static_cast<float>(d);
  const __m512 mean16 = _mm512_set1_ps(mean);
  __m512 sq = _mm512_setzero_ps();
  for (int64_t j = 0; j < d; j += 16) {
    const __m512 v = _mm512_maskz_sub_ps(first16(d - j), _mm512_loadu_ps(h + j), mean16);
    sq = _mm512_fmadd_ps(v, v, sq);
    _mm512_storeu_ps(h + j, v);
  }
  const float inv = static_cast<float>(1 / std::sqrt(_mm512_reduce_add_ps(sq) / static_cast<float>(d) + o.eps));
  const __m512 inv16 = _mm512_set1_ps(inv);
  for (int64_t j = 0; j < d; j += 16) {
    const __mmask16 m = first16(d - j);
    const __m512 v = _mm512_mul_ps(_mm512_loadu_ps(h + j), inv16);
    if (hat) store16(hat + j, m, v);
    store16(out + j, m, _mm512_fmadd_ps(v, load16(p.w + j, m), load16(p.b + j, m)));
  }
  return inv;
}

// norm_forward also fills in the normalised values and 1/σ of each row, which the backward pass needs, unless they are
// null.
Tensor norm_forward(const Tensor& x, const Tensor& residual, const Tensor& w, const Tensor& b, Norm o, Tensor* xhat,
                    Tensor* rstd) {
  const int64_t d = x.size(-1), n = d ? x.numel() / d : 0;
  TORCH_CHECK(w.numel() == d && b.numel() == d, "the weight's length is not the last dimension");
  TORCH_CHECK(!residual.defined() || residual.sizes() == x.sizes(), "the residual's shape is not the input's");
  const Tensor wf = flat32(w), bf = flat32(b);
  const Tensor r = residual.defined() ? residual : x;
  Tensor out = like(x, at::promote_types(x.scalar_type(), r.scalar_type()));
  if (xhat) {
    *xhat = like(x);
    *rstd = at::empty({n}, at::TensorOptions().dtype(at::kFloat));
  }
  const Weights p{wf.const_data_ptr<float>(), bf.const_data_ptr<float>(), d};
  float* pr = xhat ? rstd->mutable_data_ptr<float>() : nullptr;
  const bool added = residual.defined();
  typed(
      [&](auto* px, const auto* pres, auto* po) {
        using X = std::remove_pointer_t<decltype(px)>;
        X* ph = xhat ? static_cast<X*>(xhat->mutable_data_ptr()) : nullptr;
        ranges(n, std::max<int64_t>(1, kLeastElements / d), [&](int64_t begin, int64_t end) {
          auto* h = static_cast<float*>(scratch(2, (d + 16) * 4));
          for (int64_t i = begin; i < end; i++) {
            const int64_t at = i * d;
            const float inv =
                normalise(o, p, px + at, added ? pres + at : nullptr, po + at, ph ? ph + at : nullptr, h, at);
            if (pr) pr[i] = inv;
          }
        });
      },
      x, r, out);
  return out;
}

// Back is what the backward pass of a row reads and writes beside the row: pointers are null for what is not wanted.
struct Back {
  const float *w, *rstd;
  Dropout drop;
  int64_t d;
};

// gradients_of_row adds to dw and, d elements on, to the shift's gradient, unless dw is null, and writes the gradients
// of x and of the residual unless they are null.
template <class G, class X, class R>
void gradients_of_row(const Back& p, const G* g, const X* hat, float inv_std, X* dx, R* dres, float* dw,
                      int64_t index) {
  const int64_t d = p.d;
  const float inv_d = 1.f / static_cast<float>(d);
  __m512 s1 = _mm512_setzero_ps(), s2 = _mm512_setzero_ps();
  for (int64_t j = 0; j < d; j += 16) {
    const __mmask16 m = first16(d - j);
    const __m512 gy = load16(g + j, m), h = load16(hat + j, m), gw = _mm512_mul_ps(gy, load16(p.w + j, m));
    s1 = _mm512_add_ps(s1, gw);
    s2 = _mm512_fmadd_ps(gw, h, s2);
    if (dw) {
      store16(dw + j, m, _mm512_fmadd_ps(gy, h, load16(dw + j, m)));
      store16(dw + d + j, m, _mm512_add_ps(gy, load16(dw + d + j, m)));
    }
  }
  if (!dx && !dres) return;
  const __m512 c1 = _mm512_set1_ps(_mm512_reduce_add_ps(s1) * inv_d);
  const __m512 c2 = _mm512_set1_ps(_mm512_reduce_add_ps(s2) * inv_d);
  const __m512 inv = _mm512_set1_ps(inv_std);
  for (int64_t j = 0; j < d; j += 16) {
    const __mmask16 m = first16(d - j);
    const __m512 gw = _mm512_mul_ps(load16(g + j, m), load16(p.w + j, m));
    __m512 v = _mm512_sub_ps(gw, _mm512_fmadd_ps(load16(hat + j, m), c2, c1));
    v = _mm512_mul_ps(v, inv);
    if (dres) store16(dres + j, m, v);
    if (!dx) continue;
    if (p.drop.on())
      v = _mm512_maskz_mul_ps(keep16(p.drop, static_cast<uint64_t>(index + j)), v, _mm512_set1_ps(p.drop.scale));
    store16(dx + j, m, v);
  }
}

struct AddLayerNorm : torch::autograd::Function<AddLayerNorm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& w, const Tensor& b,
                        const Maybe& maybe_residual, double eps, double p, int64_t seed) {
    at::AutoDispatchBelowAutograd below;
    const Tensor residual = known(maybe_residual);
    Tensor xhat, rstd;
    Tensor out = norm_forward(x, residual, w, b, {eps, Dropout(p, static_cast<uint64_t>(seed))}, &xhat, &rstd);
    ctx->save_for_backward({w, xhat, rstd});
    ctx->saved_data["p"] = p;
    ctx->saved_data["seed"] = seed;
    ctx->saved_data["residual"] = residual.defined() ? residual.scalar_type() : at::ScalarType::Undefined;
    ctx->saved_data["b"] = b.scalar_type();
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::NoGradGuard no_grad;
    if (!grads[0].defined()) return variable_list(7);
    auto saved = ctx->get_saved_variables();
    const Tensor w = saved[0], wf = flat32(w), xhat = saved[1], rstd = saved[2], g = grads[0].contiguous();
    const Dropout drop(ctx->saved_data["p"].toDouble(), static_cast<uint64_t>(ctx->saved_data["seed"].toInt()));
    const auto res_type = ctx->saved_data["residual"].toScalarType();
    const bool has_res = res_type != at::ScalarType::Undefined;
    const bool need_x = ctx->needs_input_grad(0), need_res = has_res && ctx->needs_input_grad(3);
    const bool need_w = ctx->needs_input_grad(1) || ctx->needs_input_grad(2);
    // Without dropout x and the residual have the same gradient.
    const bool shared = need_x && need_res && !drop.on() && res_type == xhat.scalar_type();
    const int64_t d = xhat.size(-1), n = d ? xhat.numel() / d : 0;
    Tensor dx = need_x ? like(xhat) : Tensor(), dres = need_res && !shared ? like(xhat, res_type) : Tensor();
    const int64_t chunks = std::max<int64_t>(1, std::min<int64_t>(at::get_num_threads(), n));
    Tensor sums = need_w ? at::zeros({chunks, 2, d}, at::TensorOptions().dtype(at::kFloat)) : Tensor();
    const Back p{wf.const_data_ptr<float>(), rstd.const_data_ptr<float>(), drop, d};
    typed(
        [&](const auto* pg, auto* ph, auto* pres) {
          using X = std::remove_pointer_t<decltype(ph)>;
          X* px = need_x ? static_cast<X*>(dx.mutable_data_ptr()) : nullptr;
          each(chunks, [&](int64_t c) {
            float* dw = need_w ? sums.mutable_data_ptr<float>() + c * 2 * d : nullptr;
            for (int64_t i = n * c / chunks; i < n * (c + 1) / chunks; i++) {
              const int64_t at = i * d;
              gradients_of_row(p, pg + at, ph + at, p.rstd[i], px ? px + at : nullptr,
                               dres.defined() ? pres + at : nullptr, dw, at);
            }
          });
        },
        g, xhat, dres.defined() ? dres : xhat);
    Tensor dw, db;
    if (need_w) {
      Tensor s = sums.sum(0);
      dw = s[0].to(w.scalar_type());
      db = s[1].to(ctx->saved_data["b"].toScalarType());
    }
    return {dx, dw, db, shared ? dx : dres, Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace
}  // namespace gp

using gp::T;

char* gp_add_layer_norm(gp_tensor* out, gp_tensor x, gp_tensor residual, gp_tensor w, gp_tensor b, double eps,
                        double p) {
  return gp::give(out, [&] {
    at::Tensor r = gp::opt(residual), xc = T(x).contiguous();
    if (r.defined()) r = r.contiguous();
    const auto seed = p > 0 ? gp::draw_seed() : 0;
    return gp::recorded({xc, r, T(w), T(b)})
               ? gp::AddLayerNorm::apply(xc, T(w), T(b), gp::maybe(r), eps, p, static_cast<int64_t>(seed))
               : gp::norm_forward(xc, r, T(w), T(b), {eps, gp::Dropout(p, seed)}, nullptr, nullptr);
  });
}
