// Tensors as pointers of their elements' type.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>

namespace gp {

using at::Tensor;

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

}  // namespace gp
