// Element-wise and row-wise operations, one pass over memory forward and one back.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <mutex>

#include "fused.h"
#include "gemm.h"
#include "guard.h"
#include "kernels.h"
#include "vec.h"

using at::Tensor;
using c10::BFloat16;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

namespace gp {

uint64_t draw_seed() {
  at::Generator gen = at::detail::getDefaultCPUGenerator();
  auto* cpu = at::check_generator<at::CPUGeneratorImpl>(gen);
  std::lock_guard<std::mutex> lock(cpu->mutex_);
  return cpu->random64();
}

namespace {

Tensor like(const Tensor& t, at::ScalarType d) { return at::empty(t.sizes(), at::TensorOptions().dtype(d)); }
Tensor like(const Tensor& t) { return like(t, t.scalar_type()); }
Tensor flat32(const Tensor& t) { return t.to(at::kFloat).contiguous(); }

// ranges splits n elements or rows among the threads in blocks of at least `least`.
template <class F>
void ranges(int64_t n, int64_t least, F fn) {
  at::parallel_for(0, n, least, [&](int64_t a, int64_t b) { fn(a, b); });
}

constexpr int64_t kLeastElements = 16384;

// map is out[i] = f(a[i], b[i]) over contiguous tensors of one shape; f also gets the index and the lanes.
template <class F>
void map(const Tensor& a, const Tensor& b, const Tensor& out, F f) {
  typed(a, [&](const auto* pa) {
    typed(b, [&](const auto* pb) {
      typed(out, [&](auto* po) {
        // Blocks of 16 keep the dropout masks' alignment the same however the threads share the work.
        ranges((out.numel() + 15) / 16, kLeastElements / 16, [&](int64_t begin, int64_t end) {
          for (int64_t j = begin; j < end; j++) {
            const int64_t i = j * 16;
            const __mmask16 m = first16(out.numel() - i);
            store16(po + i, m, f(i, load16(pa + i, m), load16(pb + i, m)));
          }
        });
      });
    });
  });
}

// --- layer norm -----------------------------------------------------------------------------------------

struct Norm {
  double eps;
  Dropout drop;
};

// Outputs beside the result are left out when undefined.
Tensor norm_forward(const Tensor& x, const Tensor& residual, const Tensor& w, const Tensor& b, Norm o, Tensor* xhat, Tensor* rstd) {
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
  const float *pw = wf.const_data_ptr<float>(), *pb = bf.const_data_ptr<float>();
  float* pr = xhat ? rstd->mutable_data_ptr<float>() : nullptr;
  typed(x, [&](auto* px) {
    using X = std::remove_pointer_t<decltype(px)>;
    X* ph = xhat ? static_cast<X*>(xhat->mutable_data_ptr()) : nullptr;
    typed(r, [&](const auto* pres) {
      typed(out, [&](auto* po) {
        ranges(n, std::max<int64_t>(1, kLeastElements / d), [&](int64_t begin, int64_t end) {
          auto* h = static_cast<float*>(scratch(2, (d + 16) * 4));
          for (int64_t i = begin; i < end; i++) {
            __m512 sum = _mm512_setzero_ps();
            for (int64_t j = 0; j < d; j += 16) {
              const __mmask16 m = first16(d - j);
              __m512 v = load16(px + i * d + j, m);
              if (o.drop.on()) v = _mm512_maskz_mul_ps(keep16(o.drop, static_cast<uint64_t>(i * d + j)), v, _mm512_set1_ps(o.drop.scale));
              if (residual.defined()) v = _mm512_add_ps(v, load16(pres + i * d + j, m));
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
              if (ph) store16(ph + i * d + j, m, v);
              store16(po + i * d + j, m, _mm512_fmadd_ps(v, load16(pw + j, m), load16(pb + j, m)));
            }
            if (pr) pr[i] = inv;
          }
        });
      });
    });
  });
  return out;
}

struct AddLayerNorm : torch::autograd::Function<AddLayerNorm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& w, const Tensor& b, const Maybe& maybe_residual,
                        double eps, double p, int64_t seed) {
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
    const bool shared = need_x && need_res && !drop.on() && res_type == xhat.scalar_type();
    const int64_t d = xhat.size(-1), n = d ? xhat.numel() / d : 0;
    Tensor dx = need_x ? like(xhat) : Tensor(), dres = need_res && !shared ? like(xhat, res_type) : Tensor();
    const int64_t chunks = std::max<int64_t>(1, std::min<int64_t>(at::get_num_threads(), n));
    Tensor sums = need_w ? at::zeros({chunks, 2, d}, at::TensorOptions().dtype(at::kFloat)) : Tensor();
    const float *pw = wf.const_data_ptr<float>(), *prstd = rstd.const_data_ptr<float>();
    const float inv_d = 1.f / static_cast<float>(d);
    const Tensor& any = need_res && !shared ? dres : xhat;
    typed(g, [&](const auto* pg) {
      typed(xhat, [&](auto* ph) {
        using X = std::remove_pointer_t<decltype(ph)>;
        X* px = need_x ? static_cast<X*>(dx.mutable_data_ptr()) : nullptr;
        typed(any, [&](auto* pres) {
          each(chunks, [&](int64_t c) {
            float* dw = need_w ? sums.mutable_data_ptr<float>() + c * 2 * d : nullptr;
            for (int64_t i = n * c / chunks; i < n * (c + 1) / chunks; i++) {
              __m512 s1 = _mm512_setzero_ps(), s2 = _mm512_setzero_ps();
              for (int64_t j = 0; j < d; j += 16) {
                const __mmask16 m = first16(d - j);
                const __m512 gy = load16(pg + i * d + j, m), h = load16(ph + i * d + j, m), gw = _mm512_mul_ps(gy, load16(pw + j, m));
                s1 = _mm512_add_ps(s1, gw);
                s2 = _mm512_fmadd_ps(gw, h, s2);
                if (dw) {
                  store16(dw + j, m, _mm512_fmadd_ps(gy, h, load16(dw + j, m)));
                  store16(dw + d + j, m, _mm512_add_ps(gy, load16(dw + d + j, m)));
                }
              }
              if (!need_x && !need_res) continue;
              const __m512 c1 = _mm512_set1_ps(_mm512_reduce_add_ps(s1) * inv_d), c2 = _mm512_set1_ps(_mm512_reduce_add_ps(s2) * inv_d);
              const __m512 inv = _mm512_set1_ps(prstd[i]);
              for (int64_t j = 0; j < d; j += 16) {
                const __mmask16 m = first16(d - j);
                const __m512 gw = _mm512_mul_ps(load16(pg + i * d + j, m), load16(pw + j, m));
                __m512 v = _mm512_sub_ps(gw, _mm512_fmadd_ps(load16(ph + i * d + j, m), c2, c1));
                v = _mm512_mul_ps(v, inv);
                if (need_res && !shared) store16(pres + i * d + j, m, v);
                if (!need_x) continue;
                if (drop.on()) v = _mm512_maskz_mul_ps(keep16(drop, static_cast<uint64_t>(i * d + j)), v, _mm512_set1_ps(drop.scale));
                store16(px + i * d + j, m, v);
              }
            }
          });
        });
      });
    });
    Tensor dw, db;
    if (need_w) {
      Tensor s = sums.sum(0);
      dw = s[0].to(w.scalar_type());
      db = s[1].to(ctx->saved_data["b"].toScalarType());
    }
    return {dx, dw, db, shared ? dx : dres, Tensor(), Tensor(), Tensor()};
  }
};

