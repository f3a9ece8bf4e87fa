// Lets gotch v0.9.1, whose C++ was generated for libtorch 2.1, compile against libtorch 2.11.
//
// It is forced in ahead of every C++ file (-include). Three functions changed their signatures between
// the two versions; the old forms are defined here inside namespace torch, where gotch's qualified calls
// find them before the new ones of namespace at. Nothing in gopeft calls them: each throws.
//
// Go's build cache keys on this file's name, not on its contents: raise the number in the name with
// every change that alters what is compiled.
#pragma once
#if defined(__cplusplus) && !defined(GOPEFT_OWN_CXX)  // gopeft's own C++ picks narrower headers
// gotch calls what libtorch has deprecated since; a screen of warnings would help nobody who builds gopeft.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#include <torch/torch.h>

#include <stdexcept>
#include <tuple>

namespace torch {

[[noreturn]] inline void gopeft_dropped(const char* name) {
  throw std::runtime_error(std::string(name) + ": changed its signature after libtorch 2.1 and is not bound");
}

inline at::Tensor _cslt_sparse_mm(const at::Tensor&, const at::Tensor&, const at::Tensor&, bool) {
  gopeft_dropped("_cslt_sparse_mm");
}

inline std::tuple<at::Tensor, at::Tensor> _scaled_mm(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                     c10::optional<at::ScalarType>, const at::Tensor&,
                                                     const at::Tensor&, const at::Tensor&) {
  gopeft_dropped("_scaled_mm");
}

inline std::tuple<at::Tensor, at::Tensor> _scaled_mm_out(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                         const at::Tensor&, const at::Tensor&,
                                                         c10::optional<at::ScalarType>, const at::Tensor&,
                                                         const at::Tensor&, const at::Tensor&) {
  gopeft_dropped("_scaled_mm_out");
}

}  // namespace torch
#endif
