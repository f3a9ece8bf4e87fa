// x·wᵀ + b for a quantised w, as one autograd function: it keeps w's codes, and neither x nor weights.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "fused.h"
#include "kernel_table.h"
#include "kernels_linear.h"
#include "quant.h"
#include "quantised.h"

namespace gp {

Quantised::Quantised(void** parts, const int64_t* facts, double offset_of_scales)
    : kind(static_cast<QuantKind>(facts[0])),
      rows(facts[1]),
      cols(facts[2]),
      block(facts[3]),
      nested_block(facts[4]),
      offset(offset_of_scales) {
  const auto part = [&](int i) { return parts[i] ? T(parts[i]).contiguous() : Tensor(); };
  codes = part(0), scales = part(1), zeros = part(2), nested_scales = part(3), nested_map = part(4);
  const int64_t bytes = is_gguf(kind)       ? rows * (cols / block_weights(kind) * block_bytes(kind))
                        : kind == kInt8Rows ? rows * cols
                                            : (rows * cols + 1) / 2;
  TORCH_CHECK(codes.defined() && codes.numel() == bytes && codes.element_size() == 1,
              "the codes do not fit the matrix's shape");
}

Codes Quantised::on_cpu() const {
  const auto floats = [](const Tensor& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; };
  Codes w{};
  w.kind = kind, w.rows = rows, w.cols = cols, w.block = block;
  w.stride = is_gguf(kind) ? cols / block_weights(kind) * block_bytes(kind) : kind == kInt8Rows ? cols : cols / 2;
  w.q = static_cast<const uint8_t*>(codes.const_data_ptr());
  w.offset = static_cast<float>(offset);
  w.zeros = floats(zeros);
  const auto log2 = [](int64_t n) { return n > 0 ? __builtin_ctzll(static_cast<uint64_t>(n)) : 0; };
  w.shift = log2(block);
  if (nested_block == 0) {
    w.scales = floats(scales);
    return w;
  }
  w.nested_shift = log2(nested_block);
  w.nested = scales.const_data_ptr<uint8_t>();
  w.nested_scales = floats(nested_scales);
  w.nested_map = floats(nested_map);
  return w;
}

namespace {

// A row for each of ids, or with ids null the first n rows, on the CPU.
Tensor rows_on_cpu(const Codes& w, const int64_t* ids, int64_t n, at::ScalarType d, Way way) {
  const bool direct = d == at::kFloat || d == at::kBFloat16 || d == at::kHalf;
  Tensor out = at::empty({n, w.cols}, at::TensorOptions().dtype(direct ? d : at::kFloat));
  if (out.numel() == 0) return out.to(d);
  if (way == Way::kFastest && w.aligned() && has_kernels()) {
    decode_rows(w, ids, n, out.scalar_type(), out.mutable_data_ptr());
    return out.to(d);
  }
  const auto fill = [&](auto* to) {
    using To = std::remove_pointer_t<decltype(to)>;
    at::parallel_for(0, n, std::max<int64_t>(1, 32768 / w.cols), [&](int64_t begin, int64_t end) {
      std::vector<float> row(static_cast<size_t>(w.cols));
      for (int64_t i = begin; i < end; i++) {
        decode_row(w, ids ? ids[i] : i, row.data());
        std::transform(row.begin(), row.end(), to + i * w.cols, [](float v) { return static_cast<To>(v); });
      }
    });
  };
  if (out.scalar_type() == at::kFloat) fill(out.mutable_data_ptr<float>());
  else if (out.scalar_type() == at::kHalf) fill(out.mutable_data_ptr<c10::Half>());
  else fill(out.mutable_data_ptr<c10::BFloat16>());
  return out.to(d);
}

Operand packed(const Packer& p) { return {nullptr, false, 0, 0, &p}; }

at::ScalarType multiplied(bool bf16) { return bf16 ? at::kBFloat16 : at::kFloat; }

}  // namespace

std::unique_ptr<Packer> packer_of_rows(const Codes& w) { return kernels().packer_of_rows(w); }

std::unique_ptr<Packer> packer_of_columns(const Codes& w) { return kernels().packer_of_columns(w); }

void decode_rows(const Codes& w, const int64_t* ids, int64_t n, at::ScalarType d, void* out) {
  kernels().decode_rows(w, ids, n, d, out);
}

Tensor dequantise(const Quantised& q, at::ScalarType d, Way way) {
  if (way == Way::kCompiled)
    if (Tensor w = dequantise_compiled(q, d); w.defined()) return w;
  if (way == Way::kComposed || !q.codes.is_cpu()) return dequantise_composed(q, d);
  return rows_on_cpu(q.on_cpu(), nullptr, q.rows, d, way);
}

Tensor quant_rows(const Quantised& q, const Tensor& ids, at::ScalarType d, Way way) {
  if (way == Way::kComposed || !q.codes.is_cpu()) return quant_rows_composed(q, ids, d);
  TORCH_CHECK(ids.scalar_type() == at::kLong, "expected ids of int64");
  const Tensor flat = ids.contiguous();
  const auto* p = flat.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < flat.numel(); i++)
    TORCH_CHECK_INDEX(p[i] >= 0 && p[i] < q.rows, "row ", p[i], " of a matrix with ", q.rows);
  auto shape = ids.sizes().vec();
  shape.push_back(q.cols);
  return rows_on_cpu(q.on_cpu(), p, flat.numel(), d, way).view(shape);
}

