#include "softmax_loss.h"

#include "kernel_table.h"
#include "parallel.h"

namespace gp {

at::Tensor softmax_loss(at::Tensor& logits, const at::Tensor& targets, bool need_grad) {
  const int64_t n = logits.size(0), vocab = logits.size(1);
  const at::Tensor wanted = targets.contiguous();
  TORCH_CHECK(n == 0 || (wanted.min().item<int64_t>() >= 0 && wanted.max().item<int64_t>() < vocab),
              "a target is no row of the head");
  at::Tensor losses = at::empty({n}, at::TensorOptions().dtype(at::kFloat));
  auto* p = logits.mutable_data_ptr<float>();
  const auto* target = wanted.const_data_ptr<int64_t>();
  auto* loss = losses.mutable_data_ptr<float>();
  auto* row_loss = kernels().row_loss;
  each(n, [&](int64_t i) { loss[i] = row_loss(p + i * vocab, vocab, target[i], need_grad); });
  return losses.sum();
}

}  // namespace gp
