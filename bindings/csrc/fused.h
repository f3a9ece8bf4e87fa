// What the fused autograd functions share.
#pragma once
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#if __has_include(<torch/headeronly/version.h>)
#include <torch/headeronly/version.h>
#else
#include <torch/csrc/api/include/torch/version.h>
#endif
#ifndef GP_TORCH
#define GP_TORCH (TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR)
#endif

#include <initializer_list>
#include <optional>
#include <utility>

namespace gp {

inline at::Tensor& T(void* t) { return *static_cast<at::Tensor*>(t); }
inline at::Tensor opt(void* t) { return t ? T(t) : at::Tensor(); }
inline void* box(at::Tensor t) { return new at::Tensor(std::move(t)); }

// Maybe is how an autograd function takes a tensor that may be undefined.
#if GP_TORCH >= 204
using Maybe = std::optional<at::Tensor>;
#else
using Maybe = c10::optional<at::Tensor>;
#endif
inline Maybe maybe(const at::Tensor& t) { return t.defined() ? Maybe(t) : Maybe(); }
inline at::Tensor known(const Maybe& t) { return t ? *t : at::Tensor(); }

// autocast is whether mixed precision is on for the CPU.
bool autocast();
at::ScalarType autocast_type();

// draw_seed takes one number from libtorch's generator, so that what is random here follows its seed and state.
uint64_t draw_seed();

// recorded is whether autograd has to remember an operation on ts.
inline bool recorded(std::initializer_list<at::Tensor> ts) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor& t : ts)
    if (t.defined() && t.requires_grad()) return true;
  return false;
}

// typed calls fn with the elements of an fp32 or bf16 tensor.
template <class F>
void typed(const at::Tensor& t, F fn) {
  if (t.scalar_type() == at::kBFloat16) fn(static_cast<c10::BFloat16*>(const_cast<void*>(t.const_data_ptr())));
  else fn(static_cast<float*>(const_cast<void*>(t.const_data_ptr())));
}

// Products of fp32 or bf16 matrices whose rows are contiguous, computed in bf16 or fp32, in dtype d: a·bᵀ, a·b
// and aᵀ·b.
at::Tensor rows_by_rows(const at::Tensor& a, const at::Tensor& b, bool bf16, at::ScalarType d);
at::Tensor rows_by_columns(const at::Tensor& a, const at::Tensor& b, bool bf16, at::ScalarType d);
at::Tensor columns_by_columns(const at::Tensor& a, const at::Tensor& b, bool bf16, at::ScalarType d);

// activated is GELU(x), or SwiGLU(x, up) when up is defined; with reuse it may lie where x did. activated_backward is
// the gradients of x and up for its gradient g.
at::Tensor activated(const at::Tensor& x, const at::Tensor& up, bool reuse);
std::pair<at::Tensor, at::Tensor> activated_backward(const at::Tensor& x, const at::Tensor& up, const at::Tensor& g);

// column_sums is the sum over rows of t [m, n], in fp32.
at::Tensor column_sums(const at::Tensor& t);

}  // namespace gp
