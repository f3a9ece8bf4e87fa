#include "gemm.h"

#include <cstdlib>
#include <new>

#include "vec.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")

namespace gp {

bool has_avx512() {
  static const bool yes = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return yes;
}

bool has_avx512_bf16() {
  static const bool yes = has_avx512() && __builtin_cpu_supports("avx512bf16");
  return yes;
}

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

namespace {

// transpose turns 16 rows of 16 words into 16 columns.
inline void transpose(__m512i r[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88);
    t[4 + i] = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
    t[8 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
    t[12 + i] = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
    r[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
    r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
    r[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
  }
}

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

template <bool SrcBf16, bool DstBf16>
void pack_typed(const Operand& o, int64_t i0, int64_t rows, int64_t k0, int64_t k, int width, uint32_t* out) {
  constexpr int64_t size = SrcBf16 ? 2 : 4, per_word = DstBf16 ? 2 : 1;
  const char* base = static_cast<const char*>(o.p) + (i0 * o.row + k0 * o.depth) * size;
  const int64_t kw = (k + per_word - 1) / per_word;
  for (int g = 0; g < width; g += 16) {
    const int64_t n = std::min<int64_t>(16, rows - g);
    const __mmask16 store = first16(width - g);
    if (o.depth == 1) {
      for (int64_t w = 0; w < kw; w += 16) {
        __m512i r[16];
        const char* p = base + g * o.row * size + w * per_word * size;
        const int64_t left = k - w * per_word;
        for (int i = 0; i < 16; i++)
          r[i] = i < n ? along<SrcBf16, DstBf16>(p + i * o.row * size, left) : _mm512_setzero_si512();
        transpose(r);
        const int64_t end = std::min<int64_t>(16, kw - w);
        uint32_t* dst = out + w * width + g;
        for (int64_t i = 0; i < end; i++) _mm512_mask_storeu_epi32(dst + i * width, store, r[i]);
      }
    } else {
      const __mmask16 load = first16(n);
      for (int64_t w = 0; w < kw; w++) {
        const char* p = base + g * size + w * per_word * o.depth * size;
        const char* next = w * per_word + 1 < k ? p + o.depth * size : nullptr;
        _mm512_mask_storeu_epi32(out + w * width + g, store, across<SrcBf16, DstBf16>(p, next, load));
      }
    }
  }
}

template <bool Bf16>
inline __m512 multiply_add(__m512 acc, __m512i a, __m512i b) {
  if constexpr (Bf16) return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
  return _mm512_fmadd_ps((__m512)a, (__m512)b, acc);
}

inline void put(const Tile& t, int64_t i, int64_t j, __mmask16 m, __m512 v) {
  if (t.bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(m, t.bias + j));
  if (t.bf16) {
    _mm256_mask_storeu_epi16(static_cast<uint16_t*>(t.c) + i * t.ldc + j, m, (__m256i)_mm512_cvtneps_pbh(v));
    return;
  }
  float* c = static_cast<float*>(t.c) + i * t.ldc + j;
  if (t.add) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(m, c));
  _mm512_mask_storeu_ps(c, m, v);
}

template <bool Bf16, int M>
void tile_of(int64_t kw, const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb, const Tile& t) {
  __m512 acc[M][2];
#pragma GCC unroll 16
  for (int i = 0; i < M; i++) acc[i][0] = acc[i][1] = _mm512_setzero_ps();
  for (int64_t k = 0; k < kw; k++) {
    const __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 16);
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) {
      const __m512i ai = _mm512_set1_epi32(static_cast<int>(a[i]));
      acc[i][0] = multiply_add<Bf16>(acc[i][0], ai, b0);
      acc[i][1] = multiply_add<Bf16>(acc[i][1], ai, b1);
    }
    a += lda;
    b += ldb;
  }
  const __mmask16 m0 = first16(t.cols), m1 = first16(t.cols - 16);
#pragma GCC unroll 16
  for (int i = 0; i < M; i++) {
    put(t, i, 0, m0, acc[i][0]);
    if (m1) put(t, i, 16, m1, acc[i][1]);
  }
}

using TileKernel = void (*)(int64_t, const uint32_t*, int64_t, const uint32_t*, int64_t, const Tile&);

template <bool Bf16>
constexpr TileKernel kKernels[kTileM + 1] = {nullptr,           tile_of<Bf16, 1>,  tile_of<Bf16, 2>, tile_of<Bf16, 3>,
                                             tile_of<Bf16, 4>,  tile_of<Bf16, 5>,  tile_of<Bf16, 6>, tile_of<Bf16, 7>,
                                             tile_of<Bf16, 8>,  tile_of<Bf16, 9>,  tile_of<Bf16, 10>, tile_of<Bf16, 11>,
                                             tile_of<Bf16, 12>};

}  // namespace

