// Products of few rows with a quantised matrix: integers are multiplied and only their sums scaled, so that weights
// cost little more than reading them.
#include <cmath>
#include <limits>
#include <vector>

#include "vec_includes.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,f16c")

#define GP_PATH avx512
#include "vec_avx512.h"
#include "vec_quant_decode.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,f16c,avx512vnni")

namespace gp::avx512 {
namespace {

constexpr int kRowsAtOnce = 4;  // of the matrix, whose scales are converted together

// Weights to a scale of x. NF4 and FP4 take all of theirs at once.
constexpr int64_t span(QuantKind k) { return has_table(k) ? 64 : 32; }
// Whether weights with even numbers lie in other halves of bytes than those with odd ones.
constexpr bool split(QuantKind k) { return has_table(k) || k == kInt4; }
constexpr bool has_minimum(QuantKind k) { return k == kQ4_1 || k == kQ5_1 || k == kQ4_K || k == kQ5_K || k == kInt4; }
// What tables' values are multiplied by to be integers: FP4's are so exactly, and sums of four products fit 32 bits.
constexpr float unit(QuantKind k) { return k == kNF4 ? 16384 : k == kFP4 ? 192 * 64 : 1; }

// Activations are rows of x as integers, with a scale for each span, and the sums that minima are multiplied by.
struct Activations {
  std::vector<int16_t> q;
  std::vector<float> scale, sum;
  int64_t cols, spans;
};

inline __m512i halves(__m256i lo, __m256i hi) { return _mm512_inserti64x4(_mm512_castsi256_si512(lo), hi, 1); }

inline __m512i to_int16(__m512 a, __m512 b, __m512 factor) {
  return halves(_mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(a, factor))),
                _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(b, factor))));
}

template <QuantKind K, class X>
void round_span(const X* x, int16_t* q, float* scale, float* sum) {
  constexpr int n = span(K) / 16;
  __m512 v[n], top = _mm512_setzero_ps(), total = _mm512_setzero_ps();
  for (int i = 0; i < n; i++) {
    v[i] = load16(x + i * 16, first16(16));
    top = _mm512_max_ps(top, _mm512_abs_ps(v[i]));
    total = _mm512_add_ps(total, v[i]);
  }
  const float most = _mm512_reduce_max_ps(top);
  const __m512 factor = _mm512_set1_ps(most > 0 ? 32767 / most : 0);
  *sum = _mm512_reduce_add_ps(total);
  // Integers hold no infinity and no NaN: the scale keeps what x has of them.
  *scale = std::isfinite(*sum) ? most / 32767 / unit(K) : std::numeric_limits<float>::quiet_NaN();
  const __m512i lo = to_int16(v[0], v[1], factor);
  if constexpr (!split(K)) _mm512_storeu_si512(q, lo);
  else {
    const __m512i hi = n == 4 ? to_int16(v[n - 2], v[n - 1], factor) : lo;
    alignas(64) static constexpr uint16_t even[32] = {0,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
                                                      32, 34, 36, 38, 40, 42, 44, 46, 48, 50, 52, 54, 56, 58, 60, 62};
    const __m512i from = _mm512_load_si512(even), next = _mm512_add_epi16(from, _mm512_set1_epi16(1));
    const __m512i evens = _mm512_permutex2var_epi16(lo, from, hi), odds = _mm512_permutex2var_epi16(lo, next, hi);
    if constexpr (n == 4) {
      _mm512_storeu_si512(q, evens);
      _mm512_storeu_si512(q + 32, odds);
    } else {
      _mm512_storeu_si512(q, halves(_mm512_castsi512_si256(evens), _mm512_castsi512_si256(odds)));
    }
  }
}

template <QuantKind K, class X>
void round_rows(const X* x, int64_t m, int64_t stride, Activations& a) {
  for (int64_t i = 0; i < m; i++)
    for (int64_t b = 0; b < a.spans; b++)
      round_span<K>(x + i * stride + b * span(K), a.q.data() + i * a.cols + b * span(K), &a.scale[i * a.spans + b],
                    &a.sum[i * a.spans + b]);
}

// Four is four rows of the matrix, and their scales of one span: each in a lane, in Q6_K those of the span's second
// half behind them.
struct Four {
  const uint8_t* p[kRowsAtOnce];
  int64_t row[kRowsAtOnce];
};
struct Scales {
  __m512 d;
  __m128 minimum;
};

