// LayerNorm(dropout(x) + residual) in one pass over memory forward and one back.
#include <algorithm>

#include "fused.h"
#include "kernel_table.h"
#include "parallel.h"

namespace gp {
namespace {

// norm_forward also fills in the normalised values and 1/σ of each row, which the backward pass needs, unless they are
// null.
Tensor norm_forward(const Tensor& x, const Tensor& residual, const Tensor& w, const Tensor& b, double eps,
                    const Dropout& drop, Tensor* xhat, Tensor* rstd) {
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
  const LayerNorm p{wf.const_data_ptr<float>(), bf.const_data_ptr<float>(), d, eps, drop};
  kernels().layer_norm(p, x, residual, out, xhat ? *xhat : Tensor(), xhat ? rstd->mutable_data_ptr<float>() : nullptr);
  return out;
}

struct AddLayerNorm : torch::autograd::Function<AddLayerNorm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& w, const Tensor& b,
                        const Maybe& maybe_residual, double eps, double p, int64_t seed) {
    at::AutoDispatchBelowAutograd below;
    const Tensor residual = known(maybe_residual);
    Tensor xhat, rstd;
    Tensor out = norm_forward(x, residual, w, b, eps, Dropout(p, static_cast<uint64_t>(seed)), &xhat, &rstd);
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
    const LayerNorm p{wf.const_data_ptr<float>(), nullptr, d, 0, drop};
    kernels().layer_norm_gradients(p, g, xhat, rstd.const_data_ptr<float>(), dx, dres, sums, chunks);
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
               : gp::norm_forward(xc, r, T(w), T(b), eps, gp::Dropout(p, seed), nullptr, nullptr);
  });
}
