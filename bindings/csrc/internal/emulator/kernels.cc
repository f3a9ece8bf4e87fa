// The kernels' own source, once for each element type, behind the launches that GPUs use.
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "../../launch/quantised.h"
#include "../../launch/training.h"
#include "device.h"
#include "emulator.h"
#include "fibres.h"

#pragma GCC diagnostic ignored "-Wunused-function"
// NVRTC is told not to join products and sums of its own accord either.
#pragma GCC optimize("fp-contract=off")

#define KERNELS(K)        \
  K(rms_norm)             \
  K(rms_norm_backward)    \
  K(rms_norm_weight)      \
  K(swiglu)               \
  K(swiglu_backward)      \
  K(cross_entropy)        \
  K(add_low_rank)         \
  K(rotate)               \
  K(dequantise_nf4)       \
  K(dequantise_fp4)       \
  K(dequantise_int8_rows) \
  K(dequantise_q4_0)      \
  K(dequantise_q4_k)      \
  K(multiply_nf4)         \
  K(multiply_fp4)         \
  K(multiply_int8_rows)   \
  K(multiply_q4_0)        \
  K(multiply_q4_k)

namespace {

// Kernel is a kernel by its name, with what calls it.
struct Kernel {
  const char* name;
  void (*call)(void** arguments);
  bool (*fits)(const size_t* sizes, int count);
};

template <auto F>
struct Unpacked;

template <class... A, void (*F)(A...)>
struct Unpacked<F> {
  template <size_t... I>
  static void apply(void** arguments, std::index_sequence<I...>) {
    F(*static_cast<A*>(arguments[I])...);
  }
  static void call(void** arguments) { apply(arguments, std::index_sequence_for<A...>()); }
  static bool fits(const size_t* sizes, int count) {
    const size_t wanted[] = {sizeof(A)...};
    return count == static_cast<int>(sizeof...(A)) && std::memcmp(sizes, wanted, sizeof wanted) == 0;
  }
};

#define ENTRY(name) {#name, Unpacked<name>::call, Unpacked<name>::fits},

namespace f32 {
#define ELEMENT 0
#include "sources.h"
const Kernel kernels[] = {KERNELS(ENTRY)};
#undef ELEMENT
}  // namespace f32

namespace bf16 {
#define ELEMENT 1
#include "sources.h"
const Kernel kernels[] = {KERNELS(ENTRY)};
#undef ELEMENT
}  // namespace bf16

namespace f16 {
#define ELEMENT 2
#include "sources.h"
const Kernel kernels[] = {KERNELS(ENTRY)};
#undef ELEMENT
}  // namespace f16

constexpr int kSizes[] = {4, 2, 2};

class Queue : public gp::launch::Queue {
 public:
  Queue(int element, int order) : element_(element), order_(order) {}

  void run(const gp::launch::Call& c) override {
    const Kernel& kernel = find(c.kernel);
    if (!kernel.fits(c.sizes, c.count)) throw std::invalid_argument(std::string(c.kernel) + " takes other arguments");
    const emulator::Index grid{static_cast<u32>(c.blocks_x), static_cast<u32>(c.blocks_y), 1};
    for (u32 y = 0; y < grid.y; y++)
      for (u32 x = 0; x < grid.x; x++)
        emulator::run_block({x, y, 0}, grid, static_cast<u32>(c.threads), order_ == kBackwards,
                            [&] { kernel.call(c.arguments); });
  }

 private:
  const Kernel& find(const char* name) const {
    for (const Kernel& k : element_ == 0 ? f32::kernels : element_ == 1 ? bf16::kernels : f16::kernels)
      if (std::strcmp(k.name, name) == 0) return k;
    throw std::invalid_argument(std::string("no kernel is called ") + name);
  }

