// x·wᵀ + b as one autograd function: it keeps x only for a weight that is trained, and casts while it packs.
#include "kernels_linear.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <tuple>

#include "fused.h"
#include "gemm.h"
#include "kernel_table.h"
#include "kernels_activation.h"
#include "parallel.h"

namespace gp {

Arithmetic arithmetic_for(const Tensor& x) {
  if (autocast(c10::kCPU).enabled) return {true, at::kBFloat16};
  return {x.scalar_type() == at::kBFloat16, x.scalar_type()};
}

Tensor flat_rows(const Tensor& t) {
  Tensor r = t.reshape({-1, t.size(-1)});
  return r.stride(1) == 1 || r.size(1) == 1 ? r : r.contiguous();
}

Operand rows_of(const Tensor& t) { return {t.const_data_ptr(), t.scalar_type() == at::kBFloat16, t.stride(0), 1}; }

Tensor multiply(int64_t m, int64_t n, int64_t k, Operand a, Operand b, const Tensor& bias, bool bf16,
                at::ScalarType d) {
  const bool direct = d == at::kFloat || k <= (bf16 ? kDepthBf16 : kDepth);
  Tensor c = at::empty({m, n}, at::TensorOptions().dtype(direct ? d : at::kFloat));
  if (m == 0 || n == 0) return c;
  if (k == 0) return bias.defined() ? c.copy_(bias.expand_as(c)) : c.zero_();
  Tensor bf = bias.defined() ? bias.to(at::kFloat).contiguous() : bias;
  product({m, n, k, a, b, c.mutable_data_ptr(), direct && d == at::kBFloat16, n,
           bf.defined() ? bf.const_data_ptr<float>() : nullptr, bf16});
  return direct ? c : c.to(d);
}

Tensor column_sums(const Tensor& t) {
  const int64_t m = t.size(0), n = t.size(1);
  const int64_t chunks = std::min<int64_t>(at::get_num_threads(), std::max<int64_t>(1, m / 64));
  Tensor parts = at::zeros({chunks, n}, at::TensorOptions().dtype(at::kFloat));
  each(chunks, [&](int64_t c) {
    kernels().add_rows(t, m * c / chunks, m * (c + 1) / chunks, parts.mutable_data_ptr<float>() + c * n);
  });
  return chunks == 1 ? parts[0] : parts.sum(0);
}

namespace {

Operand columns_of(const Tensor& t) { return {t.const_data_ptr(), t.scalar_type() == at::kBFloat16, 1, t.stride(0)}; }

// stream is multiply for 1 to 4 rows of x: the weight is read once, as it lies in memory, and nothing packed.
Tensor stream(const Tensor& x, const Tensor& w, const Tensor& bias, at::ScalarType d) {
  const bool bf16 = w.scalar_type() == at::kBFloat16;
  const int64_t m = x.size(0), n = w.size(0), k = w.size(1), words = (panel_words(k, bf16) + 15) / 16 * 16;
  Tensor low = x.to(w.scalar_type()), c = at::empty({m, n}, at::TensorOptions().dtype(at::kFloat));
  Tensor padded = at::zeros({m, words}, at::TensorOptions().dtype(at::kInt));
  auto* xs = static_cast<uint32_t*>(padded.mutable_data_ptr());
  const int64_t size = bf16 ? 2 : 4;
  for (int64_t i = 0; i < m; i++)
    std::memcpy(xs + i * words, static_cast<const char*>(low.const_data_ptr()) + i * low.stride(0) * size,
                static_cast<size_t>(k * size));
  const auto* ws = static_cast<const char*>(w.const_data_ptr());
  const int64_t stride = w.stride(0) * size;
  float* out = c.mutable_data_ptr<float>();
  const DotOfRows f = kernels().dots[bf16][m - 1];
  at::parallel_for(0, n, std::max<int64_t>(1, (1 << 16) / k), [&](int64_t begin, int64_t end) {
    float sums[kFewRows];
    for (int64_t j = begin; j < end; j++) {
      f(ws + j * stride, xs, words, k, sums);
      for (int64_t i = 0; i < m; i++) out[i * n + j] = sums[i];
    }
  });
  if (bias.defined()) c.add_(bias);
  return c.to(d);
}

Tensor forward(const Tensor& x, const Tensor& w, const Tensor& b, Arithmetic s) {
  TORCH_CHECK(w.dim() == 2 && x.dim() >= 1 && x.size(-1) == w.size(1),
              "the input's last dimension is not the weight's width");
  TORCH_CHECK(!b.defined() || b.numel() == w.size(0), "the bias's length is not the weight's height");
  auto shape = x.sizes().vec();
  shape.back() = w.size(0);
  Tensor x2 = flat_rows(x), w2 = w.stride(1) == 1 ? w : w.contiguous();
  const int64_t m = x2.size(0);
  const bool as_stored = s.bf16 == (w2.scalar_type() == at::kBFloat16);
  Tensor y = m >= 1 && m <= kFewRows && as_stored && w.size(1) > 0
                 ? stream(x2, w2, b, s.out)
                 : multiply(m, w.size(0), w.size(1), rows_of(x2), rows_of(w2), b, s.bf16, s.out);
  return y.view(shape);
}

// low_rank is forward for few rows and w's update scale·up·a, in fp32: what model code composes of six operations,
// each of which would cost a decoding step as much as the update itself. None where it does not serve.
Tensor low_rank(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& a, const Tensor& up, double scale) {
  const auto plain = [](const Tensor& t) { return t.scalar_type() == at::kFloat && t.is_contiguous(); };
  if (x.numel() == 0 || x.numel() > kFewRows * x.size(-1) || autocast(c10::kCPU).enabled || recorded({x, w, b, a, up}))
    return {};
  if (x.scalar_type() != w.scalar_type() || !plain(a) || !plain(up)) return {};
  TORCH_CHECK(
      a.dim() == 2 && up.dim() == 2 && a.size(1) == x.size(-1) && up.size(0) == w.size(0) && a.size(0) == up.size(1),
      "the update's shapes do not fit the map's");
  at::AutoDispatchBelowAutograd below;
  Tensor y = forward(x, w, b, arithmetic_for(x));
  Tensor update = stream(stream(flat_rows(x).to(at::kFloat), a, {}, at::kFloat), up, {}, at::kFloat);
  return at::add(y, update.view(y.sizes()), scale).to(y.scalar_type());
}

// Stored is what a linear map's backward pass knows of its forward pass, and the gradients for its result's g.
struct Stored {
  static void keep(AutogradContext* ctx, Arithmetic s, const Tensor& x, const Tensor& w, const Tensor& b) {
    ctx->saved_data["bf16"] = s.bf16;
    ctx->saved_data["x"] = x.scalar_type();
    ctx->saved_data["w"] = w.scalar_type();
    ctx->saved_data["b"] = b.defined() ? b.scalar_type() : at::ScalarType::Undefined;
  }

