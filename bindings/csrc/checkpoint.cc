#include "checkpoint.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/saved_variable_hooks.h>

#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "boundary.h"
#include "libtorch.h"

using at::Tensor;
using torch::autograd::Engine;
using torch::autograd::SavedVariableHooks;

// From Go: runs function id on inputs (boxed, taken over) and returns NULL or a message to free.
extern "C" char* gpCheckpointRun(uint64_t id, void** inputs, int n);

namespace {

class AutocastGuard {
 public:
  AutocastGuard(c10::DeviceType device, gp::Autocast state) : device_(device), was_(gp::autocast(device)) {
    gp::set_autocast(device, state);
    at::autocast::increment_nesting();
  }
  ~AutocastGuard() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    gp::set_autocast(device_, was_);
  }

 private:
  c10::DeviceType device_;
  gp::Autocast was_;
};

Tensor rng_state(at::Generator g) {
  std::lock_guard<std::mutex> lock(g.mutex());
  return g.get_state();
}

class RNGGuard {
 public:
  RNGGuard(at::Generator g, const Tensor& state) : g_(std::move(g)), was_(rng_state(g_)) { set(state); }
  ~RNGGuard() { set(was_); }

 private:
  void set(const Tensor& state) {
    std::lock_guard<std::mutex> lock(g_.mutex());
    g_.set_state(state);
  }
  at::Generator g_;
  Tensor was_;
};

// Stop ends a second run once everything the first one saved is there again.
struct Stop : std::exception {
  const char* what() const noexcept override { return "recomputed enough"; }
};

std::mutex dead_mutex;
std::vector<uint64_t> dead;

// Slot stands for one tensor that the first run saved. The graph's hooks own it; once they are gone nobody
// will ask for the tensor, and a second run does not keep it.
struct Slot {
  int64_t numel;
  at::ScalarType dtype;
  Tensor value;
};

struct Frame {
  uint64_t id;
  std::vector<Tensor> inputs;
  c10::Device device = c10::Device(c10::kCPU);
  Tensor cpu_rng, device_rng;
  gp::Autocast cpu_autocast, device_autocast;
  std::vector<std::weak_ptr<Slot>> slots;

  ~Frame() {
    std::lock_guard<std::mutex> lock(dead_mutex);
    dead.push_back(id);
  }
  void recompute();
};

// What the running thread's operations belong to: neither, a first run, or a second one.
struct Mode {
  std::shared_ptr<Frame> first;
  Frame* second = nullptr;
  size_t next = 0;  // slot of the second run's next tensor
};
thread_local Mode mode;

// FirstRun drops what autograd saves and gives it back on demand.
struct FirstRun : SavedVariableHooks {
  explicit FirstRun(std::shared_ptr<Frame> f) : frame(std::move(f)) {}
  void call_pack_hook(const Tensor& t) override {
    slot = std::make_shared<Slot>(Slot{t.numel(), t.scalar_type(), Tensor()});
    frame->slots.push_back(slot);
  }
  Tensor call_unpack_hook() override {
    if (!slot->value.defined()) frame->recompute();
    return std::move(slot->value);
  }
  std::shared_ptr<Frame> frame;
  std::shared_ptr<Slot> slot;
};

// SecondRun hands what autograd saves to the first run's slots; its own graph is thrown away.
struct SecondRun : SavedVariableHooks {
  void call_pack_hook(const Tensor& t) override {
    auto& slots = mode.second->slots;
    if (mode.next < slots.size()) {
      if (auto slot = slots[mode.next].lock()) {
        TORCH_CHECK(slot->numel == t.numel() && slot->dtype == t.scalar_type(),
                    "a checkpointed block computed something else when it ran again");
        slot->value = t.detach();
      }
    }
    if (++mode.next == slots.size()) throw Stop();
  }
  Tensor call_unpack_hook() override { throw std::logic_error("the graph of a second run has no backward pass"); }
};

void Frame::recompute() {
  std::vector<void*> boxes;
  boxes.reserve(inputs.size());
  for (auto& t : inputs) boxes.push_back(gp::box(t));

  at::AutoGradMode grad(true);
  AutocastGuard cpu_cast(c10::kCPU, cpu_autocast);
  RNGGuard cpu_state(at::detail::getDefaultCPUGenerator(), cpu_rng);
  std::optional<AutocastGuard> device_cast;
  std::optional<RNGGuard> device_state;
  if (device_rng.defined()) {
    device_cast.emplace(device.type(), device_autocast);
    device_state.emplace(at::globalContext().defaultGenerator(device), device_rng);
  }
  Mode outer = std::move(mode);
  mode = Mode{nullptr, this, 0};
  char* message = gpCheckpointRun(id, boxes.data(), static_cast<int>(boxes.size()));
  size_t saved = mode.next;
  mode = std::move(outer);
  std::string text = message ? message : "";
  free(message);
  if (saved >= slots.size()) return;  // a message is then Stop's own
  TORCH_CHECK(text.empty(), text);
  TORCH_CHECK(false, "a checkpointed block saved ", saved, " tensors when it ran again and ", slots.size(), " before");
}

// HookEngine is the default engine but for asking the mode which hooks saved tensors get, the way Python's
// engine asks Python.
struct HookEngine : Engine {
  std::unique_ptr<SavedVariableHooks> get_default_saved_variable_hooks() override {
    if (mode.first) return std::make_unique<FirstRun>(mode.first);
    if (mode.second) return std::make_unique<SecondRun>();
    return nullptr;
  }
};

Engine& hook_engine() {
  static HookEngine* engine = new HookEngine();  // never destroyed: its threads may outlive main
  return *engine;
}

}  // namespace

char* gp_checkpoint_begin(void** frame, gp_tensor* inputs, int n, uint64_t id) {
  return gp::guarded([&] {
    *frame = nullptr;
    if (!at::GradMode::is_enabled() || mode.first || mode.second) return;
    static std::once_flag once;
    std::call_once(once, [] { torch::autograd::set_default_engine_stub(hook_engine); });
    auto f = std::make_shared<Frame>();
    for (int i = 0; i < n; i++) {
      f->inputs.push_back(gp::opt(inputs[i]));
      if (f->inputs.back().defined() && f->inputs.back().is_cuda()) f->device = f->inputs.back().device();
    }
    f->cpu_rng = rng_state(at::detail::getDefaultCPUGenerator());
    f->cpu_autocast = gp::autocast(c10::kCPU);
    if (!f->device.is_cpu()) {
      f->device_rng = rng_state(at::globalContext().defaultGenerator(f->device));
      f->device_autocast = gp::autocast(f->device.type());
    }
    f->id = id;
    mode.first = std::move(f);
    *frame = mode.first.get();
  });
}

void gp_checkpoint_end(void* frame) {
  if (frame && mode.first.get() == frame) mode.first.reset();
}

int gp_checkpoint_dead(uint64_t* ids, int n) {
  std::lock_guard<std::mutex> lock(dead_mutex);
  int count = 0;
  for (; count < n && !dead.empty(); count++) {
    ids[count] = dead.back();
    dead.pop_back();
  }
  return count;
}
