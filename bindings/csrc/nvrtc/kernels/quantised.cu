// Quantised matrices: decode gives 8 weights of a format, for dequantising and for products alike. A matrix is read as
// one row of rows x cols weights; a group is 8 of them from a multiple of 8 on.

// What decode needs at hand in a block: the values of 4-bit codes, and those of quantised scales.
struct Tables {
  float code[16], map[256];
};

__constant__ float kCodes[2][16] = {
    {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
     -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f,
     0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f},
    {0.0f, 0.005208333333f, 0.66666667f, 1.0f, 0.33333333f, 0.5f, 0.16666667f, 0.25f, -0.0f, -0.005208333333f,
     -0.66666667f, -1.0f, -0.33333333f, -0.5f, -0.16666667f, -0.25f}};

template <int F>
DEVICE void fill(Tables& t, const QuantMatrix& m) {
  if constexpr (F == kNF4 || F == kFP4) {
    if (threadIdx.x < 16) t.code[threadIdx.x] = kCodes[F == kFP4][threadIdx.x];
    if (!m.plain)
      for (int i = threadIdx.x; i < 256; i += blockDim.x) t.map[i] = m.map[i];
    __syncthreads();
  }
}

// bytes_at reads N bytes, which need not lie at a multiple of 4; only those before end are read where whole is false.
template <int N>
DEVICE void bytes_at(const u8* p, u32* words, bool whole, i64 left) {
  if (whole && reinterpret_cast<u64>(p) % 4 == 0) {
    for (int i = 0; i < N / 4; i++) words[i] = reinterpret_cast<const u32*>(p)[i];
    return;
  }
  for (int i = 0; i < N / 4; i++) words[i] = 0;
  for (int i = 0; i < N; i++)
    if (whole || i < left) words[i / 4] |= static_cast<u32>(p[i]) << i % 4 * 8;
}

DEVICE float half_at(const u8* p) { return half_value(static_cast<u16>(p[0] | p[1] << 8)); }

// decode gives the weights at i to i+7; those from end on are not read, and of no value.
template <int F>
DEVICE void decode(const QuantMatrix& m, const Tables& t, i64 i, i64 end, float* w) {
  u32 words[2];
  const bool whole = i + 8 <= end;
  if constexpr (F == kNF4 || F == kFP4) {  // the high nibble first
    bytes_at<4>(m.codes + i / 2, words, whole, (end - i + 1) / 2);
    const i64 block = i >> m.shift;
    const float scale = m.plain ? m.plain[block] : t.map[m.nested[block]] * m.outer[block >> m.outer_shift] + m.offset;
    for (int k = 0; k < 8; k++) w[k] = t.code[words[0] >> (k ^ 1) * 4 & 15] * scale;
  } else if constexpr (F == kInt8Rows) {
    bytes_at<8>(m.codes + i, words, whole, end - i);
    const bool in_rows = m.cols % 8 == 0;
    const float scale = in_rows ? m.plain[i / m.cols] : 0;
    for (int k = 0; k < 8; k++) {
      const float q = static_cast<signed char>(words[k / 4] >> k % 4 * 8);
      w[k] = q * (in_rows ? scale : m.plain[(i + k < end ? i + k : i) / m.cols]) * 7.874015718698502e-3f;
    }
  } else if constexpr (F == kQ4_0) {  // 32 weights: a scale, low nibbles, high nibbles
    const u8* block = m.codes + i / 32 * 18;
    const int at = static_cast<int>(i % 32), nibble = at / 16 * 4;
    bytes_at<8>(block + 2 + at % 16, words, true, 8);
    const float d = half_at(block);
    for (int k = 0; k < 8; k++) w[k] = (static_cast<int>(words[k / 4] >> (k % 4 * 8 + nibble) & 15) - 8) * d;
  } else {  // 256 weights: two scales, 12 bytes of eight 6-bit scales and minima, then nibbles of 64 weights in turn
    const u8* block = m.codes + i / 256 * 144;
    const u8* packed = block + 4;
    const int at = static_cast<int>(i % 256), j = at / 32, nibble = j % 2 * 4;
    int scale, least;
    if (j < 4) {
      scale = packed[j] & 63;
      least = packed[j + 4] & 63;
    } else {
      scale = (packed[j + 4] & 15) | packed[j - 4] >> 6 << 4;
      least = packed[j + 4] >> 4 | packed[j] >> 6 << 4;
    }
    bytes_at<8>(block + 16 + at / 64 * 32 + at % 32, words, true, 8);
    const float d = half_at(block) * scale, low = half_at(block + 2) * least;
    for (int k = 0; k < 8; k++) w[k] = d * (words[k / 4] >> (k % 4 * 8 + nibble) & 15) - low;
  }
}

