// A group and its operations, behind c10d.h's handles.
#pragma once
#include <ATen/ATen.h>

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <vector>

namespace gp {

struct Group {
  c10::intrusive_ptr<c10d::Backend> cpu;  // Gloo
  c10::intrusive_ptr<c10d::Backend> gpu;  // NCCL, where the run is on GPUs

  c10d::Backend& of(const at::Tensor& t) const {
    TORCH_CHECK(t.is_cpu() || gpu, "the group has no NCCL: it was joined for the CPU");
    return t.is_cpu() ? *cpu : *gpu;
  }
};

// waited reports whether work on a tensor is over within ms milliseconds, and throws where it failed.
bool waited(c10d::Work& work, const at::Tensor& on, int64_t ms);

}  // namespace gp
