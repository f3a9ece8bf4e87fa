// How a product is cut into blocks that fit the caches and shared among the threads.
#include "gemm.h"

#include <cstdlib>
#include <new>

#include "kernel_table.h"
#include "parallel.h"

namespace gp {

void* scratch(int slot, int64_t bytes) {
  struct Block {
    void* p = nullptr;
    int64_t size = 0;
    ~Block() { std::free(p); }
  };
  static thread_local Block blocks[4];
  Block& b = blocks[slot];
  if (b.size < bytes) {
    std::free(b.p);
    b.p = nullptr;
    b.size = 0;
    int64_t size = (bytes + 4095) / 4096 * 4096;
    void* p = std::aligned_alloc(64, static_cast<size_t>(size));
    if (!p) throw std::bad_alloc();
    b.p = p;
    b.size = size;
  }
  return b.p;
}

void tile(bool bf16, int rows, int64_t kw, const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb,
          const Tile& t) {
  kernels().tile(bf16, rows, kw, a, lda, b, ldb, t);
}

void pack(const Operand& o, int64_t i0, int64_t rows, int64_t k0, int64_t k, bool bf16, int width, uint32_t* out) {
  kernels().pack(o, i0, rows, k0, k, bf16, width, out);
}

void pack_panels(const Operand& o, int64_t i0, int64_t rows, int64_t k0, int64_t k, bool bf16, int width,
                 uint32_t* out) {
  if (o.packer) return o.packer->panels(i0, rows, k0, k, bf16, out);
  const int64_t kw = panel_words(k, bf16);
  // Rows that lie side by side in memory are read a stretch of depth at a time: each page is touched once.
  const int64_t stretch = o.depth == 1 ? k : 64;
  for (int64_t at = 0; at < k; at += stretch)
    for (int64_t i = 0; i < rows; i += width)
      pack(o, i0 + i, std::min<int64_t>(width, rows - i), k0 + at, std::min(stretch, k - at), bf16, width,
           out + i * kw + panel_words(at, bf16) * width);
}

namespace {

// Rows of a that one job takes: their panels, and one panel of b, stay in a thread's second-level cache.
constexpr int64_t kRows = 48;

// Part is a stretch of a product's depth and of its columns, whose panels of b are packed at once.
struct Part {
  int64_t k0, k, kw;  // first of the depth, how much of it, and that in words
  int64_t n0, n;      // first column and how many
  int64_t panels() const { return (n + kTileN - 1) / kTileN; }
};

void pack_columns(const Product& p, const Part& part, uint32_t* b) {
  constexpr int64_t together = 8;
  each((part.panels() + together - 1) / together, [&](int64_t group) {
    const int64_t first = group * together * kTileN, n = std::min(together * kTileN, part.n - first);
    pack_panels(p.b, part.n0 + first, n, part.k0, part.k, p.bf16, kTileN, b + first * part.kw);
  });
}

// multiply_rows computes m rows of the result from row m0 on, whose panels are a, for the panels j0 to j1 of b.
void multiply_rows(const Product& p, const Part& part, const uint32_t* a, int64_t m0, int64_t m, const uint32_t* b,
                   int64_t j0, int64_t j1) {
  for (int64_t j = j0; j < j1; j++) {
    const int64_t at = part.n0 + j * kTileN;
    Tile t{};
    t.ldc = p.ldc;
    t.cols = static_cast<int>(std::min<int64_t>(kTileN, p.n - at));
    t.bf16 = p.c_bf16;
    t.add = part.k0 > 0;
    t.bias = part.k0 == 0 && p.bias ? p.bias + at : nullptr;
    for (int64_t i = 0; i < m; i += kTileM) {
      t.c = static_cast<char*>(p.c) + ((m0 + i) * p.ldc + at) * (p.c_bf16 ? 2 : 4);
      const int rows = static_cast<int>(std::min<int64_t>(kTileM, m - i));
      tile(p.bf16, rows, part.kw, a + i * part.kw, kTileM, b + j * kTileN * part.kw, kTileN, t);
    }
  }
}

void multiply_part(const Product& p, const Part& part, int64_t most_words) {
  const int64_t panels = part.panels(), blocks = (p.m + kRows - 1) / kRows;
  auto* b = static_cast<uint32_t*>(scratch(0, panels * kTileN * most_words * 4));
  pack_columns(p, part, b);
  // Few rows are shared among the threads by columns.
  const int64_t wanted = (4 * at::get_num_threads() + blocks - 1) / blocks;
  const int64_t span = (panels + std::min(wanted, panels) - 1) / std::min(wanted, panels);
  const int64_t spans = (panels + span - 1) / span;
  each(blocks * spans, [&](int64_t job) {
    const int64_t m0 = job / spans * kRows, m = std::min(kRows, p.m - m0), j0 = job % spans * span;
    auto* a = static_cast<uint32_t*>(scratch(1, kRows * most_words * 4));
    pack_panels(p.a, m0, m, part.k0, part.k, p.bf16, kTileM, a);
    multiply_rows(p, part, a, m0, m, b, j0, std::min(j0 + span, panels));
  });
}

}  // namespace

void product(const Product& p) {
  constexpr int64_t most_panel_words = 2 << 20;
  const int64_t depth = p.bf16 ? kDepthBf16 : kDepth;
  const int64_t most = panel_words(std::min(depth, p.k), p.bf16);
  const int64_t columns = std::max<int64_t>(kTileN, most_panel_words / most / kTileN * kTileN);
  for (int64_t k0 = 0; k0 < p.k; k0 += depth) {
    const int64_t k = std::min(depth, p.k - k0);
    for (int64_t n0 = 0; n0 < p.n; n0 += columns)
      multiply_part(p, {k0, k, panel_words(k, p.bf16), n0, std::min(columns, p.n - n0)}, most);
  }
}

}  // namespace gp