template <int F>
DEVICE void dequantise(const QuantMatrix& m, Element* y) {
  __shared__ Tables tables;
  fill<F>(tables, m);
  const i64 n = m.rows * m.cols;
  const bool wide = aligned(y);
  for (i64 i = first_index() * 8; i < n; i += index_step() * 8) {
    float w[8];
    decode<F>(m, tables, i, n, w);
    if (wide && i + 8 <= n) {
      for (int k = 0; k < 8; k += kPack) store<kPack>(y + i + k, w + k);
    } else {
      for (int k = 0; k < 8 && i + k < n; k++) store<1>(y + i + k, w + k);
    }
  }
}

// Rows of x that one launch of a product takes.
constexpr int kFewRows = 4;

// multiply gives y[r][o] = Σ x[r][i]·w[o][i] for r below few: a warp computes one o. cols is a multiple of 8.
template <int F>
DEVICE void multiply(const QuantMatrix& m, const Element* x, Element* y, int few) {
  __shared__ Tables tables;
  fill<F>(tables, m);
  const i64 o = blockIdx.x * static_cast<i64>(blockDim.x / 32) + threadIdx.x / 32;
  if (o >= m.rows) return;  // a whole warp
  const bool wide = m.cols % kPack == 0 && aligned(x);
  float sums[kFewRows] = {};
  for (i64 i = threadIdx.x % 32 * 8; i < m.cols; i += 32 * 8) {
    float w[8], v[8];
    decode<F>(m, tables, o * m.cols + i, m.rows * m.cols, w);
    for (int r = 0; r < kFewRows; r++) {
      if (r >= few) break;
      const Element* at = x + r * m.cols + i;
      if (wide) {
        for (int k = 0; k < 8; k += kPack) load<kPack>(at + k, v + k);
      } else {
        for (int k = 0; k < 8; k++) load<1>(at + k, v + k);
      }
      for (int k = 0; k < 8; k++) sums[r] = fmaf(w[k], v[k], sums[r]);
    }
  }
  for (int r = 0; r < kFewRows; r++) {
    const float sum = warp_sum(sums[r]);
    if (r < few && threadIdx.x % 32 == 0) y[r * m.rows + o] = rounded(sum);
  }
}

KERNEL dequantise_nf4(QuantMatrix m, Element* y) { dequantise<kNF4>(m, y); }
KERNEL dequantise_fp4(QuantMatrix m, Element* y) { dequantise<kFP4>(m, y); }
KERNEL dequantise_int8_rows(QuantMatrix m, Element* y) { dequantise<kInt8Rows>(m, y); }
KERNEL dequantise_q4_0(QuantMatrix m, Element* y) { dequantise<kQ4_0>(m, y); }
KERNEL dequantise_q4_k(QuantMatrix m, Element* y) { dequantise<kQ4_K>(m, y); }

KERNEL multiply_nf4(QuantMatrix m, const Element* x, Element* y, int few) { multiply<kNF4>(m, x, y, few); }
KERNEL multiply_fp4(QuantMatrix m, const Element* x, Element* y, int few) { multiply<kFP4>(m, x, y, few); }
KERNEL multiply_int8_rows(QuantMatrix m, const Element* x, Element* y, int few) { multiply<kInt8Rows>(m, x, y, few); }
KERNEL multiply_q4_0(QuantMatrix m, const Element* x, Element* y, int few) { multiply<kQ4_0>(m, x, y, few); }
KERNEL multiply_q4_k(QuantMatrix m, const Element* x, Element* y, int few) { multiply<kQ4_K>(m, x, y, few); }
