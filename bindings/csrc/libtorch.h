// What has to be asked of libtorch differently from version to version. No other file looks at the version.
#pragma once
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <c10/core/Allocator.h>
#if __has_include(<torch/headeronly/version.h>)
#include <torch/headeronly/version.h>
#else
#include <torch/csrc/api/include/torch/version.h>
#endif

#define GP_TORCH (TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR)

#if GP_TORCH >= 209
#include <ATen/DeviceAccelerator.h>
#include <c10/core/CachingDeviceAllocator.h>
#endif

#include <cstring>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <vector>

namespace gp {

// Maybe is how libtorch's functions, and autograd functions, take a tensor that may be none.
#if GP_TORCH >= 204
using Maybe = std::optional<at::Tensor>;
#else
using Maybe = c10::optional<at::Tensor>;
#endif
inline Maybe maybe(const at::Tensor& t) { return t.defined() ? Maybe(t) : Maybe(); }
inline at::Tensor known(const Maybe& t) { return t ? *t : at::Tensor(); }

// --- mixed precision --------------------------------------------------------------------------------------

// Autocast is the calling thread's state of mixed precision on a kind of device.
struct Autocast {
  bool enabled;
  at::ScalarType dtype;
};

inline Autocast autocast(c10::DeviceType device) {
  namespace ac = at::autocast;
#if GP_TORCH >= 204
  return {ac::is_autocast_enabled(device), ac::get_autocast_dtype(device)};
#else
  if (device == c10::kCPU) return {ac::is_cpu_enabled(), ac::get_autocast_cpu_dtype()};
  return {ac::is_enabled(), ac::get_autocast_gpu_dtype()};
#endif
}

inline void set_autocast(c10::DeviceType device, Autocast a) {
  namespace ac = at::autocast;
#if GP_TORCH >= 204
  ac::set_autocast_enabled(device, a.enabled);
  ac::set_autocast_dtype(device, a.dtype);
#else
  if (device == c10::kCPU) {
    ac::set_cpu_enabled(a.enabled);
    ac::set_autocast_cpu_dtype(a.dtype);
  } else {
    ac::set_enabled(a.enabled);
    ac::set_autocast_gpu_dtype(a.dtype);
  }
#endif
}

// --- operations -------------------------------------------------------------------------------------------

// attention is libtorch's own; with grouped, k and v may have fewer heads than q.
inline at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Maybe& mask,
                            double dropout, bool causal, double scale, bool grouped) {
#if GP_TORCH >= 205
  return at::scaled_dot_product_attention(q, k, v, mask, dropout, causal, scale, grouped);
#else
  if (!grouped) return at::scaled_dot_product_attention(q, k, v, mask, dropout, causal, scale);
  const int64_t times = q.size(1) / k.size(1);
  const at::Tensor key = k.repeat_interleave(times, 1), value = v.repeat_interleave(times, 1);
  return at::scaled_dot_product_attention(q, key, value, mask, dropout, causal, scale);
#endif
}

// norms is the L2 norm of each tensor, in fp32.
inline std::vector<at::Tensor> norms(const std::vector<at::Tensor>& ts) {
#if GP_TORCH >= 204
  return at::_foreach_norm(ts, 2, at::kFloat);
#else
  std::vector<at::Tensor> each;
  for (const at::Tensor& t : ts) each.push_back(at::linalg_vector_norm(t, 2, {}, false, at::kFloat));
  return each;
#endif
}

// scaled_rms is x/√(mean(x²)+eps)·w over the last dimension in one kernel.
constexpr bool kHasScaledRMS = GP_TORCH >= 211;
inline at::Tensor scaled_rms(const at::Tensor& x, const at::Tensor& w, double eps) {
#if GP_TORCH >= 211
  return std::get<0>(at::_fused_rms_norm(x, x.sizes().slice(x.dim() - 1), w, eps));
#else
  throw std::logic_error("libtorch before 2.11 has no RMS norm in one kernel");
#endif
}

// Whether libtorch's Adam in one pass runs on the CPU; on GPUs it always does.
constexpr bool kFusedAdamOnCPU = GP_TORCH >= 204;

// --- memory and devices -----------------------------------------------------------------------------------

// HostAllocator is a base for allocators of host memory, which define take.
class HostAllocator : public at::Allocator {
 public:
#if GP_TORCH >= 203
  at::DataPtr allocate(size_t n) override { return take(n); }
  void copy_data(void* dest, const void* src, std::size_t n) const override { std::memcpy(dest, src, n); }
#else
  at::DataPtr allocate(size_t n) const override { return const_cast<HostAllocator*>(this)->take(n); }
#endif

 private:
  virtual at::DataPtr take(size_t n) = 0;
};

// cuda_peak is the most bytes that were allocated on a GPU at a time, -1 where libtorch does not tell.
inline int64_t cuda_peak(int device) {
#if GP_TORCH >= 209
  auto* allocator = c10::getDeviceAllocator(c10::kCUDA);
  return allocator->getDeviceStats(static_cast<c10::DeviceIndex>(device)).allocated_bytes[0].peak;
#else
  return -1;
#endif
}

inline void cuda_synchronize(int device) {
#if GP_TORCH >= 209
  at::accelerator::synchronizeDevice(static_cast<c10::DeviceIndex>(device));
#else
  at::detail::getCUDAHooks().deviceSynchronize(device);
#endif
}

// use_cudnn_attention lets attention choose cuDNN's kernel, or not.
inline void use_cudnn_attention(bool on) {
#if GP_TORCH >= 205
  at::globalContext().setSDPUseCuDNN(on);
#endif
}

}  // namespace gp
