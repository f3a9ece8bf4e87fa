// A store behind c10d.h's handle.
#pragma once
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace gp {

struct Store {
  c10::intrusive_ptr<c10d::Store> keys;
};

}  // namespace gp
