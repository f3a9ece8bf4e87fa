// RMS norm in one pass over memory forward and one back.
#include <cmath>
#include <type_traits>

#include "fused.h"
#include "vec.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

namespace gp {
namespace {

// normalise computes one row of d elements and returns 1/√(mean(x²)+eps).
template <class X, class O>
float normalise(const X* x, const float* w, O* out, int64_t d, double eps) {
  __m512 s = _mm512_setzero_ps();
  for (int64_t j = 0; j < d; j += 16) {
    const __m512 v = load16(x + j, first16(d - j));
    s = _mm512_fmadd_ps(v, v, s);
  }
  const float inv = static_cast<float>(1 / std::sqrt(_mm512_reduce_add_ps(s) / static_cast<float>(d) + eps));
  for (int64_t j = 0; j < d; j += 16) {
    const __mmask16 m = first16(d - j);
    __m512 v = _mm512_mul_ps(load16(x + j, m), _mm512_set1_ps(inv));
    // The normalised value is rounded to x's type before the weight comes in, as in LLaMA.
    if constexpr (std::is_same_v<X, c10::BFloat16>)
      v = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(round16(v)), 16));
    store16(out + j, m, _mm512_mul_ps(v, load16(w + j, m)));
  }
  return inv;
}

Tensor rms_forward(const Tensor& x, const Tensor& w, double eps, Tensor* rstd) {
  const int64_t d = x.size(-1), n = d ? x.numel() / d : 0;
  TORCH_CHECK(w.numel() == d, "the weight's length is not the last dimension");
  const Tensor wf = flat32(w);
  Tensor out = like(x, at::promote_types(x.scalar_type(), w.scalar_type()));
  if (rstd) *rstd = at::empty({n}, at::TensorOptions().dtype(at::kFloat));
  const float* pw = wf.const_data_ptr<float>();
  float* pr = rstd ? rstd->mutable_data_ptr<float>() : nullptr;
  typed(
      [&](const auto* px, auto* po) {
        ranges(n, std::max<int64_t>(1, kLeastElements / d), [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; i++) {
            const float inv = normalise(px + i * d, pw, po + i * d, d, eps);
            if (pr) pr[i] = inv;
          }
        });
      },
      x, out);
  return out;
}

// gradients_of_row adds to dw and writes dx, unless they are null.
template <class G, class X>
void gradients_of_row(const G* g, const X* x, const float* w, float rstd, X* dx, float* dw, int64_t d) {
  const __m512 inv = _mm512_set1_ps(rstd);
  __m512 s = _mm512_setzero_ps();
  for (int64_t j = 0; j < d; j += 16) {
    const __mmask16 m = first16(d - j);
    const __m512 gy = load16(g + j, m), h = _mm512_mul_ps(load16(x + j, m), inv);
    s = _mm512_fmadd_ps(_mm512_mul_ps(gy, load16(w + j, m)), h, s);
    if (dw) store16(dw + j, m, _mm512_fmadd_ps(gy, h, load16(dw + j, m)));
  }
  if (!dx) return;
  const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(s) / static_cast<float>(d));
  for (int64_t j = 0; j < d; j += 16) {
    const __mmask16 m = first16(d - j);
    const __m512 h = _mm512_mul_ps(load16(x + j, m), inv);
    const __m512 gw = _mm512_mul_ps(load16(g + j, m), load16(w + j, m));
    store16(dx + j, m, _mm512_mul_ps(_mm512_fnmadd_ps(h, mean, gw), inv));
  }
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
    const float *pw = wf.const_data_ptr<float>(), *prstd = rstd.const_data_ptr<float>();
    typed(
        [&](const auto* pg, auto* px) {
          using X = std::remove_pointer_t<decltype(px)>;
          X* pd = need_x ? static_cast<X*>(dx.mutable_data_ptr()) : nullptr;
          each(chunks, [&](int64_t c) {
            float* dw = need_w ? sums.mutable_data_ptr<float>() + c * d : nullptr;
            for (int64_t i = n * c / chunks; i < n * (c + 1) / chunks; i++)
              gradients_of_row(pg + i * d, px + i * d, pw, prstd[i], pd ? pd + i * d : nullptr, dw, d);
          });
        },
        g, x);
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