inline __m512 widen(__m128 v) { return _mm512_castps128_ps512(v); }

// The 16 scales and minima of a block of Q4_K or Q5_K.
inline __m512 group_scales(const uint8_t* p) {
  const uint32_t a = word_at(p + 4), b = word_at(p + 8), c = word_at(p + 12);
  const __m128i packed = _mm_set_epi32(
      static_cast<int>((c >> 4 & 0x0f0f0f0f) | (b >> 6 & 0x03030303) << 4), static_cast<int>(b & 0x3f3f3f3f),
      static_cast<int>((c & 0x0f0f0f0f) | (a >> 6 & 0x03030303) << 4), static_cast<int>(a & 0x3f3f3f3f));
  const float d = half_at(p), m = -half_at(p + 2);
  const __m512 unit = _mm512_mask_mov_ps(_mm512_set1_ps(d), 0xff00, _mm512_set1_ps(m));
  return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(packed)), unit);
}

inline __m512 sixteen_scales(const uint8_t* p) {
  return _mm512_mul_ps(_mm512_cvtepi32_ps(signed_at(p + 192)), _mm512_set1_ps(half_at(p + 208)));
}

// Reader gives four rows' scales span by span, and their codes as integers.
template <QuantKind K>
struct Reader {
  Reader(const Codes& codes, int64_t first) : w(codes) {
    for (int i = 0; i < kRowsAtOnce; i++) {
      four.row[i] = std::min(first + i, w.rows - 1);
      four.p[i] = w.q + (has_table(K) ? four.row[i] * w.cols / 2 : four.row[i] * w.stride);
    }
  }

  template <class F>
  __m128 each_row(const F& f) const {
    return _mm_set_ps(f(3), f(2), f(1), f(0));
  }

  const uint8_t* block(int i, int64_t b) const { return four.p[i] + b * 32 / block_weights(K) * block_bytes(K); }

  // A block's scales of the eight spans in it, for Q4_K, Q5_K and Q6_K.
  void next_block(int64_t b) {
    for (int i = 0; i < kRowsAtOnce; i++) {
      alignas(64) float s[16];
      _mm512_store_ps(s, K == kQ6_K ? sixteen_scales(block(i, b)) : group_scales(block(i, b)));
      for (int g = 0; g < 8; g++) {
        first[g][i] = K == kQ6_K ? s[2 * g] : s[g];
        second[g][i] = K == kQ6_K ? s[2 * g + 1] : s[8 + g];
      }
    }
  }

  Scales scales(int64_t b) {
    if constexpr (has_table(K)) {
      return {widen(each_row([&](int i) { return scale_at(w, (four.row[i] * w.cols + b * 64) >> w.shift); })),
              _mm_setzero_ps()};
    } else if constexpr (K == kInt8Rows) {
      return {widen(each_row([&](int i) { return w.scales[four.row[i]] * kInt8Unit; })), _mm_setzero_ps()};
    } else if constexpr (K == kInt4) {
      const int64_t groups = w.cols / w.block, group = b * 32 / w.block;
      const auto of = [&](const float* v) { return each_row([&](int i) { return v[four.row[i] * groups + group]; }); };
      const __m128 d = of(w.scales);
      return {widen(d), _mm_sub_ps(_mm_setzero_ps(), _mm_mul_ps(d, of(w.zeros)))};
    } else if constexpr (block_weights(K) == 256) {
      if (b % 8 == 0) next_block(b);
      const __m128 a = _mm_load_ps(first[b % 8]), c = _mm_load_ps(second[b % 8]);
      if constexpr (K == kQ6_K) return {_mm512_castps256_ps512(_mm256_set_m128(c, a)), _mm_setzero_ps()};
      return {widen(a), c};
    } else if constexpr (has_minimum(K)) {
      const auto both = [&](int i) { return static_cast<int>(word_at(block(i, b))); };
      const __m256 v = _mm256_cvtph_ps(_mm_set_epi32(both(3), both(2), both(1), both(0)));
      const __m128 lo = _mm256_castps256_ps128(v), hi = _mm256_extractf128_ps(v, 1);
      return {widen(_mm_shuffle_ps(lo, hi, 0x88)), _mm_shuffle_ps(lo, hi, 0xdd)};
    } else {
      uint64_t all = 0;
      for (int i = kRowsAtOnce - 1; i >= 0; i--) all = all << 16 | (word_at(block(i, b)) & 0xffff);
      return {widen(_mm_cvtph_ps(_mm_cvtsi64_si128(static_cast<int64_t>(all)))), _mm_setzero_ps()};
    }
  }

