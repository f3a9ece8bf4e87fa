// Matrices in 4 to 8 bits a weight: what they are made of, and what is computed with them.
#pragma once
#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <type_traits>

#include "gemm.h"

namespace gp {

enum QuantKind { kNF4, kFP4, kInt8Rows, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ4_K, kQ5_K, kQ6_K, kInt4 };

constexpr bool has_table(QuantKind k) { return k == kNF4 || k == kFP4; }
constexpr bool is_gguf(QuantKind k) { return k >= kQ4_0 && k <= kQ6_K; }

// GGUF's blocks: how many weights, and in how many bytes.
constexpr int64_t block_weights(QuantKind k) { return k >= kQ4_K && k <= kQ6_K ? 256 : 32; }
constexpr int64_t block_bytes(QuantKind k) {
  constexpr int64_t bytes[] = {0, 0, 0, 18, 20, 22, 24, 34, 144, 176, 210, 0};
  return bytes[k];
}

// for_kind calls f with a kind known when compiling.
template <class F>
auto for_kind(QuantKind kind, const F& f) {
  switch (kind) {
#define GP_KIND(k) \
  case k: return f(std::integral_constant<QuantKind, k>{})
    GP_KIND(kNF4);
    GP_KIND(kFP4);
    GP_KIND(kInt8Rows);
    GP_KIND(kQ4_0);
    GP_KIND(kQ4_1);
    GP_KIND(kQ5_0);
    GP_KIND(kQ5_1);
    GP_KIND(kQ8_0);
    GP_KIND(kQ4_K);
    GP_KIND(kQ5_K);
    GP_KIND(kQ6_K);
    default: GP_KIND(kInt4);
#undef GP_KIND
  }
}

extern const float kTables[2][16];                  // the values of NF4's and FP4's codes
constexpr float kInt8Unit = 7.874015718698502e-3f;  // bitsandbytes' 1/127

// Codes is a matrix on the CPU as it lies in memory.
struct Codes {
  QuantKind kind;
  int64_t rows, cols;
  int64_t stride;  // bytes of a row, where rows are whole bytes
  int64_t block;
  int shift, nested_shift;  // of the index of a weight, and of a scale: NF4's and FP4's blocks are powers of two
  const uint8_t* q;
  const float *scales, *zeros;
  const uint8_t* nested;  // in place of scales
  const float *nested_scales, *nested_map;
  float offset;

  // Whether 32 neighbours of a row, from a multiple of 32 on, share their scales: what all fast paths ask for.
  bool aligned() const { return cols % 32 == 0 && (!(has_table(kind) || kind == kInt4) || block % 32 == 0); }
  const float* table() const { return kTables[kind]; }
};

// Quantised is a matrix as tensors; see quantised.h.
struct Quantised {
  QuantKind kind;
  int64_t rows, cols, block, nested_block;
  double offset;
  at::Tensor codes, scales, zeros, nested_scales, nested_map;

  Quantised(void** parts, const int64_t* facts, double offset);
  Quantised() = default;
  Codes on_cpu() const;  // while the tensors live
};

enum class Way { kComposed, kPortable, kFastest, kCompiled };

// dequantise gives all weights, quant_rows those of the rows that ids (int64, on the CPU for the ways of the CPU) name.
at::Tensor dequantise(const Quantised& q, at::ScalarType d, Way way);
at::Tensor quant_rows(const Quantised& q, const at::Tensor& ids, at::ScalarType d, Way way);

// The same of libtorch's operations, on any device.
at::Tensor dequantise_composed(const Quantised& q, at::ScalarType d);
at::Tensor quant_scales(const Quantised& q);  // of NF4 and FP4, in fp32
at::Tensor quant_rows_composed(const Quantised& q, const at::Tensor& ids, at::ScalarType d);

// By compiled kernels on a GPU, where they serve: none otherwise. multiply_compiled is x·wᵀ for few rows, without
// autograd.
at::Tensor dequantise_compiled(const Quantised& q, at::ScalarType d);
at::Tensor multiply_compiled(const at::Tensor& x, const Quantised& q);

// decode_row gives one row on any CPU.
void decode_row(const Codes& w, int64_t row, float* out);

// decode_rows is the rows that ids name, or with ids null the first n, where there are kernels; w is aligned.
void decode_rows(const Codes& w, const int64_t* ids, int64_t n, at::ScalarType d, void* out);

// Packs a matrix, or its transpose, for a product's b; w is aligned.
std::unique_ptr<Packer> packer_of_rows(const Codes& w);
std::unique_ptr<Packer> packer_of_columns(const Codes& w);

// x·wᵀ, and g·w, by our own product, for x and g of rows that are contiguous.
at::Tensor by_quant_rows(const at::Tensor& x, const Quantised& q, const at::Tensor& bias, bool bf16, at::ScalarType d);
at::Tensor by_quant_columns(const at::Tensor& g, const Quantised& q, bool bf16, at::ScalarType d);

// quant_dots is x·wᵀ for one to four rows of x by integers: each 32 or 64 of x become int16 with a scale, which errs by
// 4e-5 of a result's size.
bool quant_dots_serve(const Codes& w);
void quant_dots(const Codes& w, const at::Tensor& x, const float* bias, float* out);

}  // namespace gp
