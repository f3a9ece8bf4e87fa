// NCCL's group without CUDA's headers and without linking libtorch's CUDA part: no registry leads to it from C++, so
// its constructor is found by name in the library that is opened when a GPU is asked for. All else goes through virtual
// functions of c10d::Backend.
#include <ATen/Version.h>
#include <dlfcn.h>

#include <cstring>
#include <new>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "../boundary.h"
#include "../libtorch.h"
#include "c10d.h"
#include "group.h"
#include "store.h"

using c10::intrusive_ptr;
using c10d::Backend;
using gp::guarded;

namespace {

// The names of libtorch 2.11.0's functions. An intrusive_ptr is passed by reference to a temporary, as all that has a
// destructor is, so the type it points to does not matter to the call.
constexpr const char* kNewGroup =
    "_ZN4c10d16ProcessGroupNCCLC1EN3c1013intrusive_ptrINS_5StoreENS1_6detail34intrusive_target_default_null_"
    "typeIS3_EEEEiiNS2_INS0_7OptionsENS5_IS8_EEEE";
constexpr const char* kNewOptions = "_ZN4c10d16ProcessGroupNCCL7OptionsC1Eb";
constexpr size_t kRoom = 16384;  // more than either object takes: 1,112 and 248 bytes

template <class F>
F* function(void* library, const char* name) {
  auto* f = reinterpret_cast<F*>(dlsym(library, name));
  TORCH_CHECK(f, "libtorch's CUDA part has no ", name);
  return f;
}

// made is an object of a class that is not known here, built by construct in memory that its own deleting destructor
// frees.
template <class Base, class F>
intrusive_ptr<Base> made(const F& construct) {
  void* memory = ::operator new(kRoom);
  std::memset(memory, 0, kRoom);
  try {
    construct(memory);
  } catch (...) {
    ::operator delete(memory);
    throw;
  }
  return intrusive_ptr<Base>::unsafe_steal_from_new(static_cast<Base*>(memory));
}

}  // namespace

char* gp_group_add_nccl(gp_group group, gp_store store, int rank, int size, int64_t timeout_ms) {
  return guarded([&] {
    TORCH_CHECK(GP_TORCH == 211, "NCCL is used of libtorch 2.11 alone, this is ", TORCH_VERSION);
    void* cuda = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
    TORCH_CHECK(cuda, "libtorch's CUDA part is not loaded");
    using NewOptions = void(void*, bool);
    using NewGroup = void(void*, intrusive_ptr<c10d::Store>, int, int, intrusive_ptr<Backend::Options>);
    auto* new_options = function<NewOptions>(cuda, kNewOptions);
    auto* new_group = function<NewGroup>(cuda, kNewGroup);
    auto options = made<Backend::Options>([&](void* memory) { new_options(memory, /*high priority=*/false); });
    options->timeout = std::chrono::milliseconds(timeout_ms);
    static_cast<gp::Group*>(group)->gpu = made<Backend>(
        [&](void* memory) { new_group(memory, static_cast<gp::Store*>(store)->keys, rank, size, options); });
  });
}
