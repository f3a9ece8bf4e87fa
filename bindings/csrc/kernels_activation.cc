// GELU and SwiGLU, one pass over memory forward and one back.
#include "kernels_activation.h"

#include <type_traits>

#include "elementwise.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

namespace gp {
namespace {

// gauss gives Φ(x), and e^(-x²/2): Abramowitz and Stegun 7.1.26, within 1e-7.
inline __m512 gauss(__m512 x, __m512* e) {
  const __m512 one = _mm512_set1_ps(1.f), a = _mm512_abs_ps(x);
  const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(a, _mm512_set1_ps(0.3275911f * 0.70710678f), one));
  *e = exp16(_mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-0.5f)));
  __m512 y = _mm512_set1_ps(1.061405429f);
  y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(-1.453152027f));
  y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(1.421413741f));
  y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(-0.284496736f));
  y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.254829592f));
  const __m512 tail = _mm512_mul_ps(_mm512_mul_ps(y, t), _mm512_mul_ps(*e, _mm512_set1_ps(0.5f)));
  return _mm512_mask_sub_ps(tail, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ), one, tail);
}

// spare is whether x's own memory can take a result: the caller reads x no more, and neither does autograd.
bool spare(const Tensor& x, bool reuse) { return reuse && !x.requires_grad() && x.is_contiguous(); }

Tensor gelu_forward(const Tensor& x, bool reuse = false) {
  Tensor out = spare(x, reuse) ? x : like(x);
  map(x, x, out, [&](int64_t, __m512 v, __m512) {
    __m512 e;
    return _mm512_mul_ps(v, gauss(v, &e));
  });
  return out;
}

// gelu_gradient is x's gradient for the gradient g of GELU(x).
Tensor gelu_gradient(const Tensor& x, const Tensor& g) {
  Tensor dx = like(x);
  map(x, g, dx, [&](int64_t, __m512 v, __m512 gy) {
    __m512 e;
    const __m512 phi = gauss(v, &e);
    return _mm512_mul_ps(gy, _mm512_fmadd_ps(_mm512_mul_ps(v, _mm512_set1_ps(0.39894228f)), e, phi));
  });
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

inline __m512 sigmoid(__m512 v) {
  const __m512 one = _mm512_set1_ps(1.f);
  return _mm512_div_ps(one, _mm512_add_ps(one, exp16(_mm512_sub_ps(_mm512_setzero_ps(), v))));
}

Tensor swiglu_forward(const Tensor& gate, const Tensor& up, bool reuse = false) {
  TORCH_CHECK(gate.sizes() == up.sizes(), "gate and up differ in shape");
  const auto type = at::promote_types(gate.scalar_type(), up.scalar_type());
  Tensor out = type == gate.scalar_type() && spare(gate, reuse) ? gate : like(gate, type);
  map(gate, up, out, [&](int64_t, __m512 v, __m512 u) { return _mm512_mul_ps(_mm512_mul_ps(v, sigmoid(v)), u); });
  return out;
}

// swiglu_gradient is the gradients of gate and up for the gradient g of SwiGLU(gate, up).
std::pair<Tensor, Tensor> swiglu_gradient(const Tensor& gate, const Tensor& up, const Tensor& g) {
  Tensor dgate = like(gate), dup = like(up);
  typed(
      [&](const auto* pg, auto* pa, auto* pu) {
        auto* da = static_cast<decltype(pa)>(dgate.mutable_data_ptr());
        auto* du = static_cast<decltype(pu)>(dup.mutable_data_ptr());
        blocks_of_16(g.numel(), [&](int64_t i, __mmask16 m) {
          const __m512 v = load16(pa + i, m), u = load16(pu + i, m), gy = load16(pg + i, m);
          const __m512 s = sigmoid(v), silu = _mm512_mul_ps(v, s);
          store16(du + i, m, _mm512_mul_ps(gy, silu));
          // silu' = s + silu·(1-s)
          const __m512 slope = _mm512_fmadd_ps(silu, _mm512_sub_ps(_mm512_set1_ps(1.f), s), s);
          store16(da + i, m, _mm512_mul_ps(_mm512_mul_ps(gy, u), slope));
        });
      },
      g, gate, up);
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
