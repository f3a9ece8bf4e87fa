// RMS norm, SwiGLU and rotary embeddings on a GPU, as autograd functions of one kernel forward and one or two back.
#include "fused.h"
#include "gpu_driver.h"
#include "gpu_kernels.h"
#include "launch/training.h"

namespace gp {
namespace {

int size_of(const Tensor& t) { return static_cast<int>(t.element_size()); }

// alike fails unless all tensors are where the first is, and of its dtype.
void alike(std::initializer_list<Tensor> ts) {
  for (const Tensor& t : ts)
    TORCH_CHECK(!t.defined() || (t.device() == ts.begin()->device() && t.scalar_type() == ts.begin()->scalar_type()),
                "the tensors differ in device or dtype");
}

// gradient is a gradient as kernels read it beside x.
Tensor gradient(const Tensor& g, const Tensor& x) { return g.to(x.scalar_type()).contiguous(); }

struct Rows {
  int64_t n, d;
  explicit Rows(const Tensor& x) : n(x.size(-1) ? x.numel() / x.size(-1) : 0), d(x.size(-1)) {}
};

Tensor rms_forward(const Tensor& x, const Tensor& weight, double eps, Tensor* rstd) {
  alike({x, weight});
  const Rows rows(x);
  TORCH_CHECK(weight.numel() == rows.d, "the weight's length is not the last dimension");
  const Tensor w = weight.contiguous();
  Tensor out = at::empty_like(x);
  if (rstd) *rstd = at::empty({rows.n}, x.options().dtype(at::kFloat));
  Stream stream(x);
  launch::rms_norm(stream, size_of(x), x.const_data_ptr(), w.const_data_ptr(), out.mutable_data_ptr(),
                   rstd ? rstd->mutable_data_ptr<float>() : nullptr, rows.n, rows.d, eps);
  return out;
}

struct RMSNorm : torch::autograd::Function<RMSNorm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& w, double eps) {
    at::AutoDispatchBelowAutograd below;
    Tensor rstd, out = rms_forward(x.contiguous(), w, eps, &rstd);
    ctx->save_for_backward({x, w, rstd});
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::NoGradGuard no_grad;
    if (!grads[0].defined()) return variable_list(3);
    auto saved = ctx->get_saved_variables();
    const Tensor x = saved[0].contiguous(), w = saved[1].contiguous(), rstd = saved[2], g = gradient(grads[0], x);
    const Rows rows(x);
    const float* inv = rstd.const_data_ptr<float>();
    Stream stream(x);
    variable_list out(3);
    if (ctx->needs_input_grad(0)) {
      out[0] = at::empty_like(x);
      launch::rms_norm_backward(stream, size_of(x), g.const_data_ptr(), x.const_data_ptr(), w.const_data_ptr(), inv,
                                out[0].mutable_data_ptr(), rows.n, rows.d);
    }
    if (ctx->needs_input_grad(1)) {
      Tensor parts = at::empty({launch::weight_parts(rows.n), rows.d}, rstd.options());
      launch::rms_norm_weight(stream, g.const_data_ptr(), x.const_data_ptr(), inv, parts.mutable_data_ptr<float>(),
                              rows.n, rows.d);
      out[1] = parts.sum(0).to(w.scalar_type()).view(saved[1].sizes());
    }
    return out;
  }
};

Tensor swiglu_forward(const Tensor& gate, const Tensor& up, bool reuse) {
  alike({gate, up});
  TORCH_CHECK(gate.sizes() == up.sizes(), "gate and up differ in shape");
  const Tensor a = gate.contiguous(), u = up.contiguous();
  Tensor out = reuse && !gate.requires_grad() ? a : at::empty_like(a);
  Stream stream(a);
  launch::swiglu(stream, size_of(a), a.const_data_ptr(), u.const_data_ptr(), out.mutable_data_ptr(), a.numel());
  return out;
}

struct SwiGLU : torch::autograd::Function<SwiGLU> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gate, const Tensor& up) {
    at::AutoDispatchBelowAutograd below;
    ctx->save_for_backward({gate, up});
    return swiglu_forward(gate, up, false);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::NoGradGuard no_grad;
    if (!grads[0].defined()) return variable_list(2);
    auto saved = ctx->get_saved_variables();
    const Tensor a = saved[0].contiguous(), u = saved[1].contiguous(), g = gradient(grads[0], a);
    Tensor da = at::empty_like(a), du = at::empty_like(u);
    Stream stream(a);
    launch::swiglu_backward(stream, size_of(a), g.const_data_ptr(), a.const_data_ptr(), u.const_data_ptr(),
                            da.mutable_data_ptr(), du.mutable_data_ptr(), a.numel());
    return {da, du};
  }
};

