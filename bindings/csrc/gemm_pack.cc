// Packing: operands of a product rearranged into the panels that the inner kernels read, cast on the way.
#include "kernel_table.h"
#include "vec_avx512.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,f16c")

namespace gp::avx512 {
namespace {

// along loads 16 words of one row, from `left` elements that are contiguous in depth.
template <bool SrcBf16, bool DstBf16>
inline __m512i along(const char* p, int64_t left) {
  if constexpr (DstBf16) {
    if constexpr (SrcBf16) return _mm512_maskz_loadu_epi16(first32(left), p);
    __m512 lo = _mm512_maskz_loadu_ps(first16(left), p), hi = _mm512_maskz_loadu_ps(first16(left - 16), p + 64);
    return (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
  } else {
    if constexpr (SrcBf16)
      return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first16(left), p)), 16);
    return _mm512_maskz_loadu_epi32(first16(left), p);
  }
}

// across loads 16 words at one depth (two for bf16: p and next), from rows that are contiguous.
template <bool SrcBf16, bool DstBf16>
inline __m512i across(const char* p, const char* next, __mmask16 m) {
  if constexpr (DstBf16) {
    __m256i lo, hi = _mm256_setzero_si256();
    if constexpr (SrcBf16) {
      lo = _mm256_maskz_loadu_epi16(m, p);
      if (next) hi = _mm256_maskz_loadu_epi16(m, next);
    } else {
      lo = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(m, p));
      if (next) hi = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(m, next));
    }
    return _mm512_or_si512(_mm512_cvtepu16_epi32(lo), _mm512_slli_epi32(_mm512_cvtepu16_epi32(hi), 16));
  } else {
    if constexpr (SrcBf16) return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p)), 16);
    return _mm512_maskz_loadu_epi32(m, p);
  }
}

// pack_along packs 16 columns of a panel, of which n exist, from rows that are contiguous in depth.
template <bool SrcBf16, bool DstBf16>
void pack_along(const char* base, int64_t row_bytes, int64_t n, int64_t k, int64_t kw, int width, __mmask16 store,
                uint32_t* out) {
  constexpr int64_t size = SrcBf16 ? 2 : 4, per_word = DstBf16 ? 2 : 1;
  for (int64_t w = 0; w < kw; w += 16) {
    __m512i r[16];
    const char* p = base + w * per_word * size;
    const int64_t left = k - w * per_word;
    for (int i = 0; i < 16; i++)
      r[i] = i < n ? along<SrcBf16, DstBf16>(p + i * row_bytes, left) : _mm512_setzero_si512();
    transpose(r);
    const int64_t end = std::min<int64_t>(16, kw - w);
    uint32_t* dst = out + w * width;
    for (int64_t i = 0; i < end; i++) _mm512_mask_storeu_epi32(dst + i * width, store, r[i]);
  }
}

// pack_across is pack_along where the elements of one depth are contiguous.
template <bool SrcBf16, bool DstBf16>
void pack_across(const char* base, int64_t depth_bytes, int64_t n, int64_t k, int64_t kw, int width, __mmask16 store,
                 uint32_t* out) {
  constexpr int64_t per_word = DstBf16 ? 2 : 1;
  const __mmask16 load = first16(n);
  for (int64_t w = 0; w < kw; w++) {
    const char* p = base + w * per_word * depth_bytes;
    const char* next = w * per_word + 1 < k ? p + depth_bytes : nullptr;
    _mm512_mask_storeu_epi32(out + w * width, store, across<SrcBf16, DstBf16>(p, next, load));
  }
}

template <bool SrcBf16, bool DstBf16>
void pack_typed(const Operand& o, int64_t i0, int64_t rows, int64_t k0, int64_t k, int width, uint32_t* out) {
  constexpr int64_t size = SrcBf16 ? 2 : 4, per_word = DstBf16 ? 2 : 1;
  const char* base = static_cast<const char*>(o.p) + (i0 * o.row + k0 * o.depth) * size;
  const int64_t kw = (k + per_word - 1) / per_word;
  for (int g = 0; g < width; g += 16) {
    const char* from = base + g * o.row * size;
    const int64_t n = std::min<int64_t>(16, rows - g);
    const __mmask16 store = first16(width - g);
    if (o.depth == 1) pack_along<SrcBf16, DstBf16>(from, o.row * size, n, k, kw, width, store, out + g);
    else pack_across<SrcBf16, DstBf16>(from, o.depth * size, n, k, kw, width, store, out + g);
  }
}

}  // namespace

void pack_kernel(const Operand& o, int64_t i0, int64_t rows, int64_t k0, int64_t k, bool bf16, int width,
                 uint32_t* out) {
  if (o.bf16)
    bf16 ? pack_typed<true, true>(o, i0, rows, k0, k, width, out)
         : pack_typed<true, false>(o, i0, rows, k0, k, width, out);
  else
    bf16 ? pack_typed<false, true>(o, i0, rows, k0, k, width, out)
         : pack_typed<false, false>(o, i0, rows, k0, k, width, out);
}

}  // namespace gp::avx512
