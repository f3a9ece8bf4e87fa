// What the fused autograd functions share.
#pragma once
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <initializer_list>

#include "boundary.h"
#include "kernels.h"
#include "libtorch.h"
#include "typed.h"

namespace gp {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// recorded is whether autograd has to remember an operation on ts.
inline bool recorded(std::initializer_list<Tensor> ts) {
  if (!at::GradMode::is_enabled()) return false;
  for (const Tensor& t : ts)
    if (t.defined() && t.requires_grad()) return true;
  return false;
}

inline Tensor like(const Tensor& t, at::ScalarType d) { return at::empty(t.sizes(), at::TensorOptions().dtype(d)); }
inline Tensor like(const Tensor& t) { return like(t, t.scalar_type()); }
inline Tensor flat32(const Tensor& t) { return t.to(at::kFloat).contiguous(); }

}  // namespace gp
