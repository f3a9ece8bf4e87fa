// What the fused autograd functions share.
#pragma once
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <c10/util/BFloat16.h>
#include <torch/csrc/autograd/custom_function.h>

#include <initializer_list>

#include "boundary.h"
#include "kernels.h"
#include "libtorch.h"

namespace gp {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// recorded is whether autograd has to remember an operation on ts.
inline bool recorded(std::initializer_list<Tensor> ts) {
  if (!at::GradMode::is_enabled()) return false;
  for (const Tensor& t : ts)
    if (t.defined() && t.requires_grad()) return true;
  return false;
}

// typed calls fn with pointers to the elements of fp32 or bf16 tensors, each in its own type.
template <class F, class... Rest>
void typed(const F& fn, const Tensor& first, const Rest&... rest) {
  const auto with = [&](auto* p) {
    if constexpr (sizeof...(rest) == 0) fn(p);
    else typed([&](auto*... others) { fn(p, others...); }, rest...);
  };
  void* p = const_cast<void*>(first.const_data_ptr());
  if (first.scalar_type() == at::kBFloat16) with(static_cast<c10::BFloat16*>(p));
  else with(static_cast<float*>(p));
}

inline Tensor like(const Tensor& t, at::ScalarType d) { return at::empty(t.sizes(), at::TensorOptions().dtype(d)); }
inline Tensor like(const Tensor& t) { return like(t, t.scalar_type()); }
inline Tensor flat32(const Tensor& t) { return t.to(at::kFloat).contiguous(); }

}  // namespace gp
