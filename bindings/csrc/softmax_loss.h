// Cross-entropy of rows of logits, each in the cache for all its passes.
#pragma once
#include <ATen/ATen.h>

namespace gp {

// softmax_loss is the sum over rows of log Σ e^logits - logits[target], for contiguous logits [n, V] in fp32 and
// targets [n, 1], a scalar. With need_grad the logits become its gradient: softmax(logits), less 1 at the target. It
// needs kernels.
at::Tensor softmax_loss(at::Tensor& logits, const at::Tensor& targets, bool need_grad);

}  // namespace gp