  // sums multiplies row i's codes of span b with m rows of integers.
  template <int M>
  void sums(int i, int64_t b, const __m512i (&x)[M][2], __m512i (&out)[M]) const {
    const __m512i zero = _mm512_setzero_si512();
    if constexpr (has_table(K)) {
      const __m512i v = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(four.p[i] + b * 32)));
      const __m512i even = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 4), table);
      const __m512i odd = _mm512_permutexvar_epi16(_mm512_and_si512(v, _mm512_set1_epi16(15)), table);
      for (int j = 0; j < M; j++) out[j] = _mm512_dpwssd_epi32(_mm512_dpwssd_epi32(zero, even, x[j][0]), odd, x[j][1]);
    } else {
      const __m512i q = integers(i, b);
      for (int j = 0; j < M; j++) out[j] = _mm512_dpwssd_epi32(zero, q, x[j][0]);
    }
  }

  static __m512i wide(const uint8_t* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }

  // Low nibbles of 16 bytes, then the high ones.
  static __m512i of_nibbles(const uint8_t* p) {
    const __m256i v = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return halves(_mm256_and_si256(v, _mm256_set1_epi16(15)), _mm256_srli_epi16(v, 4));
  }

  // One of the halves of 32 bytes' nibbles.
  static __m512i of_half(const uint8_t* p, bool high) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    const __m256i nibble = high ? _mm256_srli_epi16(v, 4) : v;
    return _mm512_cvtepu8_epi16(_mm256_and_si256(nibble, _mm256_set1_epi8(15)));
  }

  static __m512i with_fifth(__m512i q, __mmask32 high) {
    return _mm512_mask_add_epi16(q, high, q, _mm512_set1_epi16(16));
  }

  static __m512i less(__m512i q, short n) { return _mm512_sub_epi16(q, _mm512_set1_epi16(n)); }

  __m512i integers(int i, int64_t b) const {
    if constexpr (K == kInt8Rows) return wide(four.p[i] + b * 32);
    if constexpr (K == kInt4) return of_nibbles(four.p[i] + b * 16);
    const uint8_t* p = block(i, b);
    if constexpr (K == kQ8_0) return wide(p + 2);
    if constexpr (K == kQ4_0) return less(of_nibbles(p + 2), 8);
    if constexpr (K == kQ4_1) return of_nibbles(p + 4);
    if constexpr (K == kQ5_0) return less(with_fifth(of_nibbles(p + 6), word_at(p + 2)), 16);
    if constexpr (K == kQ5_1) return with_fifth(of_nibbles(p + 8), word_at(p + 4));
    const int64_t g = b % 8;
    if constexpr (K == kQ4_K) return of_half(p + 16 + g / 2 * 32, g % 2);
    if constexpr (K == kQ5_K) {
      const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16));
      const __mmask32 fifth = _mm256_test_epi8_mask(high, _mm256_set1_epi8(static_cast<char>(1 << g)));
      return with_fifth(of_half(p + 48 + g / 2 * 32, g % 2), fifth);
    }
    if constexpr (K == kQ6_K) {
      const int64_t side = g / 4, quarter = g % 4;
      const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 128 + side * 32));
      const __m512i high = _mm512_and_si512(
          _mm512_srl_epi16(_mm512_cvtepu8_epi16(bits), _mm_cvtsi64_si128(2 * quarter)), _mm512_set1_epi16(3));
      return less(_mm512_or_si512(of_half(p + side * 64 + quarter % 2 * 32, quarter >= 2), _mm512_slli_epi16(high, 4)),
                  32);
    }
    return _mm512_setzero_si512();
  }

  const Codes& w;
  Four four;
  __m512i table;
  alignas(16) float first[8][kRowsAtOnce], second[8][kRowsAtOnce];
};

