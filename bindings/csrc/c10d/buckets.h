// How gradients are laid into flat buckets.
#pragma once
#include <ATen/ATen.h>

#include <vector>

namespace gp {

// Bucket is gradients that travel together.
struct Bucket {
  at::TensorOptions options;
  int64_t bytes = 0;
  std::vector<size_t> members;
  int64_t elements = 0;  // of flat
  at::Tensor flat;       // the gradients, then a number for each that says on how many ranks there is one

  at::Tensor counts() const {
    const auto n = static_cast<int64_t>(members.size());
    return flat.narrow(0, elements - n, n);
  }
};

// buckets_of puts parameters into buckets of one dtype and at most cap bytes (0: unbounded), without memory, the last
// first: about the order in which a backward pass makes their gradients.
std::vector<Bucket> buckets_of(const std::vector<at::Tensor>& params, int64_t cap);

}  // namespace gp