// --- RMS norm -------------------------------------------------------------------------------------------

Tensor rms_forward(const Tensor& x, const Tensor& w, double eps, Tensor* rstd) {
  const int64_t d = x.size(-1), n = d ? x.numel() / d : 0;
  TORCH_CHECK(w.numel() == d, "the weight's length is not the last dimension");
  const Tensor wf = flat32(w);
  Tensor out = like(x, at::promote_types(x.scalar_type(), w.scalar_type()));
  if (rstd) *rstd = at::empty({n}, at::TensorOptions().dtype(at::kFloat));
  const float* pw = wf.const_data_ptr<float>();
  float* pr = rstd ? rstd->mutable_data_ptr<float>() : nullptr;
  typed(x, [&](auto* px) {
    using X = std::remove_pointer_t<decltype(px)>;
    typed(out, [&](auto* po) {
      ranges(n, std::max<int64_t>(1, kLeastElements / d), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {
          __m512 s = _mm512_setzero_ps();
          for (int64_t j = 0; j < d; j += 16) {
            const __m512 v = load16(px + i * d + j, first16(d - j));
            s = _mm512_fmadd_ps(v, v, s);
          }
          const float inv = static_cast<float>(1 / std::sqrt(_mm512_reduce_add_ps(s) / static_cast<float>(d) + eps));
          for (int64_t j = 0; j < d; j += 16) {
            const __mmask16 m = first16(d - j);
            __m512 v = _mm512_mul_ps(load16(px + i * d + j, m), _mm512_set1_ps(inv));
            // The normalised value is rounded to x's type before the weight comes in, as in LLaMA.
            if constexpr (std::is_same_v<X, BFloat16>) v = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(round16(v)), 16));
            store16(po + i * d + j, m, _mm512_mul_ps(v, load16(pw + j, m)));
          }
          if (pr) pr[i] = inv;
        }
      });
    });
  });
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
    const int64_t d = x.size(-1), n = d ? x.numel() / d : 0, chunks = std::max<int64_t>(1, std::min<int64_t>(at::get_num_threads(), n));
    Tensor dx = need_x ? like(x) : Tensor(), sums = need_w ? at::zeros({chunks, d}, at::TensorOptions().dtype(at::kFloat)) : Tensor();
    const float *pw = wf.const_data_ptr<float>(), *prstd = rstd.const_data_ptr<float>();
    typed(g, [&](const auto* pg) {
      typed(x, [&](auto* px) {
        using X = std::remove_pointer_t<decltype(px)>;
        X* pd = need_x ? static_cast<X*>(dx.mutable_data_ptr()) : nullptr;
        each(chunks, [&](int64_t c) {
          float* dw = need_w ? sums.mutable_data_ptr<float>() + c * d : nullptr;
          for (int64_t i = n * c / chunks; i < n * (c + 1) / chunks; i++) {
            const __m512 inv = _mm512_set1_ps(prstd[i]);
            __m512 s = _mm512_setzero_ps();
            for (int64_t j = 0; j < d; j += 16) {
              const __mmask16 m = first16(d - j);
              const __m512 gy = load16(pg + i * d + j, m), h = _mm512_mul_ps(load16(px + i * d + j, m), inv);
              s = _mm512_fmadd_ps(_mm512_mul_ps(gy, load16(pw + j, m)), h, s);
              if (dw) store16(dw + j, m, _mm512_fmadd_ps(gy, h, load16(dw + j, m)));
            }
            if (!need_x) continue;
            const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(s) / static_cast<float>(d));
            for (int64_t j = 0; j < d; j += 16) {
              const __mmask16 m = first16(d - j);
              const __m512 h = _mm512_mul_ps(load16(px + i * d + j, m), inv);
              const __m512 gw = _mm512_mul_ps(load16(pg + i * d + j, m), load16(pw + j, m));
              store16(pd + i * d + j, m, _mm512_mul_ps(_mm512_fnmadd_ps(h, mean, gw), inv));
            }
          }
        });
      });
    });
    return {dx, need_w ? sums.sum(0).to(w.scalar_type()) : Tensor(), Tensor()};
  }
};