  explicit Stored(AutogradContext* ctx)
      : bf16(ctx->saved_data["bf16"].toBool()),
        x(ctx->saved_data["x"].toScalarType()),
        w(ctx->saved_data["w"].toScalarType()),
        b(ctx->saved_data["b"].toScalarType()) {}

  Tensor of_x(const Tensor& g, const Tensor& weight) const {
    const Tensor g2 = flat_rows(g), w2 = weight.stride(1) == 1 ? weight : weight.contiguous();
    auto shape = g.sizes().vec();
    shape.back() = weight.size(1);
    return multiply(g2.size(0), weight.size(1), g2.size(1), rows_of(g2), columns_of(w2), {}, bf16, x).view(shape);
  }

  Tensor of_w(const Tensor& g, const Tensor& input) const {
    const Tensor g2 = flat_rows(g), x2 = flat_rows(input);
    return multiply(g2.size(1), x2.size(1), g2.size(0), columns_of(g2), columns_of(x2), {}, bf16, w);
  }

  Tensor of_b(const Tensor& g) const { return column_sums(flat_rows(g)).to(b); }

  bool bf16;
  at::ScalarType x, w, b;
};

// PlainKernels leaves autograd and mixed precision out of the operations in its lifetime. arithmetic_for is asked
// before.
struct PlainKernels {
  at::AutoDispatchBelowAutograd below;
  c10::impl::ExcludeDispatchKeyGuard no_autocast{at::DispatchKey::AutocastCPU};
};

struct Linear : torch::autograd::Function<Linear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& w, const Maybe& bias) {
    const Arithmetic s = arithmetic_for(x);
    const PlainKernels plain;
    const Tensor b = known(bias);
    ctx->save_for_backward({w.requires_grad() ? x : Tensor(), x.requires_grad() ? w : Tensor()});
    Stored::keep(ctx, s, x, w, b);
    return gp::forward(x, w, b, s);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::NoGradGuard no_grad;
    auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &w = saved[1], &g = grads[0];
    if (!g.defined()) return {Tensor(), Tensor(), Tensor()};
    const Stored s(ctx);
    Tensor dx, dw, db;
    if (w.defined() && ctx->needs_input_grad(0)) dx = s.of_x(g, w);
    if (x.defined() && ctx->needs_input_grad(1)) dw = s.of_w(g, x);
    if (s.b != at::ScalarType::Undefined && ctx->needs_input_grad(2)) db = s.of_b(g);
    return {dx, dw, db};
  }
};