Tensor last_dense(const Tensor& x) { return x.stride(-1) == 1 ? x : x.contiguous(); }

// heads describes from [B, H, S, D] and what it is turned into.
Heads heads(const Tensor& from, Tensor& to) {
  return {from.const_data_ptr(), to.mutable_data_ptr(), from.stride(0),
          from.stride(2),        from.stride(1),        to.stride(0),
          to.stride(2),          to.stride(1),          static_cast<int>(from.size(1))};
}

// rotated turns q and k, which may be none, by cos and sin.
std::pair<Tensor, Tensor> rotated(const Tensor& q, const Tensor& k, const Tensor& cos, const Tensor& sin,
                                  bool transposed) {
  alike({q, k, cos, sin});
  const int64_t b = q.size(0), s = q.size(2), d = q.size(3);
  TORCH_CHECK(d % 2 == 0, "heads of an odd size cannot be rotated");
  TORCH_CHECK(!k.defined() || (k.size(0) == b && k.size(2) == s && k.size(3) == d), "q and k differ in shape");
  const Tensor x = last_dense(q), c = last_dense(cos.expand({b, 1, s, d})), n = last_dense(sin.expand({b, 1, s, d}));
  const Tensor keys = k.defined() ? last_dense(k) : Tensor();
  Tensor x_out = at::empty_like(x), keys_out = k.defined() ? at::empty_like(keys) : Tensor();
  Stream stream(x);
  launch::rotate(stream, heads(x, x_out), k.defined() ? heads(keys, keys_out) : Heads{},
                 {c.const_data_ptr(), n.const_data_ptr(), c.stride(0), c.stride(2), n.stride(0), n.stride(2)}, b, s,
                 d / 2, transposed);
  return {x_out, keys_out};
}

struct Rotate : torch::autograd::Function<Rotate> {
  static variable_list forward(AutogradContext* ctx, const Tensor& q, const Maybe& k, const Tensor& cos,
                               const Tensor& sin) {
    at::AutoDispatchBelowAutograd below;
    ctx->save_for_backward({cos, sin});
    const auto [x, keys] = rotated(q, known(k), cos, sin, false);
    if (!keys.defined()) return {x};
    return {x, keys};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::NoGradGuard no_grad;
    auto saved = ctx->get_saved_variables();
    const auto as_angles = [&](const Tensor& g) { return g.to(saved[0].scalar_type()); };
    const Tensor g = as_angles(grads[0]), gk = grads.size() > 1 ? as_angles(grads[1]) : Tensor();
    const auto [dq, dk] = rotated(g, gk, saved[0], saved[1], true);
    return {dq, dk, Tensor(), Tensor()};
  }
};

}  // namespace
}  // namespace gp

using gp::T;

char* gp_kernels_load(int device, int dtype, void* code) {
  return gp::guarded([&] { gp::load_kernels(device, static_cast<at::ScalarType>(dtype), code); });
}

char* gp_compiled_rms_norm(gp_tensor* out, gp_tensor x, gp_tensor w, double eps) {
  return gp::give(out, [&] {
    return gp::recorded({T(x), T(w)}) ? gp::RMSNorm::apply(T(x), T(w), eps)
                                      : gp::rms_forward(T(x).contiguous(), T(w), eps, nullptr);
  });
}

char* gp_compiled_swiglu(gp_tensor* out, gp_tensor gate, gp_tensor up, gp_bool reuse) {
  return gp::give(out, [&] {
    return gp::recorded({T(gate), T(up)}) ? gp::SwiGLU::apply(T(gate), T(up))
                                          : gp::swiglu_forward(T(gate), T(up), reuse != 0);
  });
}

char* gp_compiled_rotate(gp_tensor* out_q, gp_tensor* out_k, gp_tensor q, gp_tensor k, gp_tensor cos, gp_tensor sin) {
  return gp::guarded([&] {
    const at::Tensor keys = gp::opt(k);
    gp::variable_list turned;
    if (gp::recorded({T(q), keys})) {
      turned = gp::Rotate::apply(T(q), gp::maybe(keys), T(cos), T(sin));
    } else {
      const auto [x, y] = gp::rotated(T(q), keys, T(cos), T(sin), false);
      turned = {x, y};
    }
    *out_k = turned.size() > 1 ? gp::box(turned[1]) : nullptr;
    *out_q = gp::box(turned[0]);
  });
}
