// Products of tensors, for functions that are more than a linear map.
#pragma once
#include <ATen/ATen.h>

namespace gp {

// Products of fp32 or bf16 matrices whose rows are contiguous, computed in bf16 or fp32, in dtype d: a·bᵀ, a·b
// and aᵀ·b.
at::Tensor rows_by_rows(const at::Tensor& a, const at::Tensor& b, bool bf16, at::ScalarType d);
at::Tensor rows_by_columns(const at::Tensor& a, const at::Tensor& b, bool bf16, at::ScalarType d);
at::Tensor columns_by_columns(const at::Tensor& a, const at::Tensor& b, bool bf16, at::ScalarType d);

}  // namespace gp
