// Lets gotch v0.9.1 compile against libtorch 2.13 to 2.15: what gotch-compat-v1.h does, and functions that these
// versions no longer have. Nothing in gopeft calls them: each throws.
//
// Raise the number in the name with every change that alters what is compiled, as there.
#pragma once
#include "gotch-compat-v1.h"
#if defined(__cplusplus) && !defined(GOPEFT_OWN_CXX)
// gotch's copy of stb_image adds up enumerations, which C++20 warns of.
#pragma GCC diagnostic ignored "-Wdeprecated-enum-enum-conversion"

#include <vector>

namespace torch {

inline std::vector<at::Tensor> align_tensors(at::TensorList) { gopeft_dropped("align_tensors"); }

#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 14
inline at::Tensor cholesky(const at::Tensor&, bool) { gopeft_dropped("cholesky"); }
inline at::Tensor cholesky_out(const at::Tensor&, const at::Tensor&, bool) { gopeft_dropped("cholesky_out"); }
inline std::tuple<at::Tensor, at::Tensor> qr(const at::Tensor&, bool) { gopeft_dropped("qr"); }
inline std::tuple<at::Tensor, at::Tensor> qr_out(const at::Tensor&, const at::Tensor&, const at::Tensor&, bool) {
  gopeft_dropped("qr_out");
}
#endif

}  // namespace torch

// Of the members only one is gone: gotch's call of it becomes that of another, which no one calls either.
#define align_as(other) alias()
#endif
