// Rotary position embeddings.
#include "fused.h"
#include "kernel_table.h"

namespace gp {
namespace {

// rotate turns x [B, H, S, D] by the angles of cos and sin [1 or B, 1, S, D]. The result's memory is laid out as x's.
Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, float sign) {
  Tensor out = at::empty_like(x);
  const int64_t b = x.size(0), h = x.size(1), s = x.size(2), half = x.size(3) / 2;
  const Tensor c = cos.to(at::kFloat).expand({b, 1, s, 2 * half}), n = sin.to(at::kFloat).expand({b, 1, s, 2 * half});
  TORCH_CHECK(c.stride(3) == 1 && n.stride(3) == 1, "cos and sin must be contiguous in their last dimension");
  kernels().rotate(x, c, n, sign, out);
  return out;
}

Tensor last_dense(const Tensor& x) { return x.stride(3) == 1 && x.is_non_overlapping_and_dense() ? x : x.contiguous(); }

struct Rotate : torch::autograd::Function<Rotate> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& cos, const Tensor& sin) {
    at::AutoDispatchBelowAutograd below;
    ctx->save_for_backward({cos, sin});
    return rotate(last_dense(x), cos, sin, 1);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::NoGradGuard no_grad;
    if (!grads[0].defined()) return variable_list(3);
    auto saved = ctx->get_saved_variables();
    return {rotate(last_dense(grads[0]), saved[0], saved[1], -1), Tensor(), Tensor()};
  }
};

}  // namespace
}  // namespace gp

using gp::T;

char* gp_rotate(gp_tensor* out, gp_tensor x, gp_tensor cos, gp_tensor sin) {
  return gp::give(out, [&] {
    return gp::recorded({T(x)}) ? gp::Rotate::apply(T(x), T(cos), T(sin))
                                : gp::rotate(gp::last_dense(T(x)), T(cos), T(sin), 1);
  });
}
