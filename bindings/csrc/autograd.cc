// Gradients, and the thread-local modes that operations run in.
#include <ATen/ATen.h>
#include <c10/core/AutogradState.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>

#include "handles.h"
#include "libtorch.h"

using at::Tensor;
using gp::give;
using gp::guarded;
using gp::T;

namespace {

// ThisThread makes autograd run a graph where it is asked to, on a GPU too, rather than on a thread of the device:
// modes and a checkpointed block's second run belong to the thread. An engine other than libtorch's own, such as
// checkpoint.cc's, would have no such thread.
struct ThisThread {
  ThisThread() : was(state().get_multithreading_enabled()) { state().set_multithreading_enabled(false); }
  ~ThisThread() { state().set_multithreading_enabled(was); }
  static c10::AutogradState& state() { return c10::AutogradState::get_tls_state(); }
  bool was;
};

}  // namespace

char* gp_set_requires_grad(gp_tensor t, gp_bool on) {
  return guarded([&] { T(t).set_requires_grad(on != 0); });
}

char* gp_backward(gp_tensor loss, gp_tensor grad) {
  return guarded([&] {
    ThisThread here;
    T(loss).backward(gp::opt(grad), /*retain_graph=*/false, /*create_graph=*/false);
  });
}

char* gp_grad_of(gp_tensor* outs, gp_tensor output, gp_tensor grad, gp_tensor* inputs, int n) {
  return guarded([&] {
    ThisThread here;
    std::vector<Tensor> seeds;
    if (grad) seeds.push_back(T(grad));
    auto grads = torch::autograd::grad({T(output)}, gp::list(inputs, n), seeds, /*retain_graph=*/false,
                                       /*create_graph=*/false, /*allow_unused=*/true);
    for (size_t i = 0; i < grads.size(); i++) outs[i] = gp::box(grads[i]);
  });
}

char* gp_get_grad(gp_tensor* out, gp_tensor t) {
  return give(out, [&] { return T(t).grad(); });
}

char* gp_set_grad(gp_tensor t, gp_tensor grad) {
  return guarded([&] { T(t).mutable_grad() = gp::opt(grad); });
}

gp_bool gp_grad_enabled(void) { return c10::GradMode::is_enabled(); }
void gp_set_grad_enabled(gp_bool on) { c10::GradMode::set_enabled(on != 0); }
void* gp_inference_enter(void) { return new c10::InferenceMode(true); }
void gp_inference_leave(void* guard) { delete static_cast<c10::InferenceMode*>(guard); }

void gp_autocast_set(int device, gp_bool enabled, int dtype, int* was_enabled, int* was_dtype) {
  const auto type = gp::type_of(device);
  const gp::Autocast was = gp::autocast(type);
  *was_enabled = was.enabled;
  *was_dtype = static_cast<int>(was.dtype);
  gp::set_autocast(type, {enabled != 0, static_cast<at::ScalarType>(dtype)});
  // Nesting as Python's autocast counts it: the cast cache lives until the outermost guard leaves.
  if (enabled && !was.enabled) at::autocast::increment_nesting();
  if (!enabled && was.enabled && at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
}

int gp_autocast_dtype(int device) {
  const gp::Autocast a = gp::autocast(gp::type_of(device));
  return a.enabled ? static_cast<int>(a.dtype) : -1;
}
