// Quantised matrices as operands of a product: weights are made while they are packed, and never lie in memory whole.
#include "gemm.h"
#include "quant_decode.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,f16c")

namespace gp {
namespace {

// pack_rows packs a panel of n rows from i0 on, k of their weights from k0 on; both are multiples of 32.
template <QuantKind K, bool Bf16>
void pack_rows(const Codes& w, int64_t i0, int64_t n, int64_t k0, int64_t k, uint32_t* out) {
  for (int64_t g = 0; g < kTileN; g += 16)
    for (int64_t d = 0; d < k; d += 32) {
      __m512i r[2][16];
      for (int64_t i = 0; i < 16; i++) {
        __m512 v[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        if (g + i < n) decode<K>(w, i0 + g + i, k0 + d, v);
        if constexpr (Bf16) r[0][i] = (__m512i)_mm512_cvtne2ps_pbh(v[1], v[0]);
        else {
          r[0][i] = (__m512i)v[0];
          r[1][i] = (__m512i)v[1];
        }
      }
      uint32_t* to = out + (Bf16 ? d / 2 : d) * kTileN + g;
      for (int half = 0; half < (Bf16 ? 1 : 2); half++) {
        transpose(r[half]);
        for (int64_t i = 0; i < 16; i++) _mm512_storeu_si512(to + (half * 16 + i) * kTileN, r[half][i]);
      }
    }
}

// pack_columns packs the panel of the columns from i0 on, a multiple of 32, over k rows from k0 on.
template <QuantKind K, bool Bf16>
void pack_columns(const Codes& w, int64_t i0, int64_t k0, int64_t k, uint32_t* out) {
  if constexpr (!Bf16) {
    for (int64_t d = 0; d < k; d++) {
      __m512 v[2];
      decode<K>(w, k0 + d, i0, v);
      _mm512_storeu_ps(reinterpret_cast<float*>(out + d * kTileN), v[0]);
      _mm512_storeu_ps(reinterpret_cast<float*>(out + d * kTileN + 16), v[1]);
    }
    return;
  }
  alignas(64) static constexpr uint16_t pairs[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                     8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i lo = _mm512_load_si512(pairs), hi = _mm512_add_epi16(lo, _mm512_set1_epi16(16));
  for (int64_t d = 0; d < k; d += 2) {
    __m512 v[2];
    decode<K>(w, k0 + d, i0, v);
    const __m512i a = (__m512i)_mm512_cvtne2ps_pbh(v[1], v[0]);
    __m512i b = _mm512_setzero_si512();
    if (d + 1 < k) {
      decode<K>(w, k0 + d + 1, i0, v);
      b = (__m512i)_mm512_cvtne2ps_pbh(v[1], v[0]);
    }
    _mm512_storeu_si512(out + d / 2 * kTileN, _mm512_permutex2var_epi16(a, lo, b));
    _mm512_storeu_si512(out + d / 2 * kTileN + 16, _mm512_permutex2var_epi16(a, hi, b));
  }
}

template <QuantKind K>
struct Rows : Packer {
  explicit Rows(const Codes& codes) : w(codes) {}
  void panels(int64_t i0, int64_t rows, int64_t k0, int64_t k, bool bf16, uint32_t* out) const override {
    for (int64_t i = 0; i < rows; i += kTileN) {
      const int64_t n = std::min<int64_t>(kTileN, rows - i);
      if (bf16) pack_rows<K, true>(w, i0 + i, n, k0, k, out + i * panel_words(k, true));
      else pack_rows<K, false>(w, i0 + i, n, k0, k, out + i * panel_words(k, false));
    }
  }
  Codes w;
};

template <QuantKind K>
struct Columns : Packer {
  explicit Columns(const Codes& codes) : w(codes) {}
  void panels(int64_t i0, int64_t columns, int64_t k0, int64_t k, bool bf16, uint32_t* out) const override {
    constexpr int64_t stretch = 64;  // of rows, whose pages are touched once for all panels
    for (int64_t at = 0; at < k; at += stretch)
      for (int64_t i = 0; i < columns; i += kTileN) {
        uint32_t* to = out + i * panel_words(k, bf16) + panel_words(at, bf16) * kTileN;
        const int64_t depth = std::min(stretch, k - at);
        if (bf16) pack_columns<K, true>(w, i0 + i, k0 + at, depth, to);
        else pack_columns<K, false>(w, i0 + i, k0 + at, depth, to);
      }
  }
  Codes w;
};

inline void put(float* out, const __m512 v[2]) {
  _mm512_storeu_ps(out, v[0]);
  _mm512_storeu_ps(out + 16, v[1]);
}
inline void put(c10::BFloat16* out, const __m512 v[2]) {
  for (int i = 0; i < 2; i++) store16(out + 16 * i, 0xffff, v[i]);
}
inline void put(c10::Half* out, const __m512 v[2]) {
  for (int i = 0; i < 2; i++)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16 * i), _mm512_cvtps_ph(v[i], kNearest));
}

template <QuantKind K, class T>
void decode_into(const Codes& w, const int64_t* ids, int64_t n, T* out) {
  ranges(n, std::max<int64_t>(1, 2 * kLeastElements / w.cols), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      for (int64_t k = 0; k < w.cols; k += 32) {
        __m512 v[2];
        decode<K>(w, ids ? ids[i] : i, k, v);
        put(out + i * w.cols + k, v);
      }
  });
}

}  // namespace

std::unique_ptr<Packer> packer_of_rows(const Codes& w) {
  return for_kind(w.kind, [&](auto k) -> std::unique_ptr<Packer> { return std::make_unique<Rows<k()>>(w); });
}

std::unique_ptr<Packer> packer_of_columns(const Codes& w) {
  return for_kind(w.kind, [&](auto k) -> std::unique_ptr<Packer> { return std::make_unique<Columns<k()>>(w); });
}

void decode_rows(const Codes& w, const int64_t* ids, int64_t n, at::ScalarType d, void* out) {
  for_kind(w.kind, [&](auto k) {
    if (d == at::kFloat) decode_into<k()>(w, ids, n, static_cast<float*>(out));
    else if (d == at::kHalf) decode_into<k()>(w, ids, n, static_cast<c10::Half*>(out));
    else decode_into<k()>(w, ids, n, static_cast<c10::BFloat16*>(out));
  });
}

}  // namespace gp
