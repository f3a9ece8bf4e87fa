// A group and its operations, behind c10d.h's handles.
#pragma once
#include <ATen/ATen.h>

#include <atomic>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <vector>

namespace gp {

struct Group {
  c10::intrusive_ptr<c10d::Backend> cpu;  // Gloo
  c10::intrusive_ptr<c10d::Backend> gpu;  // NCCL, where the run is on GPUs

  // Of shards and of gradients in parts, which wait where nobody looks at a context.
  std::atomic<bool> given_up{false}, broken{false};
  std::atomic<int64_t> begun{0}, waited_ns{0};

  c10d::Backend& of(const at::Tensor& t) const {
    TORCH_CHECK(t.is_cpu() || gpu, "the group has no NCCL: it was joined for the CPU");
    return t.is_cpu() ? *cpu : *gpu;
  }
};

// waited reports whether work on a tensor is over within ms milliseconds, and throws where it failed.
bool waited(c10d::Work& work, const at::Tensor& on, int64_t ms);

// wait_unless_given_up waits for work of a group on a tensor where nobody looks at a context, in a backward pass. It
// throws where the work fails or the group is given up; the group is broken then.
void wait_unless_given_up(Group& group, c10d::Work& work, const at::Tensor& on);

}  // namespace gp