Tensor by_quant_rows(const Tensor& x, const Quantised& q, const Tensor& bias, bool bf16, at::ScalarType d) {
  const Codes w = q.on_cpu();
  if (w.aligned()) return multiply(x.size(0), w.rows, w.cols, rows_of(x), packed(*packer_of_rows(w)), bias, bf16, d);
  const Tensor whole = dequantise(q, multiplied(bf16), Way::kFastest);
  return multiply(x.size(0), w.rows, w.cols, rows_of(x), rows_of(whole), bias, bf16, d);
}

Tensor by_quant_columns(const Tensor& g, const Quantised& q, bool bf16, at::ScalarType d) {
  const Codes w = q.on_cpu();
  if (w.aligned()) return multiply(g.size(0), w.cols, w.rows, rows_of(g), packed(*packer_of_columns(w)), {}, bf16, d);
  return rows_by_columns(g, dequantise(q, multiplied(bf16), Way::kFastest), bf16, d);
}

namespace {

// How is what decides how a product is computed.
struct How {
  bool fused;
  Way way;
  Arithmetic arithmetic;
};

How how_for(const Tensor& x, bool fused, int way) {
  How h{fused && x.is_cpu(), static_cast<Way>(way), arithmetic_for(x)};
  if (h.fused) return h;
  const Autocast cast = autocast(x.device().type());
  h.arithmetic.out = cast.enabled && x.scalar_type() != at::kDouble ? cast.dtype : x.scalar_type();
  return h;
}

// Plain leaves autograd and mixed precision out of the operations in its lifetime.
struct Plain {
  at::AutoDispatchBelowAutograd below;
  c10::impl::ExcludeDispatchKeyGuard no_autocast{c10::autocast_dispatch_keyset};
};

Tensor dots(const Tensor& x, const Codes& w, const Tensor& bias, at::ScalarType d) {
  Tensor y = at::empty({x.size(0), w.rows}, at::TensorOptions().dtype(at::kFloat));
  const Tensor wide = bias.defined() ? flat32(bias) : bias;
  quant_dots(w, x, wide.defined() ? wide.const_data_ptr<float>() : nullptr, y.mutable_data_ptr<float>());
  return y.to(d);
}

// forward is exact where autograd records it: few rows are multiplied as integers otherwise.
Tensor forward(const Tensor& x, const Quantised& q, const Tensor& b, const How& how, bool exact) {
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) == q.cols, "the input's last dimension is not the matrix's width");
  TORCH_CHECK(!b.defined() || b.numel() == q.rows, "the bias's length is not the matrix's height");
  const at::ScalarType d = how.arithmetic.out;
  if (!how.fused) {
    const Tensor bias = b.defined() ? b.to(d) : b;
    if (how.way == Way::kCompiled && !exact)
      if (Tensor y = multiply_compiled(x.to(d), q); y.defined()) return bias.defined() ? y.add_(bias) : y;
    return at::linear(x.to(d), dequantise(q, d, how.way), maybe(bias));
  }
  auto shape = x.sizes().vec();
  shape.back() = q.rows;
  const Tensor x2 = flat_rows(x);
  const Codes w = q.on_cpu();
  const bool few = !exact && x2.size(0) >= 1 && x2.size(0) <= kFewRows && quant_dots_serve(w);
  return (few ? dots(x2, w, b, d) : by_quant_rows(x2, q, b, how.arithmetic.bf16, d)).view(shape);
}

