// How kernels are launched, whatever runs them.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "arguments.h"

namespace gp::launch {

// Call is one launch: a kernel of blocks_x x blocks_y blocks. Arguments are told by address and size, as the driver
// takes them; the sizes are for the tests, which know the kernels' parameters.
struct Call {
  const char* kernel;
  int64_t blocks_x, blocks_y;
  int threads;
  void** arguments;
  const size_t* sizes;
  int count;
};

// Queue runs kernels one after another. run throws where it cannot.
class Queue {
 public:
  virtual ~Queue() = default;
  virtual void run(const Call& call) = 0;
};

template <class... A>
void run(Queue& queue, const char* kernel, int64_t blocks_x, int64_t blocks_y, int threads, A... arguments) {
  if (blocks_x == 0 || blocks_y == 0) return;  // a grid cannot be empty
  void* addresses[] = {&arguments...};
  const size_t sizes[] = {sizeof(A)...};
  queue.run({kernel, blocks_x, blocks_y, threads, addresses, sizes, static_cast<int>(sizeof...(A))});
}

inline int64_t divided(int64_t n, int64_t by) { return (n + by - 1) / by; }

// Blocks of this many threads leave room for several on a processor, with the registers that the kernels take.
constexpr int kThreads = 256;

// blocks_for is how many blocks see to n pieces of work, a thread to each; beyond a bound threads take several.
inline int64_t blocks_for(int64_t n) { return std::min<int64_t>(divided(n, kThreads), 65536); }

// threads_for is how many threads share a row of n pieces of work.
inline int threads_for(int64_t n) { return static_cast<int>(std::clamp<int64_t>(divided(n, 32) * 32, 32, kThreads)); }

}  // namespace gp::launch
