// Weights of which each rank holds its part. They are in units, each one flat buffer in as many equal slices as
// there are ranks. What the whole is needed for reads views of that buffer, saved for the backward pass or not, so the
// buffer keeps its place while its memory comes and goes: on the CPU an address range whose pages are given back, but
// for those of the rank's own slice; on a GPU a storage whose memory is allocated anew.
#include <c10/core/Allocator.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "../handles.h"
#include "c10d.h"
#include "group.h"

using at::Tensor;
using gp::guarded;
using gp::T;

namespace {

int64_t rounded_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Pages are addresses that take memory only once they are touched.
struct Pages {
  explicit Pages(size_t n)
      : start(mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)), size(n) {
    TORCH_CHECK(start != MAP_FAILED, "no room for ", n, " bytes of addresses");
  }
  ~Pages() { munmap(start, size); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  static void free(void* pages) { delete static_cast<Pages*>(pages); }

  void* start;
  size_t size;
};

Tensor bytes_of(const Tensor& t) { return t.detach().reshape({-1}).view(at::kByte); }

class Shards {
 public:
  Shards(int rank, int size) : rank_(rank), size_(size) {}

  void add(c10::Device device, const std::vector<Tensor*>& ts);
  void join(gp::Group* group) { group_ = group; }
  void turn(int64_t at, int64_t next);
  void close() { closed_ = true; }
  // What of a unit's tensor is in a rank's slice: elements of it, laid flat.
  std::pair<int64_t, int64_t> span(int64_t unit, int64_t tensor, int rank) const;
  int64_t held() const {
    int64_t sum = 0;
    for (const Unit& u : units_) sum += u.slice;
    return sum;
  }

 private:
  struct Place {  // of a tensor, in bytes of the whole
    int64_t from, size, element;
  };
  struct Unit {
    int64_t slice = 0;  // bytes; the whole has as many as there are ranks
    std::vector<Place> places;
    c10::Storage whole;
    Tensor flat;  // all of whole, as bytes
    Tensor part;  // this rank's slice: on the CPU it lies in whole
    std::vector<c10::intrusive_ptr<c10d::Work>> works;
    bool there = false;  // or on its way
  };

  bool on_cpu(const Unit& u) const { return u.flat.is_cpu(); }
  void begin(Unit& u);
  void wait(Unit& u);
  void leave(Unit& u);

