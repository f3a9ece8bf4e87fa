#include "group.h"

#include <c10/util/Logging.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "../boundary.h"
#include "c10d.h"
#include "store.h"

using at::Tensor;
using c10::intrusive_ptr;
using gp::guarded;
using gp::T;
using std::chrono::milliseconds;

namespace {

gp::Store& S(gp_store store) { return *static_cast<gp::Store*>(store); }
gp::Group& G(gp_group group) { return *static_cast<gp::Group*>(group); }

struct Operation {
  intrusive_ptr<c10d::Work> work;
  std::vector<Tensor> tensors;
};

// start begins an operation of G on tensors.
template <class F>
char* start(gp_work* out, std::vector<Tensor> tensors, const F& begin) {
  return guarded([&] {
    auto op = std::make_unique<Operation>();
    op->tensors = std::move(tensors);
    op->work = begin(op->tensors);
    *out = op.release();
  });
}

}  // namespace

void gp_c10d_quiet() {
  setenv("TORCH_CPP_LOG_LEVEL", "FATAL", 0);
  c10::initLogging();
}

char* gp_store_open(gp_store* out, const char* host, int port, int serve, int fd, const char* prefix,
                    int64_t timeout_ms) {
  return guarded([&] {
    c10d::TCPStoreOptions o;
    o.port = static_cast<uint16_t>(port);
    o.isServer = serve != 0;
    o.waitWorkers = false;  // who came is asked by keys, so that whoever did not can be named
    o.timeout = milliseconds(timeout_ms);
    if (serve == 2) o.masterListenFd = fd;
    auto tcp = c10::make_intrusive<c10d::TCPStore>(host, o);
    *out = new gp::Store{c10::make_intrusive<c10d::PrefixStore>(prefix, std::move(tcp))};
  });
}

void gp_store_close(gp_store store) { delete static_cast<gp::Store*>(store); }

char* gp_store_set(gp_store store, const char* key, const void* value, int64_t length) {
  return guarded([&] {
    const auto* bytes = static_cast<const uint8_t*>(value);
    S(store).keys->set(key, std::vector<uint8_t>(bytes, bytes + length));
  });
}

char* gp_store_get(gp_store store, const char* key, void** out, int64_t* length) {
  return guarded([&] {
    *out = nullptr;
    if (!S(store).keys->check({key})) return;  // get would wait for it
    const std::vector<uint8_t> value = S(store).keys->get(key);
    *length = static_cast<int64_t>(value.size());
    *out = malloc(value.size() + 1);  // some memory for nothing, too
    TORCH_CHECK(*out, "no memory");
    if (!value.empty()) std::memcpy(*out, value.data(), value.size());
  });
}

char* gp_group_gloo(gp_group* out, gp_store store, const char* address, int rank, int size, int64_t timeout_ms) {
  return guarded([&] {
    const milliseconds timeout(timeout_ms);
    using Gloo = c10d::ProcessGroupGloo;
    auto options = *address ? Gloo::Options::create(timeout) : Gloo::Options::create_default(timeout);
    if (*address) options->devices.push_back(Gloo::createDeviceForHostname(address));
    auto group = std::make_unique<gp::Group>();
    group->cpu = c10::make_intrusive<Gloo>(S(store).keys, rank, size, std::move(options));
    *out = group.release();
  });
}

char* gp_group_leave(gp_group group) {
  return guarded([&] {
    const std::unique_ptr<gp::Group> owned(static_cast<gp::Group*>(group));
    if (owned->gpu) owned->gpu->shutdown();
  });
}

void gp_group_give_up(gp_group group) { G(group).given_up = true; }

void gp_group_shared(gp_group group, int* broken, int64_t* begun, int64_t* waited_ns) {
  *broken = G(group).broken;
  *begun = G(group).begun;
  *waited_ns = G(group).waited_ns;
}

char* gp_group_sum(gp_work* out, gp_group group, gp_tensor t) {
  return start(out, {T(t)}, [&](std::vector<Tensor>& ts) { return G(group).of(ts[0]).allreduce(ts); });
}

char* gp_group_broadcast(gp_work* out, gp_group group, gp_tensor t, int root) {
  return start(out, {T(t)}, [&](std::vector<Tensor>& ts) {
    c10d::BroadcastOptions o;
    o.rootRank = root;
    return G(group).of(ts[0]).broadcast(ts, o);
  });
}

char* gp_group_gather(gp_work* out, gp_group group, gp_tensor whole, gp_tensor part) {
  return start(out, {T(whole), T(part)}, [&](std::vector<Tensor>& ts) {
    for (Tensor& t : ts) t = t.view(-1);  // else libtorch wants the parts of whole to have part's shape
    return G(group).of(ts[0])._allgather_base(ts[0], ts[1]);
  });
}

bool gp::waited(c10d::Work& work, const Tensor& on, int64_t ms) {
  if (on.is_cuda()) {  // NCCL's wait only makes the GPU's later operations wait, and returns at once
    const auto limit = std::chrono::steady_clock::now() + milliseconds(ms);
    while (!work.isCompleted()) {
      if (std::chrono::steady_clock::now() >= limit) return false;
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    work.wait();
    return true;
  }
  try {
    work.wait(milliseconds(ms));
  } catch (...) {
    if (!work.isCompleted()) return false;  // only that it takes longer
    if (auto failed = work.exception()) std::rethrow_exception(failed);
  }
  return true;
}

void gp::wait_unless_given_up(Group& group, c10d::Work& work, const Tensor& on) {
  constexpr int64_t kLookMS = 100;  // how often it looks whether the run has been given up
  try {
    while (!waited(work, on, kLookMS)) TORCH_CHECK(!group.given_up, "the group was given up");
  } catch (...) {
    group.broken = true;
    throw;
  }
}

char* gp_work_wait(gp_work work, int64_t ms, int* done) {
  return guarded([&] {
    auto& op = *static_cast<Operation*>(work);
    *done = gp::waited(*op.work, op.tensors[0], ms);
  });
}

void gp_work_free(gp_work work) { delete static_cast<Operation*>(work); }

char* gp_tensors_hash(uint64_t* out, gp_tensor* ts, int n) {
  return guarded([&] {
    uint64_t sum = 0xcbf29ce484222325;
    auto add = [&](uint64_t word) {
      sum = (sum ^ word) * 0x9e3779b97f4a7c15;
      sum ^= sum >> 29;
    };
    for (int i = 0; i < n; i++) {
      const Tensor t = T(ts[i]).detach().to(at::kCPU).contiguous();
      const auto* bytes = static_cast<const char*>(t.data_ptr());
      const size_t size = t.nbytes();
      add(size);
      for (size_t at = 0; at < size; at += 8) {
        uint64_t word = 0;
        std::memcpy(&word, bytes + at, std::min<size_t>(8, size - at));
        add(word);
      }
    }
    *out = sum;
  });
}
