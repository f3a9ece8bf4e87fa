#include "lmloss.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <tuple>

#include "checkpoint.h"
#include "fused.h"
#include "gemm.h"
#include "guard.h"

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Half holds no probability below 6e-8; gradients of logits are kept this much larger on their way through it.
constexpr double kHalfScale = 1024;
// Rows of the head whose gradient is computed at once in a half precision, before it joins the fp32 sum.
constexpr int64_t kVocabRows = 16384;

// One chunk of tokens: adds to the loss, and turns the logits into their gradient in place.
Tensor chunk_loss(Tensor& logits, const Tensor& target, bool need_grad) {
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
    if (g.scalar_type() == at::kHalf) total.narrow(0, v, n).addmm_(part.t().to(total.scalar_type()), h.to(total.scalar_type()));
    else total.narrow(0, v, n).add_(own ? gp::columns_by_columns(part, h, bf16, at::kFloat) : at::mm(part.t(), h));
  }
}

// The gradients are computed beside the loss, chunk by chunk, while the logits are at hand; the backward pass
// only scales them.
struct LMCrossEntropy : torch::autograd::Function<LMCrossEntropy> {
  static Tensor forward(AutogradContext* ctx, const Tensor& hidden, const Tensor& weight, const Tensor& targets, int64_t ignore,
                        bool mean, int64_t chunk_bytes, int64_t compute, bool fused, bool need_hidden,
                        bool need_weight) {
    auto dtype = static_cast<at::ScalarType>(compute);
    auto wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
    Tensor keep = at::nonzero(targets.ne(ignore)).squeeze(1);
    int64_t n = keep.size(0), vocab = weight.size(0);
    // Our own products cast while they pack: neither the head nor the logits are copied.
    const bool bf16 = dtype == at::kBFloat16;
    auto plain = [](const Tensor& x) { return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16); };
    const bool own = fused && plain(hidden) && plain(weight) && (bf16 || dtype == at::kFloat) && (bf16 ? gp::has_avx512_bf16() : gp::has_avx512());
    Tensor w = own ? weight.contiguous() : weight.to(dtype);
    Tensor loss = at::zeros({}, hidden.options().dtype(wide));
    Tensor grad_hidden = need_hidden ? at::zeros_like(hidden) : Tensor();
    Tensor grad_weight = need_weight ? at::zeros(weight.sizes(), weight.options().dtype(wide)) : Tensor();
    double scale = dtype == at::kHalf ? kHalfScale : 1;
    int64_t step = std::max<int64_t>(1, chunk_bytes / (vocab * static_cast<int64_t>(c10::elementSize(wide))));
    for (int64_t first = 0; first < n; first += step) {
      Tensor rows = keep.narrow(0, first, std::min(step, n - first));
      Tensor h = hidden.index_select(0, rows);
      if (!own) h = h.to(dtype);
      Tensor logits = own ? gp::rows_by_rows(h, w, bf16, at::kFloat) : at::mm(h, w.t()).to(wide);
      loss.add_(chunk_loss(logits, targets.index_select(0, rows).unsqueeze(1), need_hidden || need_weight));
      if (!need_hidden && !need_weight) continue;
      if (scale != 1) logits.mul_(scale);
      Tensor g = own ? logits : logits.to(dtype);
      if (need_hidden) {
        const auto type = hidden.scalar_type();
        grad_hidden.index_copy_(0, rows, own ? gp::rows_by_columns(g, w, bf16, type) : at::mm(g, w).to(type));
      }
      if (need_weight) add_outer(grad_weight, g, h, own, bf16);
    }
    double norm = mean && n > 0 ? 1.0 / static_cast<double>(n) : 1.0;
    ctx->saved_data["factor"] = norm / scale;
    ctx->save_for_backward({grad_hidden, grad_weight});
    ctx->saved_data["dtype"] = static_cast<int64_t>(weight.scalar_type());
    return loss.mul_(norm);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    auto saved = ctx->get_saved_variables();
    Tensor factor = grads[0] * ctx->saved_data["factor"].toDouble();
    // In place: a second backward pass over the same graph is refused by their version counters.
    auto scaled = [&](Tensor g) { return g.defined() ? g.mul_(factor) : g; };
    Tensor grad_hidden = scaled(saved[0]), grad_weight = scaled(saved[1]);
    if (grad_weight.defined()) grad_weight = grad_weight.to(static_cast<at::ScalarType>(ctx->saved_data["dtype"].toInt()));
    variable_list out(10);
    out[0] = grad_hidden;
    out[1] = grad_weight;
    return out;
  }
};

}  // namespace

char* gp_lm_cross_entropy(gp_tensor* out, gp_tensor hidden, gp_tensor weight, gp_tensor targets, int64_t ignore, int mean,
                          int64_t chunk_bytes, int fused) {
  GUARD(Tensor& h = *static_cast<Tensor*>(hidden); Tensor& w = *static_cast<Tensor*>(weight);
        Tensor& t = *static_cast<Tensor*>(targets);
        TORCH_CHECK(h.dim() == 2 && w.dim() == 2 && t.dim() == 1 && h.size(1) == w.size(1) && h.size(0) == t.size(0),
                    "expected hidden [N, d], weight [V, d] and targets [N]");
        int cast = gp_autocast_dtype(h.is_cuda() ? 0 : -1);
        TORCH_CHECK(cast >= 0 || h.scalar_type() == w.scalar_type(), "hidden and weight differ in dtype");
        bool record = at::GradMode::is_enabled(); Tensor loss; {
          c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
          int64_t compute = cast >= 0 ? cast : static_cast<int64_t>(w.scalar_type());
          loss = LMCrossEntropy::apply(h, w, t, ignore, mean != 0, chunk_bytes, compute, fused != 0, record && h.requires_grad(),
                                       record && w.requires_grad());
        } *out = new Tensor(loss);)
}
