// Optimizer steps, and what a training step does to all gradients at once.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "handles.h"
#include "libtorch.h"

using at::Tensor;
using gp::guarded;
using gp::list;
using gp::T;

namespace {

// adam_step is the fused step's arithmetic for one tensor, op by op.
void adam_step(Tensor& p, Tensor g, Tensor& m, Tensor& v, double step, double lr, double beta1, double beta2,
               double weight_decay, double eps, bool decoupled) {
  if (weight_decay != 0 && decoupled) p.mul_(1 - lr * weight_decay);
  if (weight_decay != 0 && !decoupled) g = g.add(p, weight_decay);
  m.lerp_(g, 1 - beta1);
  v.mul_(beta2).addcmul_(g, g, 1 - beta2);
  double bias1 = 1 - std::pow(beta1, step), bias2 = 1 - std::pow(beta2, step);
  p.addcdiv_(m, v.sqrt().div_(std::sqrt(bias2)).add_(eps), -lr / bias1);
}

// all_finite looks at a tensor in pieces: isfinite makes temporaries larger than what it reads.
bool all_finite(const Tensor& t) {
  constexpr int64_t kPiece = 1 << 20;
  if (!t.is_contiguous() || t.numel() <= kPiece) return at::isfinite(t).all().item<bool>();
  const Tensor flat = t.view({-1});
  for (int64_t first = 0; first < flat.numel(); first += kPiece)
    if (!at::isfinite(flat.narrow(0, first, std::min(kPiece, flat.numel() - first))).all().item<bool>()) return false;
  return true;
}

}  // namespace

char* gp_adam_step(gp_tensor* params, gp_tensor* grads, gp_tensor* m, gp_tensor* v, gp_tensor* steps, int n, double lr,
                   double beta1, double beta2, double weight_decay, double eps, gp_bool decoupled, gp_bool fused) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    if (!fused || (!gp::kFusedAdamOnCPU && n > 0 && !T(params[0]).is_cuda())) {
      for (int i = 0; i < n; i++)
        adam_step(T(params[i]), T(grads[i]), T(m[i]), T(v[i]), T(steps[i]).item<double>(), lr, beta1, beta2,
                  weight_decay, eps, decoupled != 0);
      return;
    }
    auto p = list(params, n), g = list(grads, n), first = list(m, n), second = list(v, n), s = list(steps, n);
    std::vector<Tensor> none;
    if (decoupled) at::_fused_adamw_(p, g, first, second, none, s, lr, beta1, beta2, weight_decay, eps, false, false);
    else at::_fused_adam_(p, g, first, second, none, s, lr, beta1, beta2, weight_decay, eps, false, false);
  });
}

char* gp_sgd_step(gp_tensor* params, gp_tensor* grads, gp_tensor* momentum_buffers, int n, double lr, double momentum,
                  double weight_decay, gp_bool first) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    for (int i = 0; i < n; i++) {
      Tensor g = T(grads[i]);
      if (weight_decay != 0) g = g.add(T(params[i]), weight_decay);
      if (momentum != 0) {
        Tensor& b = T(momentum_buffers[i]);
        if (first) b.copy_(g);
        else b.mul_(momentum).add_(g);
        g = b;
      }
      T(params[i]).add_(g, -lr);
    }
  });
}

char* gp_unscale(gp_tensor* grads, int n, gp_tensor found_inf, gp_tensor inv_scale) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    auto g = list(grads, n);
    at::_amp_foreach_non_finite_check_and_unscale_(g, T(found_inf), T(inv_scale));
  });
}

char* gp_update_scale(gp_tensor scale, gp_tensor growth_tracker, gp_tensor found_inf, double growth, double backoff,
                      int64_t interval) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    at::_amp_update_scale_(T(scale), T(growth_tracker), T(found_inf), growth, backoff, interval);
  });
}

char* gp_norm(gp_tensor* ts, int n, double* total) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    *total = n == 0 ? 0 : at::linalg_vector_norm(at::stack(gp::norms(list(ts, n)))).item<double>();
  });
}

char* gp_first_nonfinite(gp_tensor* ts, int n, int* index) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    *index = -1;
    for (int i = 0; i < n && *index < 0; i++)
      if (!all_finite(T(ts[i]))) *index = i;
  });
}

char* gp_scale_all_(gp_tensor* ts, int n, double factor) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    auto l = list(ts, n);
    if (n) at::_foreach_mul_(l, factor);
  });
}

char* gp_add_all_(gp_tensor* ts, int n, double v) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    auto l = list(ts, n);
    if (n) at::_foreach_add_(l, v);
  });
}
