// Adds a low-rank update to the output of a linear map, without the update in memory.

// A block of 256 threads computes kDown x kAcross elements, a thread 4 x kPack, from kDeep columns of both factors at a
// time.
constexpr int kDown = 64, kAcross = 16 * kPack, kDeep = 16;

// fetch brings kDeep columns of N rows of m [n, rank], with zeros for what lies beyond it.
template <int N>
DEVICE void fetch(const float* m, i64 first, i64 n, int rank, int at, float (*to)[N + 4]) {
  for (int i = threadIdx.x; i < N * kDeep; i += blockDim.x) {
    const int r = i / kDeep, j = i % kDeep;
    to[j][r] = first + r < n && at + j < rank ? m[(first + r) * rank + at + j] : 0;
  }
}

// out [rows, cols] = y + scale·h·upᵀ for h [rows, rank] and up [cols, rank]; out may be y.
KERNEL add_low_rank(const Element* y, const float* h, const float* up, Element* out, i64 rows, i64 cols, int rank,
                    float scale) {
  __shared__ float left[kDeep][kDown + 4], right[kDeep][kAcross + 4];
  const i64 row = static_cast<i64>(blockIdx.x) * kDown, col = static_cast<i64>(blockIdx.y) * kAcross;
  const int down = threadIdx.x / 16 * 4, across = threadIdx.x % 16 * kPack;
  float sums[4][kPack] = {};
  for (int at = 0; at < rank; at += kDeep) {
    __syncthreads();  // the columns before these may still be being read
    fetch<kDown>(h, row, rows, rank, at, left);
    fetch<kAcross>(up, col, cols, rank, at, right);
    __syncthreads();
    for (int j = 0; j < kDeep; j++)
      for (int i = 0; i < 4; i++)
        for (int k = 0; k < kPack; k++) sums[i][k] = fmaf(left[j][down + i], right[j][across + k], sums[i][k]);
  }
  const i64 c = col + across;
  const bool wide = cols % kPack == 0 && aligned(y, out) && c < cols;
  for (int i = 0; i < 4; i++) {
    const i64 r = row + down + i, place = r * cols + c;
    if (r >= rows) break;
    if (wide) {
      float v[kPack];
      load<kPack>(y + place, v);
      for (int k = 0; k < kPack; k++) v[k] = fmaf(sums[i][k], scale, v[k]);
      store<kPack>(out + place, v);
    } else {
      for (int k = 0; k < kPack; k++)
        if (c + k < cols) out[place + k] = rounded(fmaf(sums[i][k], scale, value(y[place + k])));
    }
  }
}
