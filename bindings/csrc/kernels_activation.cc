// GELU and SwiGLU, one pass over memory forward and one back.
#include "kernels_activation.h"

#include "fused.h"
#include "kernel_table.h"

namespace gp {
namespace {

// spare is whether x's own memory can take a result: the caller reads x no more, and neither does autograd.
bool spare(const Tensor& x, bool reuse) { return reuse && !x.requires_grad() && x.is_contiguous(); }

Tensor gelu_forward(const Tensor& x, bool reuse = false) {
  Tensor out = spare(x, reuse) ? x : like(x);
  kernels().gelu(x, out);
  return out;
}

// gelu_gradient is x's gradient for the gradient g of GELU(x).
Tensor gelu_gradient(const Tensor& x, const Tensor& g) {
  Tensor dx = like(x);
  kernels().gelu_gradient(x, g, dx);
  return dx;
}

struct GELU : torch::autograd::Function<GELU> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x) {
    at::AutoDispatchBelowAutograd below;
    ctx->save_for_backward({x});
    return gelu_forward(x.contiguous());
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::NoGradGuard no_grad;
    if (!grads[0].defined()) return {Tensor()};
    return {gelu_gradient(ctx->get_saved_variables()[0].contiguous(), grads[0].contiguous())};
  }
};

Tensor swiglu_forward(const Tensor& gate, const Tensor& up, bool reuse = false) {
  TORCH_CHECK(gate.sizes() == up.sizes(), "gate and up differ in shape");
  const auto type = at::promote_types(gate.scalar_type(), up.scalar_type());
  Tensor out = type == gate.scalar_type() && spare(gate, reuse) ? gate : like(gate, type);
  kernels().swiglu(gate, up, out);
  return out;
}

// swiglu_gradient is the gradients of gate and up for the gradient g of SwiGLU(gate, up).
std::pair<Tensor, Tensor> swiglu_gradient(const Tensor& gate, const Tensor& up, const Tensor& g) {
  Tensor dgate = like(gate), dup = like(up);
  kernels().swiglu_gradient(gate, up, g, dgate, dup);
  return {dgate, dup};
}

struct SwiGLU : torch::autograd::Function<SwiGLU> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gate, const Tensor& up) {
    at::AutoDispatchBelowAutograd below;
    ctx->save_for_backward({gate, up});
    return swiglu_forward(gate.contiguous(), up.contiguous());
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::NoGradGuard no_grad;
    if (!grads[0].defined()) return variable_list(2);
    auto saved = ctx->get_saved_variables();
    auto [dgate, dup] = swiglu_gradient(saved[0].contiguous(), saved[1].contiguous(), grads[0].contiguous());
    return {dgate, dup};
  }
};

}  // namespace

Tensor activated(const Tensor& x, const Tensor& up, bool reuse) {
  return up.defined() ? swiglu_forward(x.contiguous(), up.contiguous(), reuse) : gelu_forward(x.contiguous(), reuse);
}

std::pair<Tensor, Tensor> activated_backward(const Tensor& x, const Tensor& up, const Tensor& g) {
  if (up.defined()) return swiglu_gradient(x.contiguous(), up.contiguous(), g.contiguous());
  return {gelu_gradient(x.contiguous(), g.contiguous()), Tensor()};
}

}  // namespace gp

using gp::T;

char* gp_gelu(gp_tensor* out, gp_tensor x, gp_bool reuse) {
  return gp::give(
      out, [&] { return gp::recorded({T(x)}) ? gp::GELU::apply(T(x)) : gp::gelu_forward(T(x).contiguous(), reuse); });
}

char* gp_swiglu(gp_tensor* out, gp_tensor gate, gp_tensor up, gp_bool reuse) {
  return gp::give(out, [&] {
    return gp::recorded({T(gate), T(up)}) ? gp::SwiGLU::apply(T(gate), T(up))
                                          : gp::swiglu_forward(T(gate).contiguous(), T(up).contiguous(), reuse);
  });
}
