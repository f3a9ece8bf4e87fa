// Products of tensors, for functions that are more than a linear map.
#pragma once
#include <ATen/ATen.h>

#include "gemm.h"

namespace gp {

// Arithmetic is how a linear map is computed: what autocast and its input's dtype make of it.
struct Arithmetic {
  bool bf16;           // multiply in bf16
  at::ScalarType out;  // of the result
};
Arithmetic arithmetic_for(const at::Tensor& x);

// flat_rows is t as a matrix whose rows are contiguous.
at::Tensor flat_rows(const at::Tensor& t);
Operand rows_of(const at::Tensor& t);

// multiply gives Σk a(i, k)·b(j, k) + bias(j) as [m, n] in dtype d.
at::Tensor multiply(int64_t m, int64_t n, int64_t k, Operand a, Operand b, const at::Tensor& bias, bool bf16,
                    at::ScalarType d);

// column_sums is the sum over rows of t [m, n], in fp32.
at::Tensor column_sums(const at::Tensor& t);

// Products of fp32 or bf16 matrices whose rows are contiguous, computed in bf16 or fp32, in dtype d: a·bᵀ, a·b
// and aᵀ·b.
at::Tensor rows_by_rows(const at::Tensor& a, const at::Tensor& b, bool bf16, at::ScalarType d);
at::Tensor rows_by_columns(const at::Tensor& a, const at::Tensor& b, bool bf16, at::ScalarType d);
at::Tensor columns_by_columns(const at::Tensor& a, const at::Tensor& b, bool bf16, at::ScalarType d);

}  // namespace gp
