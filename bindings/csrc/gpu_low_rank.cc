// A low-rank update on a GPU: one kernel forward, libtorch's products back.
#include "fused.h"
#include "gpu_driver.h"
#include "gpu_kernels.h"
#include "launch/training.h"

namespace gp {
namespace {

Tensor added(const Tensor& y, const Tensor& h, const Tensor& up, double scale) {
  const int64_t rank = up.size(1), cols = up.size(0), rows = h.numel() / std::max<int64_t>(1, rank);
  TORCH_CHECK(up.dim() == 2 && h.size(-1) == rank && y.size(-1) == cols && y.numel() == rows * cols,
              "the factors' shapes do not fit");
  TORCH_CHECK(y.device() == h.device() && y.device() == up.device(), "the tensors differ in device");
  const Tensor from = y.contiguous(), left = flat32(h), right = flat32(up);
  Tensor out = at::empty_like(from);
  Stream stream(from);
  launch::add_low_rank(stream, static_cast<int>(from.element_size()), from.const_data_ptr(),
                       left.const_data_ptr<float>(), right.const_data_ptr<float>(), out.mutable_data_ptr(), rows, cols,
                       rank, scale);
  return out;
}

struct AddLowRank : torch::autograd::Function<AddLowRank> {
  static Tensor forward(AutogradContext* ctx, const Tensor& y, const Tensor& h, const Tensor& up, double scale) {
    const Autocast cast = autocast(c10::kCUDA);
    at::AutoDispatchBelowAutograd below;
    c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    ctx->save_for_backward({h, up});
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["compute"] = static_cast<int64_t>(cast.enabled ? cast.dtype : at::kFloat);
    return added(y, h, up, scale);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::NoGradGuard no_grad;
    c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    variable_list out(4);
    if (!grads[0].defined()) return out;
    auto saved = ctx->get_saved_variables();
    const Tensor &h = saved[0], &up = saved[1];
    const auto compute = static_cast<at::ScalarType>(ctx->saved_data["compute"].toInt());
    const double scale = ctx->saved_data["scale"].toDouble();
    const Tensor g = grads[0].reshape({-1, up.size(0)}).to(compute);
    out[0] = grads[0];
    if (ctx->needs_input_grad(1)) out[1] = at::mm(g, up.to(compute)).mul_(scale).to(h.scalar_type()).view(h.sizes());
    if (ctx->needs_input_grad(2))
      out[2] = at::mm(g.t(), h.reshape({-1, up.size(1)}).to(compute)).mul_(scale).to(up.scalar_type());
    return out;
  }
};

}  // namespace
}  // namespace gp

using gp::T;

char* gp_compiled_add_low_rank(gp_tensor* out, gp_tensor y, gp_tensor h, gp_tensor up, double scale) {
  return gp::give(out, [&] {
    return gp::recorded({T(y), T(h), T(up)}) ? gp::AddLowRank::apply(T(y), T(h), T(up), scale)
                                             : gp::added(T(y), T(h), T(up), scale);
  });
}
