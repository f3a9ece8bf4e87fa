// Quantised matrices as operands of a product: weights are made while they are packed, and never lie in memory whole.
#pragma once
#include "gemm.h"
#include "kernel_table.h"
#include "parallel.h"
#include "vec_quant_decode.h"

namespace gp::GP_PATH {
namespace {

// sixteen_rows gives 32 neighbours of each of 16 rows, of which n exist.
template <QuantKind K>
inline void sixteen_rows(const Codes& w, int64_t i0, int64_t n, int64_t k0, F16 v[16][2]) {
  for (int64_t i = 0; i < 16; i++) {
    v[i][0] = v[i][1] = all(0.f);
    if (i < n) decode<K>(w, i0 + i, k0, v[i]);
  }
}

// pack_rows packs a panel of n rows from i0 on, k of their weights from k0 on; both are multiples of 32.
template <QuantKind K>
void pack_rows(const Codes& w, int64_t i0, int64_t n, int64_t k0, int64_t k, uint32_t* out) {
  for (int64_t g = 0; g < kTileN; g += 16)
    for (int64_t d = 0; d < k; d += 32) {
      F16 v[16][2];
      sixteen_rows<K>(w, i0 + g, n - g, k0 + d, v);
      for (int half = 0; half < 2; half++) {
        U16 r[16];
        for (int i = 0; i < 16; i++) r[i] = as_words(v[i][half]);
        transpose(r);
        for (int64_t i = 0; i < 16; i++) store_words(out + (d + half * 16 + i) * kTileN + g, r[i]);
      }
    }
}

// pack_columns packs the panel of the columns from i0 on, a multiple of 32, over k rows from k0 on.
template <QuantKind K>
void pack_columns(const Codes& w, int64_t i0, int64_t k0, int64_t k, uint32_t* out) {
  for (int64_t d = 0; d < k; d++) {
    F16 v[2];
    decode<K>(w, k0 + d, i0, v);
    for (int half = 0; half < 2; half++) store_words(out + d * kTileN + half * 16, as_words(v[half]));
  }
}

#ifdef GP_BF16
// halves is 32 neighbours of a row in bf16. Those of a table are put in order when they are half as large.
template <QuantKind K>
GP_INLINE U16 halves(const Codes& w, int64_t row, int64_t k) {
  F16 v[2];
  if constexpr (has_table(K)) {
    alignas(64) static constexpr uint16_t in_turn[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                         8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    table_values<K>(w, row, k, v);
    return _mm512_permutexvar_epi16(_mm512_load_si512(in_turn), (__m512i)_mm512_cvtne2ps_pbh(v[1], v[0]));
  } else {
    decode<K>(w, row, k, v);
    return (__m512i)_mm512_cvtne2ps_pbh(v[1], v[0]);
  }
}

template <QuantKind K>
void pack_rows_bf16(const Codes& w, int64_t i0, int64_t n, int64_t k0, int64_t k, uint32_t* out) {
  for (int64_t g = 0; g < kTileN; g += 16)
    for (int64_t d = 0; d < k; d += 32) {
      U16 r[16];
      if (n - g >= 16) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) r[i] = halves<K>(w, i0 + g + i, k0 + d);
      } else {
        for (int i = 0; i < 16; i++) r[i] = i < n - g ? halves<K>(w, i0 + g + i, k0 + d) : words(0);
      }
      transpose(r);
      for (int64_t i = 0; i < 16; i++) store_words(out + (d / 2 + i) * kTileN + g, r[i]);
    }
}

template <QuantKind K>
void pack_columns_bf16(const Codes& w, int64_t i0, int64_t k0, int64_t k, uint32_t* out) {
  alignas(64) static constexpr uint16_t pairs[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                     8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i lo = _mm512_load_si512(pairs), hi = _mm512_add_epi16(lo, _mm512_set1_epi16(16));
  for (int64_t d = 0; d < k; d += 2) {
    const U16 a = halves<K>(w, k0 + d, i0), b = d + 1 < k ? halves<K>(w, k0 + d + 1, i0) : words(0);
    store_words(out + d / 2 * kTileN, _mm512_permutex2var_epi16(a, lo, b));
    store_words(out + d / 2 * kTileN + 16, _mm512_permutex2var_epi16(a, hi, b));
  }
}
#else  // without products in bf16 nobody asks for such panels
template <QuantKind K>
void pack_rows_bf16(const Codes&, int64_t, int64_t, int64_t, int64_t, uint32_t*) {}
template <QuantKind K>
void pack_columns_bf16(const Codes&, int64_t, int64_t, int64_t, uint32_t*) {}
#endif

template <QuantKind K>
struct PackedRows : Packer {
  explicit PackedRows(const Codes& codes) : w(codes) {}
  void panels(int64_t i0, int64_t rows, int64_t k0, int64_t k, bool bf16, uint32_t* out) const override {
    for (int64_t i = 0; i < rows; i += kTileN) {
      const int64_t n = std::min<int64_t>(kTileN, rows - i);
      if (bf16) pack_rows_bf16<K>(w, i0 + i, n, k0, k, out + i * panel_words(k, true));
      else pack_rows<K>(w, i0 + i, n, k0, k, out + i * panel_words(k, false));
    }
  }
  Codes w;
};

template <QuantKind K>
struct PackedColumns : Packer {
  explicit PackedColumns(const Codes& codes) : w(codes) {}
  void panels(int64_t i0, int64_t columns, int64_t k0, int64_t k, bool bf16, uint32_t* out) const override {
    constexpr int64_t stretch = 64;  // of rows, whose pages are touched once for all panels
    for (int64_t at = 0; at < k; at += stretch)
      for (int64_t i = 0; i < columns; i += kTileN) {
        uint32_t* to = out + i * panel_words(k, bf16) + panel_words(at, bf16) * kTileN;
        const int64_t depth = std::min(stretch, k - at);
        if (bf16) pack_columns_bf16<K>(w, i0 + i, k0 + at, depth, to);
        else pack_columns<K>(w, i0 + i, k0 + at, depth, to);
      }
  }
  Codes w;
};

inline void put(float* out, F16 v) { store16(out, v); }
inline void put(c10::BFloat16* out, F16 v) { store16(out, first16(16), v); }
inline void put(c10::Half* out, F16 v) { store16(out, v); }

template <QuantKind K, class T>
void decode_into(const Codes& w, const int64_t* ids, int64_t n, T* out) {
  ranges(n, std::max<int64_t>(1, 2 * kLeastElements / w.cols), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      for (int64_t k = 0; k < w.cols; k += 32) {
        F16 v[2];
        decode<K>(w, ids ? ids[i] : i, k, v);
        for (int half = 0; half < 2; half++) put(out + i * w.cols + k + half * 16, v[half]);
      }
  });
}

}  // namespace

std::unique_ptr<Packer> packer_of_rows(const Codes& w) {
  return for_kind(w.kind, [&](auto k) -> std::unique_ptr<Packer> { return std::make_unique<PackedRows<k()>>(w); });
}

std::unique_ptr<Packer> packer_of_columns(const Codes& w) {
  return for_kind(w.kind, [&](auto k) -> std::unique_ptr<Packer> { return std::make_unique<PackedColumns<k()>>(w); });
}

void decode_rows(const Codes& w, const int64_t* ids, int64_t n, at::ScalarType d, void* out) {
  for_kind(w.kind, [&](auto k) {
    if (d == at::kFloat) decode_into<k()>(w, ids, n, static_cast<float*>(out));
    else if (d == at::kHalf) decode_into<k()>(w, ids, n, static_cast<c10::Half*>(out));
    else decode_into<k()>(w, ids, n, static_cast<c10::BFloat16*>(out));
  });
}

}  // namespace gp::GP_PATH
