#include "offload.h"

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "../handles.h"
#include "order.h"

using at::Tensor;
using gp::guarded;
using gp::T;

namespace {

struct Piece {  // of a unit
  int64_t at;   // in bytes
  Tensor bytes;
};

struct Unit {
  int64_t size = 0;
  std::vector<Piece> host;
  c10::Storage whole;  // what the tensors are views of, for as long as they live: its memory comes and goes
};

Tensor bytes_of(const Tensor& t) { return t.detach().reshape({-1}).view(at::kByte); }

// Side is a GPU's two lanes: its current stream computes, and a stream beside it copies. libc10 reaches both without
// CUDA's headers.
struct Side {
  explicit Side(c10::Device device)
      : gpu(device.type()),
        device(device),
        copying(gpu.getStreamFromGlobalPool(device)),
        copied{c10::Event(device.type()), c10::Event(device.type())},
        computed{c10::Event(device.type()), c10::Event(device.type())} {}

  c10::Stream computing() const { return gpu.getStream(device); }

  c10::impl::VirtualGuardImpl gpu;
  c10::Device device;
  c10::Stream copying;
  std::array<c10::Event, 2> copied, computed;
};

// Lanes is what a belt of units tells to do. On the CPU all happens at once.
class Lanes {
 public:
  explicit Lanes(c10::Device device) : device_(device) {
    if (!device.is_cpu()) side_.emplace(device);
  }

  std::vector<Unit> units;

  // Makes the slots, each as large as the largest unit.
  void open() {
    int64_t largest = 0;
    for (const Unit& u : units) largest = std::max(largest, u.size);
    for (Tensor& slot : slots_) slot = at::empty({largest}, at::TensorOptions().dtype(at::kByte).device(device_));
  }
  int64_t held() const { return slots_[0].defined() ? slots_[0].numel() * static_cast<int64_t>(slots_.size()) : 0; }
  void close() {
    for (Tensor& slot : slots_) slot = Tensor();
  }

  void copy(size_t unit, size_t slot) {
    std::optional<c10::StreamGuard> beside;
    if (side_) beside.emplace(side_->copying);
    for (const Piece& p : units[unit].host) slots_[slot].narrow(0, p.at, p.bytes.numel()).copy_(p.bytes, true);
  }
  void mark_copied(size_t slot) {
    if (side_) side_->copied[slot].record(side_->copying);
  }
  void mark_computed(size_t slot) {
    if (side_) side_->computed[slot].record(side_->computing());
  }
  void computing_waits(size_t slot) {
    if (side_) side_->copied[slot].block(side_->computing());
  }
  void copying_waits(size_t slot) {
    if (side_) side_->computed[slot].block(side_->copying);
  }
  void attach(size_t unit, size_t slot) {
    units[unit].whole.set_data_ptr_noswap(c10::DataPtr(slots_[slot].data_ptr(), device_));
  }
  void detach(size_t unit) { units[unit].whole.set_data_ptr_noswap(c10::DataPtr(nullptr, device_)); }

 private:
  c10::Device device_;
  std::optional<Side> side_;
  std::array<Tensor, 2> slots_;
};

class Offload {
 public:
  explicit Offload(c10::Device device) : device_(device), lanes_(device) {}

  bool add(const std::vector<Tensor*>& ts);
  void turn(int64_t at, int64_t next);
  void close();
  int64_t held() const { return lanes_.held(); }

 private:
  c10::Device device_;
  Lanes lanes_;
  std::optional<gp::Belt<Lanes>> belt_;  // from the first turn on
  bool closed_ = false;
};

bool Offload::add(const std::vector<Tensor*>& ts) {
  constexpr int64_t kAlign = 256;  // as CUDA's own allocations have it
  TORCH_CHECK(!belt_, "units are added before the first turn");
  Unit u;
  for (const Tensor* t : ts) {
    TORCH_CHECK(t->is_contiguous() && t->is_cpu() && !t->requires_grad(),
                "only frozen tensors without gaps stay with the host");
    u.host.push_back({u.size, bytes_of(*t)});
    u.size = (u.size + static_cast<int64_t>(t->nbytes()) + kAlign - 1) / kAlign * kAlign;
  }
  bool pinned = false;
  if (!device_.is_cpu()) {
    try {
      const Tensor all = at::empty({u.size}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
      for (const Piece& p : u.host) all.narrow(0, p.at, p.bytes.numel()).copy_(p.bytes);
      u.host = {{0, all}};
      pinned = true;
    } catch (const c10::Error&) {
      // There is no more memory to pin: the copies take longer.
    }
  }
  u.whole = c10::Storage(c10::Storage::use_byte_size_t(), static_cast<size_t>(u.size), c10::DataPtr(nullptr, device_),
                         nullptr, false);
  int64_t at = 0;
  for (Tensor* t : ts) {
    const Tensor as_was = *t;
    *t = at::empty({0}, as_was.options().device(device_))
             .set_(u.whole, at / static_cast<int64_t>(as_was.itemsize()), as_was.sizes(), as_was.strides());
    at = (at + static_cast<int64_t>(as_was.nbytes()) + kAlign - 1) / kAlign * kAlign;
  }
  lanes_.units.push_back(std::move(u));
  return pinned;
}

void Offload::turn(int64_t at, int64_t next) {
  if (closed_) return;
  c10::InferenceMode outside(false);
  c10::NoGradGuard guard;
  if (!belt_) {
    lanes_.open();
    belt_.emplace(&lanes_, lanes_.units.size());
  }
  belt_->turn(static_cast<size_t>(at), static_cast<size_t>(next));
}

void Offload::close() {
  if (belt_) belt_->close();
  lanes_.close();
  closed_ = true;
}

// What waits for gradients shares the units, and may outlive their handle.
using Shared = std::shared_ptr<Offload>;

Shared& O(gp_offload offload) { return *static_cast<Shared*>(offload); }

}  // namespace

char* gp_offload_new(gp_offload* out, int device) {
  return guarded([&] { *out = new Shared(std::make_shared<Offload>(gp::device_of(device))); });
}

void gp_offload_free(gp_offload offload) {
  if (char* failed = guarded([&] { O(offload)->close(); }))
    free(failed);  // the device has failed: nothing is left to do
  delete &O(offload);
}

char* gp_offload_add(gp_offload offload, gp_tensor* ts, int n, int* pinned) {
  return guarded([&] {
    std::vector<Tensor*> tensors;
    for (int i = 0; i < n; i++) tensors.push_back(&T(ts[i]));
    *pinned = O(offload)->add(tensors);
  });
}

int64_t gp_offload_held(gp_offload offload) { return O(offload)->held(); }

char* gp_offload_turn(gp_offload offload, int64_t at, int64_t next) {
  return guarded([&] { O(offload)->turn(at, next); });
}

char* gp_offload_turn_at_gradient(gp_offload offload, gp_tensor t, int64_t at, int64_t next) {
  return guarded([&] { T(t).register_hook([o = O(offload), at, next](const Tensor&) { o->turn(at, next); }); });
}
