#include "lmloss.h"

#include <algorithm>
#include <tuple>

#include "fused.h"
#include "gemm.h"
#include "gpu_driver.h"
#include "kernels_linear.h"
#include "launch/training.h"
#include "quant.h"
#include "quantised.h"

namespace gp {
namespace {

// Half holds no probability below 6e-8; gradients of logits are kept this much larger on their way through it.
constexpr double kHalfScale = 1024;
// Rows of the head whose gradient is computed at once in a half precision, before it joins the fp32 sum.
constexpr int64_t kVocabRows = 16384;

// One chunk of tokens: adds to the loss, and turns the logits into their gradient in place.
Tensor chunk_loss(Tensor& logits, const Tensor& target, bool need_grad, bool compiled) {
  if (compiled) {
    Tensor losses = at::empty({logits.size(0)}, logits.options());
    Stream stream(logits);
    launch::cross_entropy(stream, logits.mutable_data_ptr(), target.const_data_ptr<int64_t>(),
                          losses.mutable_data_ptr<float>(), logits.size(0), logits.size(1), need_grad);
    return losses.sum();
  }
  Tensor at_target = logits.gather(1, target);
  Tensor highest = logits.amax(1, /*keepdim=*/true);
  logits.sub_(highest).exp_();
  Tensor sum = logits.sum(1, /*keepdim=*/true);
  Tensor loss = (sum.log() + highest - at_target).sum();
  if (need_grad) {
    logits.div_(sum);
    logits.scatter_add_(1, target, at::full_like(at_target, -1));
  }
  return loss;
}

void add_outer(Tensor& total, const Tensor& g, const Tensor& h, bool own, bool bf16) {
  if (!own && total.scalar_type() == g.scalar_type()) {
    total.addmm_(g.t(), h);
    return;
  }
  for (int64_t v = 0; v < total.size(0); v += kVocabRows) {
    int64_t n = std::min(kVocabRows, total.size(0) - v);
    Tensor part = g.narrow(1, v, n);
    // Sums over many tokens leave Half's range, whatever the loss is scaled by later.
    if (g.scalar_type() == at::kHalf)
      total.narrow(0, v, n).addmm_(part.t().to(total.scalar_type()), h.to(total.scalar_type()));
    else total.narrow(0, v, n).add_(own ? columns_by_columns(part, h, bf16, at::kFloat) : at::mm(part.t(), h));
  }
}

// Products is how the logits and their gradients are multiplied.
struct Products {
  at::ScalarType dtype;  // computed in
  bool own;              // by our own kernels, which cast while they pack: neither the head nor the logits are copied
  const Quantised* quantised = nullptr;  // the head, where it is no plain tensor
  Way way = Way::kComposed;
  bool compiled = false;  // by kernels that are compiled on a GPU

  bool bf16() const { return dtype == at::kBFloat16; }
  at::ScalarType wide() const { return dtype == at::kDouble ? at::kDouble : at::kFloat; }
  double scale() const { return dtype == at::kHalf ? kHalfScale : 1; }

