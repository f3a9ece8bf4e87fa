// The activations of feed-forward layers, for functions that compute more beside them.
#pragma once
#include <ATen/ATen.h>

#include <utility>

namespace gp {

// activated is GELU(x), or SwiGLU(x, up) when up is defined; with reuse it may lie where x did. activated_backward is
// the gradients of x and up for its gradient g.
at::Tensor activated(const at::Tensor& x, const at::Tensor& up, bool reuse);
std::pair<at::Tensor, at::Tensor> activated_backward(const at::Tensor& x, const at::Tensor& up, const at::Tensor& g);

}  // namespace gp