struct QuantLinear : torch::autograd::Function<QuantLinear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Maybe& bias, const Quantised& q, const How& how) {
    const Plain plain;
    const Tensor b = known(bias);
    ctx->save_for_backward({q.codes, q.scales, q.zeros, q.nested_scales, q.nested_map});
    ctx->saved_data["facts"] = std::vector<int64_t>{q.kind, q.rows, q.cols, q.block, q.nested_block};
    ctx->saved_data["offset"] = q.offset;
    ctx->saved_data["fused"] = how.fused;
    ctx->saved_data["way"] = static_cast<int64_t>(how.way);
    ctx->saved_data["bf16"] = how.arithmetic.bf16;
    ctx->saved_data["out"] = how.arithmetic.out;
    ctx->saved_data["x"] = x.scalar_type();
    ctx->saved_data["b"] = b.defined() && b.requires_grad() ? b.scalar_type() : at::ScalarType::Undefined;
    ctx->saved_data["of_x"] = x.requires_grad();
    return gp::forward(x, q, b, how, /*exact=*/true);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::NoGradGuard no_grad;
    const c10::impl::ExcludeDispatchKeyGuard no_autocast{c10::autocast_dispatch_keyset};
    variable_list out(4);
    if (!grads[0].defined()) return out;
    const bool fused = ctx->saved_data["fused"].toBool();
    const Tensor g = flat_rows(grads[0]);
    if (ctx->saved_data["of_x"].toBool()) {
      auto shape = grads[0].sizes().vec();
      const Quantised q = matrix(ctx);
      shape.back() = q.cols;
      out[0] = of_x(ctx, g, q, fused).view(shape);
    }
    const auto b = ctx->saved_data["b"].toScalarType();
    if (b != at::ScalarType::Undefined) out[1] = (fused ? column_sums(g) : g.sum(0)).to(b);
    return out;
  }

 private:
  static Quantised matrix(AutogradContext* ctx) {
    auto saved = ctx->get_saved_variables();
    std::vector<void*> parts;
    for (Tensor& t : saved) parts.push_back(t.defined() ? &t : nullptr);
    return {parts.data(), ctx->saved_data["facts"].toIntVector().data(), ctx->saved_data["offset"].toDouble()};
  }

  static Tensor of_x(AutogradContext* ctx, const Tensor& g, const Quantised& q, bool fused) {
    const auto x = ctx->saved_data["x"].toScalarType();
    if (fused) return by_quant_columns(g, q, ctx->saved_data["bf16"].toBool(), x);
    const auto d = ctx->saved_data["out"].toScalarType();
    return g.to(d).mm(dequantise(q, d, static_cast<Way>(ctx->saved_data["way"].toInt()))).to(x);
  }
};

// first_bad is the first of n numbers that is not finite, -1 for none.
int64_t first_bad(const Tensor& t) {
  const auto* v = t.const_data_ptr<float>();
  const auto* bad = std::find_if(v, v + t.numel(), [](float x) { return !std::isfinite(x); });
  return bad == v + t.numel() ? -1 : bad - v;
}

// Whether all halves of a row's blocks are finite: what they are multiplied by are integers of few bits.
bool finite_blocks(const Codes& w, int64_t row) {
  const bool minimum = w.kind == kQ4_1 || w.kind == kQ5_1 || w.kind == kQ4_K || w.kind == kQ5_K;
  const int64_t bytes = block_bytes(w.kind), scale = w.kind == kQ6_K ? 208 : 0;
  const auto finite = [](const uint8_t* half) { return (half[1] & 0x7c) != 0x7c; };
  const uint8_t *p = w.q + row * w.stride, *end = p + w.stride;
  for (; p < end; p += bytes)
    if (!finite(p + scale) || (minimum && !finite(p + 2))) return false;
  return true;
}

int64_t nonfinite_row(const Quantised& q) {
  if (is_gguf(q.kind)) {
    const Codes w = q.on_cpu();
    std::atomic<int64_t> first{q.rows};
    at::parallel_for(0, q.rows, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        if (finite_blocks(w, i)) continue;
        for (int64_t seen = first; i < seen && !first.compare_exchange_weak(seen, i);) {
        }
        return;
      }
    });
    return first < q.rows ? first.load() : -1;
  }
  const Tensor scales = has_table(q.kind) ? quant_scales(q) : q.scales;
  const int64_t at = first_bad(scales);
  if (at >= 0) return has_table(q.kind) ? at * q.block / q.cols : at / std::max<int64_t>(1, scales.numel() / q.rows);
  if (!q.zeros.defined()) return -1;
  const int64_t zero = first_bad(q.zeros);
  return zero < 0 ? -1 : zero / std::max<int64_t>(1, q.zeros.numel() / q.rows);
}

}  // namespace
}  // namespace gp

using gp::T;

char* gp_dequantise(gp_tensor* out, gp_tensor* parts, const int64_t* facts, double offset, int dtype, int way) {
  return gp::give(out, [&] {
    const gp::Plain plain;
    return gp::dequantise({parts, facts, offset}, static_cast<at::ScalarType>(dtype), static_cast<gp::Way>(way));
  });
}

char* gp_quant_rows(gp_tensor* out, gp_tensor* parts, const int64_t* facts, double offset, gp_tensor ids, int dtype,
                    int way) {
  return gp::give(out, [&] {
    const gp::Plain plain;
    return gp::quant_rows({parts, facts, offset}, T(ids), static_cast<at::ScalarType>(dtype),
                          static_cast<gp::Way>(way));
  });
}

char* gp_quant_linear(gp_tensor* out, gp_tensor x, gp_tensor* parts, const int64_t* facts, double offset, gp_tensor b,
                      gp_bool fused, int way) {
  return gp::give(out, [&] {
    const gp::Quantised q(parts, facts, offset);
    const at::Tensor bias = gp::opt(b);
    const gp::How how = gp::how_for(T(x), fused != 0, way);
    if (gp::recorded({T(x), bias})) return gp::QuantLinear::apply(T(x), gp::maybe(bias), q, how);
    const gp::Plain plain;
    return gp::forward(T(x), q, bias, how, /*exact=*/false);
  });
}

char* gp_quant_nonfinite_row(gp_tensor* parts, const int64_t* facts, double offset, int64_t* row) {
  return gp::guarded([&] { *row = gp::nonfinite_row({parts, facts, offset}); });
}