// --- activations ----------------------------------------------------------------------------------------

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
  typed(g, [&](const auto* pg) {
    typed(gate, [&](auto* pa) {
      using A = std::remove_pointer_t<decltype(pa)>;
      typed(up, [&](auto* pu) {
        using U = std::remove_pointer_t<decltype(pu)>;
        A* da = static_cast<A*>(dgate.mutable_data_ptr());
        U* du = static_cast<U*>(dup.mutable_data_ptr());
        ranges((g.numel() + 15) / 16, kLeastElements / 16, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin * 16; i < end * 16; i += 16) {
            const __mmask16 m = first16(g.numel() - i);
            const __m512 v = load16(pa + i, m), u = load16(pu + i, m), gy = load16(pg + i, m), s = sigmoid(v), silu = _mm512_mul_ps(v, s);
            store16(du + i, m, _mm512_mul_ps(gy, silu));
            // silu' = s + silu·(1-s)
            store16(da + i, m, _mm512_mul_ps(_mm512_mul_ps(gy, u), _mm512_fmadd_ps(silu, _mm512_sub_ps(_mm512_set1_ps(1.f), s), s)));
          }
        });
      });
    });
  });
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

Tensor dropped(const Tensor& x, const Dropout& d) {
  Tensor out = like(x);
  map(x, x, out, [&](int64_t i, __m512 v, __m512) {
    return _mm512_maskz_mul_ps(keep16(d, static_cast<uint64_t>(i)), v, _mm512_set1_ps(d.scale));
  });
  return out;
}

