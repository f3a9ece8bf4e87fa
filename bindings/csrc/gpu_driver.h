// Launches compiled kernels on a GPU through its driver.
#pragma once
#include <ATen/ATen.h>

#include "launch/launch.h"

namespace gp {

// load_kernels loads a cubin or PTX with kernels for an element type onto a device. It throws what the driver says.
void load_kernels(int device, at::ScalarType element, const void* code);

// has_gpu_kernels is whether any were loaded that read and write elements of that type there.
bool has_gpu_kernels(const at::Device& device, at::ScalarType element);

// Stream launches kernels for an element type on libtorch's current stream of a device. It throws what the driver says.
class Stream : public launch::Queue {
 public:
  Stream(const at::Device& device, at::ScalarType element);
  explicit Stream(const at::Tensor& like) : Stream(like.device(), like.scalar_type()) {}
  void run(const launch::Call& call) override;

 private:
  int device_;
  at::ScalarType element_;
  void* stream_;
};

}  // namespace gp
