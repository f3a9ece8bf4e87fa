// Dropout by itself, and the seeds of all dropout masks.
#include <ATen/CPUGeneratorImpl.h>

#include <mutex>

#include "dropout.h"
#include "fused.h"
#include "kernel_table.h"

namespace gp {

uint64_t draw_seed() {
  at::Generator gen = at::detail::getDefaultCPUGenerator();
  auto* cpu = at::check_generator<at::CPUGeneratorImpl>(gen);
  std::lock_guard<std::mutex> lock(cpu->mutex_);
  return cpu->random64();
}

namespace {

Tensor dropped(const Tensor& x, const Dropout& d) {
  Tensor out = like(x);
  kernels().dropout(x, d, out);
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

}  // namespace
}  // namespace gp

using gp::T;

char* gp_dropout(gp_tensor* out, gp_tensor x, double p) {
  return gp::give(out, [&] {
    const auto seed = gp::draw_seed();
    return gp::recorded({T(x)}) ? gp::DropoutFn::apply(T(x), p, static_cast<int64_t>(seed))
                                : gp::dropped(T(x).contiguous(), gp::Dropout(p, seed));
  });
}