// dots multiplies four rows of the matrix from `first` on with M rows of x; those past the end repeat the last.
template <QuantKind K, int M>
void dots(const Codes& w, int64_t first, const Activations& x, float out[M][kRowsAtOnce]) {
  Reader<K> reader(w, first);
  if constexpr (has_table(K)) {
    alignas(64) int16_t values[32];
    for (int i = 0; i < 32; i++) values[i] = static_cast<int16_t>(std::lrint(kTables[K][i % 16] * unit(K)));
    reader.table = _mm512_load_si512(values);
  }
  __m512 acc[M][kRowsAtOnce];
  __m128 least[M];
  __m512i lane[kRowsAtOnce];
  for (int i = 0; i < M; i++) {
    least[i] = _mm_setzero_ps();
    for (int r = 0; r < kRowsAtOnce; r++) acc[i][r] = _mm512_setzero_ps();
  }
  for (int r = 0; r < kRowsAtOnce; r++)
    lane[r] = _mm512_mask_mov_epi32(_mm512_set1_epi32(r), 0xff00, _mm512_set1_epi32(K == kQ6_K ? kRowsAtOnce + r : r));
  for (int64_t b = 0; b < x.spans; b++) {
    const Scales s = reader.scales(b);
    __m512 d[M];
    __m512i xs[M][2];
    for (int i = 0; i < M; i++) {
      const int16_t* q = x.q.data() + i * x.cols + b * span(K);
      xs[i][0] = _mm512_loadu_si512(q);
      xs[i][1] = has_table(K) ? _mm512_loadu_si512(q + 32) : xs[i][0];
      d[i] = _mm512_mul_ps(s.d, _mm512_set1_ps(x.scale[i * x.spans + b]));
      if constexpr (has_minimum(K)) least[i] = _mm_fmadd_ps(s.minimum, _mm_set1_ps(x.sum[i * x.spans + b]), least[i]);
    }
    for (int r = 0; r < kRowsAtOnce; r++) {
      __m512i sums[M];
      reader.template sums<M>(r, b, xs, sums);
      for (int i = 0; i < M; i++)
        acc[i][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[i]), _mm512_permutexvar_ps(lane[r], d[i]), acc[i][r]);
    }
  }
  for (int i = 0; i < M; i++) {
    alignas(16) float rest[kRowsAtOnce];
    _mm_store_ps(rest, least[i]);
    for (int r = 0; r < kRowsAtOnce; r++) out[i][r] = _mm512_reduce_add_ps(acc[i][r]) + rest[r];
  }
}

template <QuantKind K, int M>
void all_dots(const Codes& w, const Activations& x, const float* bias, float* out) {
  const int64_t groups = (w.rows + kRowsAtOnce - 1) / kRowsAtOnce;
  at::parallel_for(0, groups, std::max<int64_t>(1, kLeastElements / w.cols), [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; g++) {
      float y[M][kRowsAtOnce];
      dots<K, M>(w, g * kRowsAtOnce, x, y);
      for (int64_t r = g * kRowsAtOnce; r < std::min(w.rows, (g + 1) * kRowsAtOnce); r++)
        for (int i = 0; i < M; i++) out[i * w.rows + r] = y[i][r % kRowsAtOnce] + (bias ? bias[r] : 0);
    }
  });
}

template <QuantKind K>
void dots_of(const Codes& w, const at::Tensor& x, const float* bias, float* out) {
  const int64_t m = x.size(0);
  Activations a;
  a.cols = w.cols;
  a.spans = w.cols / span(K);
  a.q.resize(static_cast<size_t>(m * a.cols));
  a.scale.resize(static_cast<size_t>(m * a.spans));
  a.sum.resize(static_cast<size_t>(m * a.spans));
  if (x.scalar_type() == at::kBFloat16) round_rows<K>(x.const_data_ptr<c10::BFloat16>(), m, x.stride(0), a);
  else round_rows<K>(x.const_data_ptr<float>(), m, x.stride(0), a);
  switch (m) {
    case 1: return all_dots<K, 1>(w, a, bias, out);
    case 2: return all_dots<K, 2>(w, a, bias, out);
    case 3: return all_dots<K, 3>(w, a, bias, out);
    default: return all_dots<K, 4>(w, a, bias, out);
  }
}

}  // namespace
}  // namespace gp::avx512

namespace gp {

bool quant_dots_serve(const Codes& w) {
  static const bool instructions = has_avx512() && __builtin_cpu_supports("avx512vnni");
  const int64_t whole = avx512::span(w.kind);
  return instructions && w.cols > 0 && w.cols % whole == 0 && w.aligned() &&
         (!has_table(w.kind) || w.block % whole == 0);
}

void quant_dots(const Codes& w, const at::Tensor& x, const float* bias, float* out) {
  for_kind(w.kind, [&](auto k) { avx512::dots_of<k()>(w, x, bias, out); });
}

}  // namespace gp