  Tensor weight(const Tensor& w) const {
    if (quantised) return own ? Tensor() : dequantise(*quantised, dtype, way);
    return own ? w.contiguous() : w.to(dtype);
  }
  Tensor input(const Tensor& h) const { return own ? h : h.to(dtype); }
  Tensor logits(const Tensor& h, const Tensor& w) const {
    if (own && quantised) return by_quant_rows(h, *quantised, {}, bf16(), at::kFloat);
    return own ? rows_by_rows(h, w, bf16(), at::kFloat) : at::mm(h, w.t()).to(wide());
  }
  Tensor to_hidden(const Tensor& g, const Tensor& w, at::ScalarType type) const {
    if (own && quantised) return by_quant_columns(g, *quantised, bf16(), type);
    return own ? rows_by_columns(g, w, bf16(), type) : at::mm(g, w).to(type);
  }
};

bool plain(const Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

bool served(at::ScalarType dtype) {
  return dtype == at::kBFloat16 ? has_bf16_kernels() : dtype == at::kFloat && has_kernels();
}

Products products_for(const Tensor& hidden, const Tensor& weight, at::ScalarType dtype, bool fused) {
  Products p{dtype, fused && served(dtype) && plain(hidden) && plain(weight)};
  p.compiled = fused && p.wide() == at::kFloat && has_gpu_kernels(hidden.device(), at::kFloat);
  return p;
}

Products products_for(const Tensor& hidden, const Quantised& q, at::ScalarType dtype, bool fused, Way way) {
  Products p{dtype, fused && served(dtype) && plain(hidden) && q.codes.is_cpu() && q.on_cpu().aligned(), &q, way};
  p.compiled = fused && p.wide() == at::kFloat && has_gpu_kernels(hidden.device(), at::kFloat);
  return p;
}

// The gradients are computed beside the loss, chunk by chunk, while the logits are at hand; the backward pass
// only scales them.
struct LMCrossEntropy : torch::autograd::Function<LMCrossEntropy> {
  static Tensor forward(AutogradContext* ctx, const Tensor& hidden, const Maybe& head, const Tensor& targets,
                        int64_t ignore, bool mean, int64_t chunk_bytes, const Products& p, bool need_hidden,
                        bool need_weight) {
    const Tensor weight = known(head);
    const auto wide = p.wide();
    // Looking for what is ignored waits for a GPU.
    Tensor keep = ignore == GP_ALL_TARGETS ? at::arange(targets.size(0), targets.options())
                                           : at::nonzero(targets.ne(ignore)).squeeze(1);
    int64_t n = keep.size(0), vocab = p.quantised ? p.quantised->rows : weight.size(0);
    Tensor w = p.weight(weight);
    Tensor loss = at::zeros({}, hidden.options().dtype(wide));
    Tensor grad_hidden = need_hidden ? at::zeros_like(hidden) : Tensor();
    Tensor grad_weight = need_weight ? at::zeros(weight.sizes(), weight.options().dtype(wide)) : Tensor();
    int64_t step = std::max<int64_t>(1, chunk_bytes / (vocab * static_cast<int64_t>(c10::elementSize(wide))));
    for (int64_t first = 0; first < n; first += step) {
      Tensor rows = keep.narrow(0, first, std::min(step, n - first));
      Tensor h = p.input(hidden.index_select(0, rows));
      Tensor logits = p.logits(h, w);
      const Tensor target = targets.index_select(0, rows).unsqueeze(1);
      loss.add_(chunk_loss(logits, target, need_hidden || need_weight, p.compiled));
      if (!need_hidden && !need_weight) continue;
      if (p.scale() != 1) logits.mul_(p.scale());
      Tensor g = p.input(logits);
      if (need_hidden) grad_hidden.index_copy_(0, rows, p.to_hidden(g, w, hidden.scalar_type()));
      if (need_weight) add_outer(grad_weight, g, h, p.own, p.bf16());
    }
    double norm = mean && n > 0 ? 1.0 / static_cast<double>(n) : 1.0;
    ctx->saved_data["factor"] = norm / p.scale();
    ctx->save_for_backward({grad_hidden, grad_weight});
    if (need_weight) ctx->saved_data["dtype"] = static_cast<int64_t>(weight.scalar_type());
    return loss.mul_(norm);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    Tensor factor = grads[0] * ctx->saved_data["factor"].toDouble();
    // In place: a second backward pass over the same graph is refused by their version counters.
    auto scaled = [&](Tensor g) { return g.defined() ? g.mul_(factor) : g; };
    Tensor grad_hidden = scaled(saved[0]), grad_weight = scaled(saved[1]);
    if (grad_weight.defined())
      grad_weight = grad_weight.to(static_cast<at::ScalarType>(ctx->saved_data["dtype"].toInt()));
    variable_list out(9);
    out[0] = grad_hidden;
    out[1] = grad_weight;
    return out;
  }
};

}  // namespace
}  // namespace gp

using gp::T;

char* gp_lm_cross_entropy(gp_tensor* out, gp_tensor hidden, gp_tensor weight, gp_tensor targets, int64_t ignore,
                          gp_bool mean, int64_t chunk_bytes, gp_bool fused) {
  return gp::give(out, [&] {
    const at::Tensor &h = T(hidden), &w = T(weight), &t = T(targets);
    TORCH_CHECK(h.dim() == 2 && w.dim() == 2 && t.dim() == 1 && h.size(1) == w.size(1) && h.size(0) == t.size(0),
                "expected hidden [N, d], weight [V, d] and targets [N]");
    const gp::Autocast cast = gp::autocast(h.is_cuda() ? c10::kCUDA : c10::kCPU);
    TORCH_CHECK(cast.enabled || h.scalar_type() == w.scalar_type(), "hidden and weight differ in dtype");
    const bool record = at::GradMode::is_enabled();
    const gp::Products p = gp::products_for(h, w, cast.enabled ? cast.dtype : w.scalar_type(), fused != 0);
    c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    return gp::LMCrossEntropy::apply(h, gp::maybe(w), t, ignore, mean != 0, chunk_bytes, p, record && h.requires_grad(),
                                     record && w.requires_grad());
  });
}

char* gp_quant_lm_cross_entropy(gp_tensor* out, gp_tensor hidden, gp_tensor* parts, const int64_t* facts, double offset,
                                gp_tensor targets, int64_t ignore, gp_bool mean, int64_t chunk_bytes, gp_bool fused,
                                int way) {
  return gp::give(out, [&] {
    const at::Tensor &h = T(hidden), &t = T(targets);
    const gp::Quantised q(parts, facts, offset);
    TORCH_CHECK(h.dim() == 2 && t.dim() == 1 && h.size(1) == q.cols && h.size(0) == t.size(0),
                "expected hidden [N, d], a head [V, d] and targets [N]");
    const gp::Autocast cast = gp::autocast(h.is_cuda() ? c10::kCUDA : c10::kCPU);
    const bool record = at::GradMode::is_enabled();
    const gp::Products p =
        gp::products_for(h, q, cast.enabled ? cast.dtype : h.scalar_type(), fused != 0, static_cast<gp::Way>(way));
    c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    return gp::LMCrossEntropy::apply(h, gp::Maybe(), t, ignore, mean != 0, chunk_bytes, p, record && h.requires_grad(),
                                     false);
  });
}
