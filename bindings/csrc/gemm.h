// Matrix products for CPUs with AVX-512 or AVX2, single precision or, with AVX-512, bf16 with fp32 accumulation.
//
// libtorch hands these to MKL and oneDNN, which lose up to a third at transformer shapes on some CPUs and need
// their operands cast first. Here the cast is part of packing, and any mix of fp32 and bf16 goes in and out.
#pragma once
#include <cstdint>

namespace gp {

// The tile that the inner kernels compute: kTileM rows of the result by kTileN columns.
constexpr int kTileM = 12, kTileN = 32;

bool has_avx512();        // whether the path for AVX-512 is used
bool has_kernels();       // for this CPU, that compute in fp32
bool has_bf16_kernels();  // that compute in bf16

// Packer makes an operand's panels, of kTileN rows each, where its elements do not lie in memory: see pack_panels.
struct Packer {
  virtual void panels(int64_t i0, int64_t rows, int64_t k0, int64_t k, bool bf16, uint32_t* out) const = 0;
  virtual ~Packer() = default;
};

// A matrix seen as rows by depth: element (i, k) is p[i*row + k*depth], and one of the strides is 1.
struct Operand {
  const void* p;
  bool bf16;
  int64_t row, depth;
  const Packer* packer = nullptr;  // in place of p, for a product's b
};

// c(i, j) = Σk a(i, k)·b(j, k) + bias(j), with c[i*ldc + j].
struct Product {
  int64_t m, n, k;
  Operand a, b;
  void* c;
  bool c_bf16;
  int64_t ldc;
  const float* bias;  // or null
  bool bf16;          // multiply in bf16
};

// Results of more depth than this are added up in c, which must then be fp32.
constexpr int64_t kDepth = 768, kDepthBf16 = 3072;

void product(const Product& p);  // on all of libtorch's threads

// The pieces, for kernels that work on tiles themselves. A panel holds `width` rows of an operand in the order
// the kernels read them: 32-bit words [depth][width], a word being one fp32 or two bf16 neighbours in depth.
inline int64_t panel_words(int64_t k, bool bf16) { return bf16 ? (k + 1) / 2 : k; }  // depth in words
void pack(const Operand& o, int64_t i0, int64_t rows, int64_t k0, int64_t k, bool bf16, int width, uint32_t* out);

// pack_panels packs any number of rows; the panel of row i begins at word i*panel_words(k).
void pack_panels(const Operand& o, int64_t i0, int64_t rows, int64_t k0, int64_t k, bool bf16, int width,
                 uint32_t* out);

struct Tile {
  void* c;
  int64_t ldc;
  int cols;           // 1..kTileN
  bool bf16, add;     // element type of c; add to what is there (fp32 only)
  const float* bias;  // or null
};

// One tile of 1..kTileM rows from k-major words a[k*lda + i] and b[k*ldb + j], kw words deep.
void tile(bool bf16, int rows, int64_t kw, const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb,
          const Tile& t);

// Memory of the calling thread that is kept between calls, 64-byte aligned. One block per slot.
void* scratch(int slot, int64_t bytes);

}  // namespace gp
