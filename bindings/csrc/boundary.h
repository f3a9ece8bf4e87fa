// The boundary between C and libtorch: handles on tensors, and exceptions as messages.
#pragma once
#include <ATen/ATen.h>

#include <cstring>
#include <exception>
#include <utility>

namespace gp {

// T is the tensor behind a handle, opt the same where NULL stands for none.
inline at::Tensor& T(void* handle) { return *static_cast<at::Tensor*>(handle); }
inline at::Tensor opt(void* handle) { return handle ? T(handle) : at::Tensor(); }

// box is a new handle, which the caller owns; NULL for none.
inline void* box(at::Tensor t) { return t.defined() ? new at::Tensor(std::move(t)) : nullptr; }

// guarded runs fn and returns NULL, or the message of the exception it threw, which the caller frees.
template <class F>
char* guarded(const F& fn) noexcept {
  try {
    fn();
    return nullptr;
  } catch (const std::exception& e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("unknown exception");
  }
}

// give stores a handle on fn's result in *out.
template <class F>
char* give(void** out, const F& fn) noexcept {
  return guarded([&] { *out = box(fn()); });
}

}  // namespace gp
