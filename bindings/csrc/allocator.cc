// Large blocks of CPU memory, kept for the next request of about their size.
//
// glibc returns a block above its mmap threshold to the kernel when it is freed, so that every step of training
// faults the pages of its activations in again; told to keep them, it splits them and needs far more memory than
// is ever in use. Here a block is given out whole, and no more is kept than what was once in use together.
#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

#include "fused.h"
#include "shim.h"

namespace {

class BlockCache final : public at::Allocator {
 public:
#if GP_TORCH >= 203
  at::DataPtr allocate(size_t n) override { return take(n); }
  void copy_data(void* dest, const void* src, std::size_t n) const override { std::memcpy(dest, src, n); }
#else
  at::DataPtr allocate(size_t n) const override { return const_cast<BlockCache*>(this)->take(n); }
#endif

  static BlockCache& instance() {
    static auto* cache = new BlockCache;  // never destroyed: tensors may outlive static objects
    return *cache;
  }

  // libtorch also asks for plain pointers, which it gives back through this.
  at::DeleterFnPtr raw_deleter() const override { return &give_back; }

  at::Allocator* before() const { return small_; }

  // release gives back what is kept.
  void release() {
    std::lock_guard<std::mutex> lock(mutex_);
    while (!kept_.empty()) drop_oldest();
  }

 private:
  struct Block {
    void* p;
    size_t size;
  };

  static constexpr size_t kLarge = 1 << 20, kPage = 4096, kHuge = 2 << 20;

  static size_t up(size_t n, size_t to) { return (n + to - 1) / to * to; }

  at::DataPtr take(size_t n) {
    if (n < kLarge) return small_->allocate(n);
    const size_t size = up(n, kPage);
    Block b = kept_block(size);
    if (!b.p) b = {map(size), size};
    if (!b.p) {
      release();
      b = {map(size), size};
      if (!b.p) throw std::bad_alloc();
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      given_[b.p] = b.size;
      used_ += b.size;
      most_ = std::max(most_, used_);
    }
    return {b.p, b.p, &give_back, at::Device(at::kCPU)};
  }

  // kept_block takes the tightest block that fits, or makes room for a new one.
  Block kept_block(size_t size) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto best = kept_.end();
    for (auto it = kept_.begin(); it != kept_.end(); ++it)
      if (it->size >= size && it->size <= size + size / 8 && (best == kept_.end() || it->size <= best->size)) best = it;
    if (best != kept_.end()) {
      Block b = *best;
      kept_.erase(best);
      kept_bytes_ -= b.size;
      return b;
    }
    while (!kept_.empty() && used_ + kept_bytes_ + size > most_) drop_oldest();
    return {nullptr, 0};
  }

  void drop_oldest() {
    const Block b = kept_.front();
    kept_.erase(kept_.begin());
    kept_bytes_ -= b.size;
    munmap(b.p, b.size);
  }

  static void* map(size_t size) {
    const size_t room = size + kHuge;
    void* p = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return nullptr;
    const auto from = reinterpret_cast<uintptr_t>(p), start = up(from, kHuge);
    if (start > from) munmap(p, start - from);
    munmap(reinterpret_cast<void*>(start + size), from + room - start - size);
    madvise(reinterpret_cast<void*>(start), size / kHuge * kHuge, MADV_HUGEPAGE);
    return reinterpret_cast<void*>(start);
  }

  static void give_back(void* p) {
    BlockCache& c = instance();
    {
      std::lock_guard<std::mutex> lock(c.mutex_);
      auto it = c.given_.find(p);
      if (it != c.given_.end()) {
        const Block b{p, it->second};
        c.given_.erase(it);
        c.used_ -= b.size;
        c.kept_bytes_ += b.size;
        c.kept_.push_back(b);
        while (c.used_ + c.kept_bytes_ > c.most_) c.drop_oldest();
        return;
      }
    }
    c.small_->raw_deleter()(p);
  }

  at::Allocator* small_ = c10::GetCPUAllocator();
  std::mutex mutex_;
  std::unordered_map<void*, size_t> given_;  // large blocks in use
  std::vector<Block> kept_;  // the longest unused first
  size_t kept_bytes_ = 0, used_ = 0, most_ = 0;
};

}  // namespace

void gp_keep_large_blocks(int on) {
  BlockCache& c = BlockCache::instance();
  c10::SetCPUAllocator(on ? &c : c.before());
  if (!on) c.release();
}
