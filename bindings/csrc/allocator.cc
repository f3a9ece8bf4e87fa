// Large blocks of CPU memory, cut out of one range of addresses.
//
// glibc returns a block above its mmap threshold to the kernel when it is freed, so that every step of training
// faults the pages of its activations in again; told to keep them, it holds far more memory than is ever in use.
// Here freed pages serve the next block of whatever size, and no more are held than once were in use together:
// beyond that, free pages go back to the kernel while their addresses stay.
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>
#include <unordered_map>

#include "libtorch.h"
#include "shim.h"

namespace {

class BlockArena final : public gp::HostAllocator {
 public:
  static BlockArena& instance() {
    static auto* arena = new BlockArena;  // never destroyed: tensors may outlive static objects
    return *arena;
  }

  // libtorch also asks for plain pointers, which it gives back through this.
  at::DeleterFnPtr raw_deleter() const override { return &give_back; }

  at::Allocator* before() const { return small_; }

  // release gives all free pages back.
  void release() {
    std::lock_guard<std::mutex> lock(mutex_);
    while (held_ > 0) give_pages_back();
  }

 private:
  // Span is free addresses; held ones still have their pages.
  struct Span {
    size_t size;
    bool held;
  };
  using Spans = std::map<uintptr_t, Span>;

  static constexpr size_t kLarge = 1 << 20, kUnit = 64 << 10, kGrowth = 64 << 20;

  BlockArena() {
    // Addresses cost nothing until they are used; a limit on them may allow fewer.
    for (size_t size = size_t{1} << 42; size >= size_t{1} << 32; size /= 2) {
      void* p = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) continue;
      top_ = usable_ = (reinterpret_cast<uintptr_t>(p) + kGrowth - 1) / kGrowth * kGrowth;
      end_ = reinterpret_cast<uintptr_t>(p) + size;
      return;
    }
  }

  at::DataPtr take(size_t n) override {
    if (n < kLarge || n > end_ - top_) return small_->allocate(n);
    const size_t size = (n + kUnit - 1) / kUnit * kUnit;
    uintptr_t p = 0;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!(p = cut(size, /*held=*/true))) {
        while (held_ > 0 && used_ + held_ + size > most_) give_pages_back();
        if (!(p = cut(size, /*held=*/false))) p = grow(size);
      }
      if (p) {
        given_[p] = size;
        used_ += size;
        most_ = std::max(most_, used_);
      }
    }
    if (!p) return small_->allocate(n);
    auto* data = reinterpret_cast<void*>(p);
    return {data, data, &give_back, at::Device(at::kCPU)};
  }

  // cut takes the block from the tightest span that has its pages, or has none; 0 when no span is large enough.
  uintptr_t cut(size_t size, bool held) {
    auto best = free_.end();
    for (auto it = free_.begin(); it != free_.end(); ++it)
      if (it->second.held == held && it->second.size >= size &&
          (best == free_.end() || it->second.size < best->second.size))
        best = it;
    if (best == free_.end()) return 0;
    const uintptr_t p = best->first;
    const size_t left = best->second.size - size;
    free_.erase(best);
    if (left > 0) free_[p + size] = {left, held};
    if (held) held_ -= size;
    return p;
  }

  // grow takes the block from addresses never used; 0 when the kernel refuses.
  uintptr_t grow(size_t size) {
    if (size > end_ - top_) return 0;
    if (top_ + size > usable_) {
      const size_t more = std::min<size_t>((top_ + size - usable_ + kGrowth - 1) / kGrowth * kGrowth, end_ - usable_);
      if (mprotect(reinterpret_cast<void*>(usable_), more, PROT_READ | PROT_WRITE) != 0) return 0;
      madvise(reinterpret_cast<void*>(usable_), more, MADV_HUGEPAGE);
      usable_ += more;
    }
    const uintptr_t p = top_;
    top_ += size;
    return p;
  }

  // give_pages_back takes the pages of the smallest span that has any, which is the least useful.
  void give_pages_back() {
    auto least = free_.end();
    for (auto it = free_.begin(); it != free_.end(); ++it)
      if (it->second.held && (least == free_.end() || it->second.size < least->second.size)) least = it;
    madvise(reinterpret_cast<void*>(least->first), least->second.size, MADV_DONTNEED);
    held_ -= least->second.size;
    const Span s{least->second.size, false};
    const uintptr_t p = least->first;
    free_.erase(least);
    insert(p, s);
  }

  // insert adds a free span and joins it with its neighbours of the same kind.
  void insert(uintptr_t p, Span s) {
    auto next = free_.lower_bound(p);
    if (next != free_.end() && next->first == p + s.size && next->second.held == s.held) {
      s.size += next->second.size;
      next = free_.erase(next);
    }
    if (next != free_.begin()) {
      auto before = std::prev(next);
      if (before->first + before->second.size == p && before->second.held == s.held) {
        before->second.size += s.size;
        return;
      }
    }
    free_[p] = s;
  }

  static void give_back(void* data) {
    BlockArena& c = instance();
    {
      std::lock_guard<std::mutex> lock(c.mutex_);
      auto it = c.given_.find(reinterpret_cast<uintptr_t>(data));
      if (it != c.given_.end()) {
        c.used_ -= it->second;
        c.held_ += it->second;
        c.insert(it->first, {it->second, true});
        c.given_.erase(it);
        return;
      }
    }
    c.small_->raw_deleter()(data);
  }

  at::Allocator* small_ = c10::GetCPUAllocator();
  std::mutex mutex_;
  std::unordered_map<uintptr_t, size_t> given_;  // blocks in use
  Spans free_;
  size_t used_ = 0, held_ = 0, most_ = 0;     // bytes in use, free with their pages, and most in use so far
  uintptr_t top_ = 0, usable_ = 0, end_ = 0;  // first address never used, never made accessible, and behind the last
};

}  // namespace

void gp_keep_large_blocks(gp_bool on) {
  BlockArena& c = BlockArena::instance();
  c10::SetCPUAllocator(on ? &c : c.before());
  if (!on) c.release();
}
