// How the functions of shim.h read their arguments.
#pragma once
#include <ATen/ATen.h>

#include <vector>

#include "boundary.h"
#include "shim.h"

namespace gp {

inline c10::DeviceType type_of(int device) { return device < 0 ? c10::kCPU : c10::kCUDA; }

inline c10::Device device_of(int device) {
  if (device == GP_NOWHERE) return c10::kMeta;
  return device < 0 ? c10::Device(c10::kCPU) : c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(device));
}

inline std::vector<at::Tensor> list(gp_tensor* ts, int n) {
  std::vector<at::Tensor> v;
  v.reserve(static_cast<size_t>(n));
  for (int i = 0; i < n; i++) v.push_back(T(ts[i]));
  return v;
}

}  // namespace gp
