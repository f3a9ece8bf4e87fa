#include "gpu.h"

#include "fused.h"

namespace gp {
namespace {

// turned is (x1·c1 - x2·s1, x2·c2 + x1·s2) of x's halves, or its transpose.
Tensor turned(const Tensor& x, const Tensor& cos, const Tensor& sin, bool transposed) {
  const int64_t half = x.size(-1) / 2;
  Tensor out = at::empty_like(x);
  Tensor y1 = out.narrow(-1, 0, half), y2 = out.narrow(-1, half, half);
  const Tensor x1 = x.narrow(-1, 0, half), x2 = x.narrow(-1, half, half);
  const Tensor s1 = sin.narrow(-1, 0, half), s2 = sin.narrow(-1, half, half);
  const double sign = transposed ? -1 : 1;
  at::mul_out(y1, x1, cos.narrow(-1, 0, half)).addcmul_(x2, transposed ? s2 : s1, -sign);
  at::mul_out(y2, x2, cos.narrow(-1, half, half)).addcmul_(x1, transposed ? s1 : s2, sign);
  return out;
}

struct Turn : torch::autograd::Function<Turn> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& cos, const Tensor& sin) {
    at::AutoDispatchBelowAutograd below;
    ctx->save_for_backward({cos, sin});
    return turned(x, cos, sin, false);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::NoGradGuard no_grad;
    if (!grads[0].defined()) return variable_list(3);
    auto saved = ctx->get_saved_variables();
    return {turned(grads[0], saved[0], saved[1], true), Tensor(), Tensor()};
  }
};

}  // namespace
}  // namespace gp

using gp::T;

char* gp_turn(gp_tensor* out, gp_tensor x, gp_tensor cos, gp_tensor sin) {
  return gp::give(out, [&] {
    return gp::recorded({T(x)}) ? gp::Turn::apply(T(x), T(cos), T(sin)) : gp::turned(T(x), T(cos), T(sin), false);
  });
}

gp_bool gp_has_scaled_rms(void) { return gp::kHasScaledRMS; }

char* gp_scaled_rms(gp_tensor* out, gp_tensor x, gp_tensor w, double eps) {
  return gp::give(out, [&] { return gp::scaled_rms(T(x), T(w), eps); });
}
