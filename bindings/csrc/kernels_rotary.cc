// Rotary position embeddings.
#include "fused.h"
#include "vec.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

namespace gp {
namespace {

// rotate_head turns the pairs (x[j], x[j+half]) of one position of one head by the angles of cos and sin, backwards
// when sign is -1.
template <class X>
void rotate_head(const X* from, X* to, const float* cos, const float* sin, int64_t half, float sign) {
  for (int64_t j = 0; j < half; j += 16) {
    const __mmask16 m = first16(half - j);
    const __m512 x1 = load16(from + j, m), x2 = load16(from + half + j, m), turn = _mm512_set1_ps(sign);
    const __m512 s1 = _mm512_mul_ps(load16(sin + j, m), turn), s2 = _mm512_mul_ps(load16(sin + half + j, m), turn);
    // Forward the first half takes sin of its own index; backward, transposed, that of the other half.
    const __m512 a = sign > 0 ? s1 : s2, z = sign > 0 ? s2 : s1;
    store16(to + j, m, _mm512_fnmadd_ps(x2, a, _mm512_mul_ps(x1, load16(cos + j, m))));
    store16(to + half + j, m, _mm512_fmadd_ps(x1, z, _mm512_mul_ps(x2, load16(cos + half + j, m))));
  }
}

// rotate turns x [B, H, S, D] by the angles of cos and sin [1 or B, 1, S, D]. The result's memory is laid out as x's.
Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin, float sign) {
  Tensor out = at::empty_like(x);
  const int64_t b = x.size(0), h = x.size(1), s = x.size(2), half = x.size(3) / 2;
  const Tensor c = cos.to(at::kFloat).expand({b, 1, s, 2 * half}), n = sin.to(at::kFloat).expand({b, 1, s, 2 * half});
  TORCH_CHECK(c.stride(3) == 1 && n.stride(3) == 1, "cos and sin must be contiguous in their last dimension");
  const auto at = [](const Tensor& t, int64_t bi, int64_t hi, int64_t si) {
    return bi * t.stride(0) + hi * t.stride(1) + si * t.stride(2);
  };
  typed(
      [&](auto* px) {
        auto* po = static_cast<decltype(px)>(out.mutable_data_ptr());
        ranges(b * s, std::max<int64_t>(1, kLeastElements / (h * 2 * half)), [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; i++) {
            const int64_t bi = i / s, si = i % s;
            const float* pc = c.const_data_ptr<float>() + at(c, bi, 0, si);
            const float* ps = n.const_data_ptr<float>() + at(n, bi, 0, si);
            for (int64_t k = 0; k < h; k++)
              rotate_head(px + at(x, bi, k, si), po + at(out, bi, k, si), pc, ps, half, sign);
          }
        });
      },
      x);
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
