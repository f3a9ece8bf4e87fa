#include "fibres.h"

#include <ucontext.h>

#include <stdexcept>
#include <vector>

namespace emulator {

Place place;

namespace {

constexpr u32 kWarp = 32;
constexpr size_t kStack = 64 << 10;

enum class State { kReady, kAtBarrier, kInShuffle, kDone };

struct Fibre {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStack);
  State state;
  float value;  // given to a shuffle, then received
  int mask;
};

// What runs now: Go's tests call from one thread at a time.
std::vector<Fibre> fibres;
Fibre* current;
ucontext_t scheduler;
const std::function<void()>* running;

void wait(State state) {
  current->state = state;
  swapcontext(&current->context, &scheduler);
}

void start() {
  (*running)();
  wait(State::kDone);
}

void prepare(u32 threads) {
  if (fibres.size() < threads) fibres.resize(threads);
  for (u32 i = 0; i < threads; i++) {
    Fibre& f = fibres[i];
    f.state = State::kReady;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.data();
    f.context.uc_stack.ss_size = f.stack.size();
    f.context.uc_link = nullptr;
    makecontext(&f.context, start, 0);
  }
}

// run_ready runs the lanes of a warp that wait for nothing.
void run_ready(Fibre* warp, bool backwards) {
  for (u32 n = 0; n < kWarp; n++) {
    current = warp + (backwards ? kWarp - 1 - n : n);
    if (current->state != State::kReady) continue;
    place.thread.x = static_cast<u32>(current - fibres.data());
    swapcontext(&scheduler, &current->context);
  }
}

// shuffle gives the lanes of a warp their values where all are there for them.
bool shuffle(Fibre* warp) {
  float given[kWarp];
  for (u32 i = 0; i < kWarp; i++) {
    if (warp[i].state != State::kInShuffle || warp[i].mask != warp[0].mask) return false;
    given[i] = warp[i].value;
  }
  for (u32 i = 0; i < kWarp; i++) {
    warp[i].value = given[i ^ static_cast<u32>(warp[i].mask)];
    warp[i].state = State::kReady;
  }
  return true;
}

// pass lets on the threads that wait for a barrier where all that are left do.
bool pass(u32 threads) {
  for (u32 i = 0; i < threads; i++)
    if (fibres[i].state != State::kAtBarrier && fibres[i].state != State::kDone) return false;
  bool any = false;
  for (u32 i = 0; i < threads; i++) {
    if (fibres[i].state != State::kAtBarrier) continue;
    fibres[i].state = State::kReady;
    any = true;
  }
  return any;
}

bool all_done(u32 threads) {
  for (u32 i = 0; i < threads; i++)
    if (fibres[i].state != State::kDone) return false;
  return true;
}

}  // namespace

void sync() { wait(State::kAtBarrier); }

float exchange(float v, int mask) {
  current->value = v;
  current->mask = mask;
  wait(State::kInShuffle);
  return current->value;
}

void run_block(Index block, Index grid_size, u32 threads, bool backwards, const std::function<void()>& body) {
  if (threads % kWarp != 0) throw std::invalid_argument("a block is not of whole warps");
  prepare(threads);
  running = &body;
  place = {{}, block, {threads, 1, 1}, grid_size};
  const u32 warps = threads / kWarp;
  while (!all_done(threads)) {
    // A warp runs as far as it can before the next one does: what a barrier should keep apart then mixes without it.
    for (u32 n = 0; n < warps; n++) {
      Fibre* warp = &fibres[(backwards ? warps - 1 - n : n) * kWarp];
      do run_ready(warp, backwards);
      while (shuffle(warp));
    }
    if (!pass(threads) && !all_done(threads))
      throw std::logic_error("threads wait for others that have returned, or wait elsewhere");
  }
}

}  // namespace emulator
