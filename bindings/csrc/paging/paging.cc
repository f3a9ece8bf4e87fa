#include "paging.h"

#include <ATen/ATen.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "../boundary.h"

using gp::guarded;
using gp::T;

namespace {

struct Range {
  char* start;
  size_t size;
};
using Unit = std::vector<Range>;

// Pager asks on a thread of its own, which waits for the disk. It gives back on the caller's, so that none of
// that is to come when turn has returned.
class Pager {
 public:
  Pager() : asking_([this] { ask(); }) {}
  ~Pager() { close(); }

  void lay(std::vector<Unit> units) {
    const std::lock_guard<std::mutex> lock(mutex_);
    wanted_.clear();
    held_.assign(units.size(), false);
    units_ = std::make_shared<const std::vector<Unit>>(std::move(units));
  }

  void turn(size_t at, size_t next) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) return;
    for (size_t u = 0; u < held_.size(); u++) {
      if (!held_[u] || u == at || u == next) continue;
      // Should the system refuse, that costs memory only.
      for (const Range& r : (*units_)[u]) madvise(r.start, r.size, MADV_DONTNEED);
      held_[u] = false;
    }
    for (size_t u : {at, next}) {
      if (u >= held_.size() || held_[u]) continue;
      held_[u] = true;
      wanted_.push_back(u);
    }
    wake_.notify_one();
  }

  // After it nothing touches the ranges, which may be unmapped.
  void close() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
      wake_.notify_one();
    }
    if (asking_.joinable()) asking_.join();
  }

 private:
  void ask() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return closed_ || !wanted_.empty(); });
      if (closed_) return;
      const size_t u = wanted_.front();
      wanted_.pop_front();
      const auto units = units_;
      for (const Range& r : (*units)[u]) {
        // A piece at a time: the unit may have been given back since.
        constexpr size_t kPiece = size_t{8} << 20;
        for (size_t done = 0; done < r.size && !closed_ && units == units_ && held_[u]; done += kPiece) {
          lock.unlock();
          read(r.start + done, std::min(kPiece, r.size - done));
          lock.lock();
        }
      }
    }
  }

  // Maps the pages as it reads them, if the system can (Linux 5.14): under a limit of memory the kernel was seen to
  // take a fifth of the time for that.
  static void read(char* start, size_t size) {
#ifdef MADV_POPULATE_READ
    if (madvise(start, size, MADV_POPULATE_READ) == 0 || errno != EINVAL) return;
#endif
    madvise(start, size, MADV_WILLNEED);
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::shared_ptr<const std::vector<Unit>> units_ = std::make_shared<const std::vector<Unit>>();
  std::vector<bool> held_;  // asked for and not given back
  std::deque<size_t> wanted_;
  bool closed_ = false;
  std::thread asking_;  // the last member: it uses the others
};

// What waits for gradients shares the pager, and may outlive its handle.
using Shared = std::shared_ptr<Pager>;

Shared& P(gp_pager pager) { return *static_cast<Shared*>(pager); }

}  // namespace

char* gp_pager_new(gp_pager* out) {
  return guarded([&] { *out = new Shared(std::make_shared<Pager>()); });
}

void gp_pager_free(gp_pager pager) {
  P(pager)->close();
  delete &P(pager);
}

char* gp_pager_lay(gp_pager pager, const uint64_t* starts, const uint64_t* sizes, const int64_t* counts, int n) {
  return guarded([&] {
    std::vector<Unit> units(static_cast<size_t>(n));
    for (size_t i = 0; i < units.size(); i++)
      for (int64_t k = 0; k < counts[i]; k++) units[i].push_back({reinterpret_cast<char*>(*starts++), *sizes++});
    P(pager)->lay(std::move(units));
  });
}

char* gp_pager_turn(gp_pager pager, int64_t at, int64_t next) {
  return guarded([&] { P(pager)->turn(static_cast<size_t>(at), static_cast<size_t>(next)); });
}

char* gp_pager_turn_at_gradient(gp_pager pager, gp_tensor t, int64_t at, int64_t next) {
  return guarded([&] {
    T(t).register_hook(
        [p = P(pager), at, next](const at::Tensor&) { p->turn(static_cast<size_t>(at), static_cast<size_t>(next)); });
  });
}
