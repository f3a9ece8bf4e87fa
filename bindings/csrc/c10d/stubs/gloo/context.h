// What c10d's header of Gloo's group names of Gloo, whose own headers do not come with libtorch. Nothing of it is made
// or called by us; Context::setTimeout is in libtorch.
#pragma once
#include <chrono>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

namespace transport {
class Device;
class UnboundBuffer {
 public:
  virtual ~UnboundBuffer() = default;
};
}  // namespace transport

}  // namespace gloo