  int rank_, size_;
  gp::Group* group_ = nullptr;
  std::vector<Unit> units_;
  bool closed_ = false;
};

// Makes the tensors views of a new unit, of which this rank's slice is copied from them: no more of them is read. Those
// that are trained stay leaves.
void Shards::add(c10::Device device, const std::vector<Tensor*>& ts) {
  constexpr int64_t kAlign = 256;  // 64 numbers: an optimizer computes each in the same place of a vector as in a whole
  Unit u;
  int64_t total = 0;
  for (const Tensor* t : ts) {
    TORCH_CHECK(t->is_contiguous() && t->is_leaf(), "only weights without gaps are shared");
    u.places.push_back({total, static_cast<int64_t>(t->nbytes()), static_cast<int64_t>(t->itemsize())});
    total = rounded_up(total + static_cast<int64_t>(t->nbytes()), kAlign);
  }
  const int64_t page = sysconf(_SC_PAGESIZE);
  u.slice = std::max(page, rounded_up((total + size_ - 1) / size_, page));
  const auto size = static_cast<size_t>(u.slice * size_);
  if (device.is_cpu()) {
    auto* pages = new Pages(size);
    u.whole = c10::Storage(c10::Storage::use_byte_size_t(), size,
                           c10::DataPtr(pages->start, pages, &Pages::free, device), nullptr, false);
  } else {
    c10::Allocator* allocator = c10::GetAllocator(device.type());
    u.whole = c10::Storage(c10::Storage::use_byte_size_t(), size, allocator->allocate(size), allocator, false);
  }
  const auto view = [&](int64_t place, const Tensor& like) {
    return at::empty({0}, like.options().device(device))
        .set_(u.whole, place / static_cast<int64_t>(like.itemsize()), like.sizes(), like.strides());
  };
  const Tensor bytes = at::empty({0}, at::kByte);
  u.flat = at::empty({0}, bytes.options().device(device)).set_(u.whole, 0, {u.slice * size_}, {1});
  u.part = device.is_cpu() ? u.flat.narrow(0, rank_ * u.slice, u.slice)
                           : at::empty({u.slice}, bytes.options().device(device));
  const int64_t first = rank_ * u.slice;
  for (size_t i = 0; i < ts.size(); i++) {
    const Place& place = u.places[i];
    const int64_t from = std::max(first, place.from);
    const int64_t to = std::min(first + u.slice, place.from + place.size);
    if (from < to)
      u.part.narrow(0, from - first, to - from).copy_(bytes_of(*ts[i]).narrow(0, from - place.from, to - from));
  }
  for (size_t i = 0; i < ts.size(); i++) {
    Tensor shared = view(u.places[i].from, *ts[i]);
    *ts[i] = shared.set_requires_grad(ts[i]->requires_grad());
  }
  if (!device.is_cpu()) u.whole.set_data_ptr_noswap(c10::DataPtr(nullptr, device));
  units_.push_back(std::move(u));
}

std::pair<int64_t, int64_t> Shards::span(int64_t unit, int64_t tensor, int rank) const {
  const Unit& u = units_.at(static_cast<size_t>(unit));
  const Place& place = u.places.at(static_cast<size_t>(tensor));
  const auto within = [&](int64_t at) { return std::clamp<int64_t>(at - place.from, 0, place.size) / place.element; };
  const int64_t from = within(rank * u.slice);
  return {from, within((rank + 1) * u.slice) - from};
}

// Gloo gathers into memory of its own and copies from there; a broadcast from each rank needs none.
void Shards::begin(Unit& u) {
  if (u.there) return;
  TORCH_CHECK(group_, "the processes have not met");
  u.there = true;
  group_->begun++;
  if (on_cpu(u)) {
    for (int rank = 0; rank < size_; rank++) {
      c10d::BroadcastOptions o;
      o.rootRank = rank;
      std::vector<Tensor> slice{u.flat.narrow(0, rank * u.slice, u.slice)};
      u.works.push_back(group_->of(u.flat).broadcast(slice, o));
    }
    return;
  }
  u.whole.set_data_ptr_noswap(u.whole.allocator()->allocate(u.whole.nbytes()));
  u.works.push_back(group_->of(u.flat)._allgather_base(u.flat, u.part));
}

void Shards::wait(Unit& u) {
  const auto begun = std::chrono::steady_clock::now();
  for (auto& work : u.works) gp::wait_unless_given_up(*group_, *work, u.flat);
  u.works.clear();
  group_->waited_ns += std::chrono::nanoseconds(std::chrono::steady_clock::now() - begun).count();
}

void Shards::leave(Unit& u) {
  wait(u);
  u.there = false;
  if (!on_cpu(u)) {
    u.whole.set_data_ptr_noswap(c10::DataPtr(nullptr, u.flat.device()));
    return;
  }
  auto* start = static_cast<char*>(u.flat.data_ptr());
  const auto before = static_cast<size_t>(rank_ * u.slice), slice = static_cast<size_t>(u.slice);
  // Should the system refuse, that costs memory only.
  if (before > 0) madvise(start, before, MADV_DONTNEED);
  if (rank_ + 1 < size_) madvise(start + before + slice, u.whole.nbytes() - before - slice, MADV_DONTNEED);
}

void Shards::turn(int64_t at, int64_t next) {
  if (closed_) return;
  c10::InferenceMode outside(false);
  c10::NoGradGuard guard;
  const auto count = static_cast<int64_t>(units_.size());
  for (int64_t i = 0; i < count; i++) {
    if (units_[static_cast<size_t>(i)].there && i != at && i != next) leave(units_[static_cast<size_t>(i)]);
  }
  for (int64_t i : {at, next}) {
    if (i < count) begin(units_[static_cast<size_t>(i)]);
  }
  if (at < count) wait(units_[static_cast<size_t>(at)]);
}

// What waits for gradients shares the units, and may outlive their handle.
using Shared = std::shared_ptr<Shards>;

Shared& S(gp_shards shards) { return *static_cast<Shared*>(shards); }

}  // namespace

char* gp_shards_new(gp_shards* out, int rank, int size) {
  return guarded([&] { *out = new Shared(std::make_shared<Shards>(rank, size)); });
}

void gp_shards_free(gp_shards shards) {
  S(shards)->close();
  delete &S(shards);
}

char* gp_shards_add(gp_shards shards, int device, gp_tensor* ts, int n) {
  return guarded([&] {
    std::vector<Tensor*> tensors;
    for (int i = 0; i < n; i++) tensors.push_back(&T(ts[i]));
    S(shards)->add(gp::device_of(device), tensors);
  });
}

void gp_shards_join(gp_shards shards, gp_group group) { S(shards)->join(static_cast<gp::Group*>(group)); }

int64_t gp_shards_held(gp_shards shards) { return S(shards)->held(); }

char* gp_shards_span(gp_shards shards, int64_t unit, int64_t tensor, int rank, int64_t* from, int64_t* n) {
  return guarded([&] { std::tie(*from, *n) = S(shards)->span(unit, tensor, rank); });
}

char* gp_shards_turn(gp_shards shards, int64_t at, int64_t next) {
  return guarded([&] { S(shards)->turn(at, next); });
}

char* gp_shards_turn_at_gradient(gp_shards shards, gp_tensor t, int64_t at, int64_t next) {
  return guarded([&] { T(t).register_hook([s = S(shards), at, next](const Tensor&) { s->turn(at, next); }); });
}