  int element_, order_;
};

template <class F>
char* with(int element, int order, const F& fn) {
  try {
    Queue queue(element, order);
    fn(queue, kSizes[element]);
    return nullptr;
  } catch (const std::exception& e) {
    return strdup(e.what());
  }
}

Heads heads(const void* from, void* to, int n, int64_t positions, int64_t size, bool heads_first) {
  const int64_t all = positions * n * size;
  const int64_t position = heads_first ? size : n * size, head = heads_first ? positions * size : size;
  // The result lies the other way around, so that each kind of distance is used.
  const int64_t to_position = heads_first ? n * size : size, to_head = heads_first ? size : positions * size;
  return {from, to, all, position, head, all, to_position, to_head, n};
}

QuantMatrix matrix(const emulated_matrix& m) {
  const auto floats = [](const void* p) { return static_cast<const float*>(p); };
  const auto bytes = [](const void* p) { return static_cast<const u8*>(p); };
  return {bytes(m.codes), floats(m.plain), bytes(m.nested), floats(m.map_), floats(m.outer),
          m.offset,       m.shift,         m.outer_shift,   m.rows,         m.cols};
}

}  // namespace

namespace launch = gp::launch;

int emulated(const char* kernel) {
  for (const Kernel& k : f32::kernels)
    if (std::strcmp(k.name, kernel) == 0) return 1;
  return 0;
}

char* emulate_rms_norm(int element, int order, const void* x, const void* w, void* y, float* rstd, int64_t rows,
                       int64_t d, double eps) {
  return with(element, order, [&](Queue& q, int size) { launch::rms_norm(q, size, x, w, y, rstd, rows, d, eps); });
}

char* emulate_rms_norm_backward(int element, int order, const void* g, const void* x, const void* w, const float* rstd,
                                void* dx, int64_t rows, int64_t d) {
  return with(element, order,
              [&](Queue& q, int size) { launch::rms_norm_backward(q, size, g, x, w, rstd, dx, rows, d); });
}

int64_t emulate_weight_parts(int64_t rows) { return launch::weight_parts(rows); }

char* emulate_rms_norm_weight(int element, int order, const void* g, const void* x, const float* rstd, float* parts,
                              int64_t rows, int64_t d) {
  return with(element, order, [&](Queue& q, int) { launch::rms_norm_weight(q, g, x, rstd, parts, rows, d); });
}

char* emulate_swiglu(int element, int order, const void* gate, const void* up, void* y, int64_t n) {
  return with(element, order, [&](Queue& q, int size) { launch::swiglu(q, size, gate, up, y, n); });
}

char* emulate_swiglu_backward(int element, int order, const void* g, const void* gate, const void* up, void* dgate,
                              void* dup, int64_t n) {
  return with(element, order,
              [&](Queue& q, int size) { launch::swiglu_backward(q, size, g, gate, up, dgate, dup, n); });
}

char* emulate_rotate(int element, int order, const void* x, void* y, int x_heads, const void* k, void* k_to,
                     int k_heads, const void* cos, const void* sin, int shared_angles, int64_t batch, int64_t positions,
                     int64_t half, int heads_first, int transposed) {
  const int64_t size = 2 * half, row = shared_angles ? 0 : positions * size;
  return with(element, order, [&](Queue& q, int) {
    launch::rotate(q, heads(x, y, x_heads, positions, size, heads_first),
                   heads(k, k_to, k_heads, positions, size, heads_first), {cos, sin, row, size, row, size}, batch,
                   positions, half, transposed);
  });
}

char* emulate_cross_entropy(int element, int order, void* logits, const int64_t* targets, float* losses, int64_t rows,
                            int64_t vocab, int gradient) {
  return with(element, order,
              [&](Queue& q, int) { launch::cross_entropy(q, logits, targets, losses, rows, vocab, gradient); });
}

char* emulate_add_low_rank(int element, int order, const void* y, const float* h, const float* up, void* out,
                           int64_t rows, int64_t cols, int64_t rank, double scale) {
  return with(element, order,
              [&](Queue& q, int size) { launch::add_low_rank(q, size, y, h, up, out, rows, cols, rank, scale); });
}

char* emulate_dequantise(int element, int order, const emulated_matrix* m, void* y) {
  return with(element, order,
              [&](Queue& q, int) { launch::dequantise(q, static_cast<Format>(m->format), matrix(*m), y); });
}

char* emulate_multiply(int element, int order, const emulated_matrix* m, const void* x, void* y, int64_t few) {
  return with(element, order,
              [&](Queue& q, int) { launch::multiply(q, static_cast<Format>(m->format), matrix(*m), x, y, few); });
}