struct DropoutFn : torch::autograd::Function<DropoutFn> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, double p, int64_t seed) {
    at::AutoDispatchBelowAutograd below;
    ctx->saved_data["p"] = p;
    ctx->saved_data["seed"] = seed;
    return dropped(x.contiguous(), Dropout(p, static_cast<uint64_t>(seed)));
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::NoGradGuard no_grad;
    if (!grads[0].defined()) return variable_list(3);
    const Dropout d(ctx->saved_data["p"].toDouble(), static_cast<uint64_t>(ctx->saved_data["seed"].toInt()));
    return {dropped(grads[0].contiguous(), d), Tensor(), Tensor()};
  }
};

// --- rotary positions -----------------------------------------------------------------------------------

// rotate turns the pairs (x[j], x[j+d/2]) of x [B, H, S, D] by the angles of cos and sin [1 or B, 1, S, D],
// backwards when sign is -1. The result's memory is laid out as x's.
Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, float sign) {
  Tensor out = at::empty_like(x);
  const int64_t b = x.size(0), h = x.size(1), s = x.size(2), half = x.size(3) / 2;
  const Tensor c = cos.to(at::kFloat).expand({b, 1, s, 2 * half}), n = sin.to(at::kFloat).expand({b, 1, s, 2 * half});
  TORCH_CHECK(c.stride(3) == 1 && n.stride(3) == 1, "cos and sin must be contiguous in their last dimension");
  typed(x, [&](auto* px) {
    using X = std::remove_pointer_t<decltype(px)>;
    X* po = static_cast<X*>(out.mutable_data_ptr());
    ranges(b * s, std::max<int64_t>(1, kLeastElements / (h * 2 * half)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t bi = i / s, si = i % s;
        const float *pc = c.const_data_ptr<float>() + bi * c.stride(0) + si * c.stride(2), *ps = n.const_data_ptr<float>() + bi * n.stride(0) + si * n.stride(2);
        for (int64_t k = 0; k < h; k++) {
          const X* from = px + bi * x.stride(0) + k * x.stride(1) + si * x.stride(2);
          X* to = po + bi * out.stride(0) + k * out.stride(1) + si * out.stride(2);
          for (int64_t j = 0; j < half; j += 16) {
            const __mmask16 m = first16(half - j);
            const __m512 x1 = load16(from + j, m), x2 = load16(from + half + j, m), turn = _mm512_set1_ps(sign);
            const __m512 s1 = _mm512_mul_ps(load16(ps + j, m), turn), s2 = _mm512_mul_ps(load16(ps + half + j, m), turn);
            // Forward the first half takes sin of its own index; backward, transposed, that of the other half.
            const __m512 a = sign > 0 ? s1 : s2, z = sign > 0 ? s2 : s1;
            store16(to + j, m, _mm512_fnmadd_ps(x2, a, _mm512_mul_ps(x1, load16(pc + j, m))));
            store16(to + half + j, m, _mm512_fmadd_ps(x1, z, _mm512_mul_ps(x2, load16(pc + half + j, m))));
          }
        }
      }
    });
  });
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