// ActivatedLinear is linear of GELU(x), or of SwiGLU(x, up). What the weight's gradient needs of the activation is
// computed again in the backward pass: kept, it would be as large as x.
struct ActivatedLinear : torch::autograd::Function<ActivatedLinear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Maybe& gated, const Tensor& w, const Maybe& bias) {
    const Arithmetic s = arithmetic_for(x);
    const PlainKernels plain;
    const Tensor up = known(gated), b = known(bias), a = activated(x, up, false);
    ctx->save_for_backward({x, up, w});
    ctx->saved_data["of_x"] = x.requires_grad() || (up.defined() && up.requires_grad());
    ctx->saved_data["of_w"] = w.requires_grad();
    ctx->saved_data["of_b"] = b.defined() && b.requires_grad();
    Stored::keep(ctx, s, a, w, b);
    return gp::forward(a, w, b, s);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::NoGradGuard no_grad;
    auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &up = saved[1], &w = saved[2], &g = grads[0];
    variable_list out(4);
    if (!g.defined()) return out;
    const Stored s(ctx);
    if (ctx->saved_data["of_w"].toBool()) out[2] = s.of_w(g, activated(x, up, false));
    if (ctx->saved_data["of_b"].toBool()) out[3] = s.of_b(g);
    if (ctx->saved_data["of_x"].toBool()) std::tie(out[0], out[1]) = activated_backward(x, up, s.of_x(g, w));
    return out;
  }
};

}  // namespace

Tensor rows_by_rows(const Tensor& a, const Tensor& b, bool bf16, at::ScalarType d) {
  return multiply(a.size(0), b.size(0), a.size(1), rows_of(a), rows_of(b), {}, bf16, d);
}

Tensor rows_by_columns(const Tensor& a, const Tensor& b, bool bf16, at::ScalarType d) {
  return multiply(a.size(0), b.size(1), a.size(1), rows_of(a), columns_of(b), {}, bf16, d);
}

Tensor columns_by_columns(const Tensor& a, const Tensor& b, bool bf16, at::ScalarType d) {
  return multiply(a.size(1), b.size(1), a.size(0), columns_of(a), columns_of(b), {}, bf16, d);
}

}  // namespace gp

using gp::T;

char* gp_linear(gp_tensor* out, gp_tensor x, gp_tensor w, gp_tensor b) {
  return gp::give(out, [&] {
    const at::Tensor bias = gp::opt(b);
    if (gp::recorded({T(x), T(w), bias})) return gp::Linear::apply(T(x), T(w), gp::maybe(bias));
    const gp::Arithmetic s = gp::arithmetic_for(T(x));
    const gp::PlainKernels plain;
    return gp::forward(T(x), T(w), bias, s);
  });
}

char* gp_activated_linear(gp_tensor* out, gp_tensor x, gp_tensor up, gp_tensor w, gp_tensor b) {
  return gp::give(out, [&] {
    const at::Tensor gated = gp::opt(up), bias = gp::opt(b);
    if (gp::recorded({T(x), gated, T(w), bias}))
      return gp::ActivatedLinear::apply(T(x), gp::maybe(gated), T(w), gp::maybe(bias));
    const gp::Arithmetic s = gp::arithmetic_for(T(x));
    const gp::PlainKernels plain;
    return gp::forward(gp::activated(T(x), gated, true), T(w), bias, s);
  });
}

char* gp_linear_low_rank(gp_tensor* out, gp_tensor x, gp_tensor w, gp_tensor b, gp_tensor a, gp_tensor up,
                         double scale) {
  return gp::give(out, [&] { return gp::low_rank(T(x), T(w), gp::opt(b), T(a), T(up), scale); });
}