int64_t panel_words(int64_t k, bool bf16) { return bf16 ? (k + 1) / 2 : k; }

void pack(const Operand& o, int64_t i0, int64_t rows, int64_t k0, int64_t k, bool bf16, int width, uint32_t* out) {
  if (o.bf16)
    bf16 ? pack_typed<true, true>(o, i0, rows, k0, k, width, out) : pack_typed<true, false>(o, i0, rows, k0, k, width, out);
  else
    bf16 ? pack_typed<false, true>(o, i0, rows, k0, k, width, out) : pack_typed<false, false>(o, i0, rows, k0, k, width, out);
}

void pack_panels(const Operand& o, int64_t i0, int64_t rows, int64_t k0, int64_t k, bool bf16, int width, uint32_t* out) {
  const int64_t kw = panel_words(k, bf16);
  // Rows that lie side by side in memory are read a stretch of depth at a time: each page is touched once.
  const int64_t stretch = o.depth == 1 ? k : 64;
  for (int64_t at = 0; at < k; at += stretch)
    for (int64_t i = 0; i < rows; i += width)
      pack(o, i0 + i, std::min<int64_t>(width, rows - i), k0 + at, std::min(stretch, k - at), bf16, width,
           out + i * kw + panel_words(at, bf16) * width);
}

void tile(bool bf16, int rows, int64_t kw, const uint32_t* a, int64_t lda, const uint32_t* b, int64_t ldb, const Tile& t) {
  (bf16 ? kKernels<true> : kKernels<false>)[rows](kw, a, lda, b, ldb, t);
}

void product(const Product& p) {
  // Blocks that keep a thread's panels of a, and one panel of b, in its second-level cache.
  constexpr int64_t m_block = 48, panel_words_all = 2 << 20;
  const int64_t depth = p.bf16 ? kDepthBf16 : kDepth;
  const int64_t most = panel_words(std::min(depth, p.k), p.bf16);
  const int64_t n_block = std::max<int64_t>(kTileN, panel_words_all / most / kTileN * kTileN);
  const int64_t m_blocks = (p.m + m_block - 1) / m_block;
  for (int64_t k0 = 0; k0 < p.k; k0 += depth) {
    const int64_t k = std::min(depth, p.k - k0), kw = panel_words(k, p.bf16);
    for (int64_t n0 = 0; n0 < p.n; n0 += n_block) {
      const int64_t panels = (std::min(n_block, p.n - n0) + kTileN - 1) / kTileN;
      auto* b = static_cast<uint32_t*>(scratch(0, panels * kTileN * most * 4));
      constexpr int64_t together = 8;
      each((panels + together - 1) / together, [&](int64_t group) {
        const int64_t j = group * together, at = n0 + j * kTileN;
        pack_panels(p.b, at, std::min(together * kTileN, n0 + std::min(n_block, p.n - n0) - at), k0, k, p.bf16, kTileN, b + j * kTileN * kw);
      });
      // Few rows are shared among the threads by columns.
      const int64_t wanted = (4 * at::get_num_threads() + m_blocks - 1) / m_blocks;
      const int64_t span = (panels + std::min(wanted, panels) - 1) / std::min(wanted, panels);
      const int64_t spans = (panels + span - 1) / span;
      each(m_blocks * spans, [&](int64_t job) {
        const int64_t m0 = job / spans * m_block, m = std::min(m_block, p.m - m0), j0 = job % spans * span;
        auto* a = static_cast<uint32_t*>(scratch(1, m_block * most * 4));
        pack_panels(p.a, m0, m, k0, k, p.bf16, kTileM, a);
        for (int64_t j = j0; j < std::min(j0 + span, panels); j++) {
          const int64_t at = n0 + j * kTileN;
          Tile t{};
          t.ldc = p.ldc;
          t.cols = static_cast<int>(std::min<int64_t>(kTileN, p.n - at));
          t.bf16 = p.c_bf16;
          t.add = k0 > 0;
          t.bias = k0 == 0 && p.bias ? p.bias + at : nullptr;
          for (int64_t i = 0; i < m; i += kTileM) {
            t.c = static_cast<char*>(p.c) + ((m0 + i) * p.ldc + at) * (p.c_bf16 ? 2 : 4);
            tile(p.bf16, static_cast<int>(std::min<int64_t>(kTileM, m - i)), kw, a + i * kw, kTileM, b + j * kTileN * kw, kTileN, t);
          }
        }
      });
    }
  }
}

}  // namespace gp
