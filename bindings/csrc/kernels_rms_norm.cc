// RMS norm in one pass over memory forward and one back.
#include <algorithm>

#include "fused.h"
#include "kernel_table.h"
#include "parallel.h"

namespace gp {
namespace {

Tensor rms_forward(const Tensor& x, const Tensor& w, double eps, Tensor* rstd) {
  const int64_t d = x.size(-1), n = d ? x.numel() / d : 0;
  TORCH_CHECK(w.numel() == d, "the weight's length is not the last dimension");
  const Tensor wf = flat32(w);
  Tensor out = like(x, at::promote_types(x.scalar_type(), w.scalar_type()));
  if (rstd) *rstd = at::empty({n}, at::TensorOptions().dtype(at::kFloat));
  kernels().rms_norm(x, wf.const_data_ptr<float>(), eps, out, rstd ? rstd->mutable_data_ptr<float>() : nullptr);
  return out;
}

struct RMSNorm : torch::autograd::Function<RMSNorm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& w, double eps) {
    at::AutoDispatchBelowAutograd below;
    Tensor rstd, xc = x.contiguous();
    Tensor out = rms_forward(xc, w, eps, &rstd);
    ctx->save_for_backward({x, w, rstd});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::NoGradGuard no_grad;
    if (!grads[0].defined()) return variable_list(3);
    auto saved = ctx->get_saved_variables();
    const Tensor x = saved[0].contiguous(), w = saved[1], wf = flat32(w), rstd = saved[2], g = grads[0].contiguous();
    const bool need_x = ctx->needs_input_grad(0), need_w = ctx->needs_input_grad(1);
    const int64_t d = x.size(-1), n = d ? x.numel() / d : 0;
    const int64_t chunks = std::max<int64_t>(1, std::min<int64_t>(at::get_num_threads(), n));
    Tensor dx = need_x ? like(x) : Tensor();
    Tensor sums = need_w ? at::zeros({chunks, d}, at::TensorOptions().dtype(at::kFloat)) : Tensor();
    kernels().rms_norm_gradients(g, x, wf.const_data_ptr<float>(), rstd.const_data_ptr<float>(), dx, sums, chunks);
    return {dx, need_w ? sums.sum(0).to(w.scalar_type()) : Tensor(), Tensor()};
  }
};

}  // namespace
}  // namespace gp

using gp::T;

char* gp_rms_norm(gp_tensor* out, gp_tensor x, gp_tensor w, double eps) {
  return gp::give(out, [&] {
    return gp::recorded({T(x), T(w)}) ? gp::RMSNorm::apply(T(x), T(w), eps)
                                      : gp::rms_forward(T(x).contiguous(), T(w), eps, nullptr);
  });
}