Tensor activated(const Tensor& x, const Tensor& up, bool reuse) {
  return up.defined() ? swiglu_forward(x.contiguous(), up.contiguous(), reuse) : gelu_forward(x.contiguous(), reuse);
}

std::pair<Tensor, Tensor> activated_backward(const Tensor& x, const Tensor& up, const Tensor& g) {
  if (up.defined()) return swiglu_gradient(x.contiguous(), up.contiguous(), g.contiguous());
  return {gelu_gradient(x.contiguous(), g.contiguous()), Tensor()};
}

}  // namespace gp

using gp::T;

int gp_fusable(gp_tensor a, gp_tensor b, gp_tensor c, gp_tensor d) {
  bool low = gp::autocast();
  for (gp_tensor p : {a, b, c, d}) {
    if (!p) continue;
    const auto type = T(p).scalar_type();
    if (!T(p).is_cpu() || (type != at::kFloat && type != at::kBFloat16) || T(p).layout() != at::kStrided) return 0;
    low = low || type == at::kBFloat16;
  }
  if (gp::autocast() && gp::autocast_type() != at::kBFloat16) return 0;
  return low ? gp::has_avx512_bf16() : gp::has_avx512();
}

char* gp_add_layer_norm(gp_tensor* out, gp_tensor x, gp_tensor residual, gp_tensor w, gp_tensor b, double eps, double p) {
  GUARD(Tensor r = gp::opt(residual), xc = T(x).contiguous(); if (r.defined()) r = r.contiguous();
        const auto seed = p > 0 ? gp::draw_seed() : 0;
        *out = gp::box(gp::recorded({xc, r, T(w), T(b)})
                           ? gp::AddLayerNorm::apply(xc, T(w), T(b), gp::maybe(r), eps, p, static_cast<int64_t>(seed))
                           : gp::norm_forward(xc, r, T(w), T(b), {eps, gp::Dropout(p, seed)}, nullptr, nullptr));)
}

char* gp_rms_norm(gp_tensor* out, gp_tensor x, gp_tensor w, double eps) {
  GUARD(*out = gp::box(gp::recorded({T(x), T(w)}) ? gp::RMSNorm::apply(T(x), T(w), eps)
                                                  : gp::rms_forward(T(x).contiguous(), T(w), eps, nullptr));)
}

char* gp_gelu(gp_tensor* out, gp_tensor x, int reuse) {
  GUARD(*out = gp::box(gp::recorded({T(x)}) ? gp::GELU::apply(T(x)) : gp::gelu_forward(T(x).contiguous(), reuse));)
}

char* gp_swiglu(gp_tensor* out, gp_tensor gate, gp_tensor up, int reuse) {
  GUARD(*out = gp::box(gp::recorded({T(gate), T(up)}) ? gp::SwiGLU::apply(T(gate), T(up))
                                                      : gp::swiglu_forward(T(gate).contiguous(), T(up).contiguous(), reuse));)
}

char* gp_dropout(gp_tensor* out, gp_tensor x, double p) {
  GUARD(const auto seed = gp::draw_seed();
        *out = gp::box(gp::recorded({T(x)}) ? gp::DropoutFn::apply(T(x), p, static_cast<int64_t>(seed))
                                            : gp::dropped(T(x).contiguous(), gp::Dropout(p, seed)));)
}

char* gp_rotate(gp_tensor* out, gp_tensor x, gp_tensor cos, gp_tensor sin) {
  GUARD(*out = gp::box(gp::recorded({T(x)}) ? gp::Rotate::apply(T(x), T(cos), T(sin)) : gp::rotate(gp::last_dense(T(x)), T(cos), T(sin), 1));)
}
