// RMS norm: x/√(mean(x²)+eps)·w for rows of d elements, a block to a row.

template <int N>
DEVICE void normalise(const Element* x, const Element* w, Element* y, float* rstd, int d, float eps) {
  float sum = 0, v[N], g[N];
  for (int i = threadIdx.x * N; i < d; i += blockDim.x * N) {
    load<N>(x + i, v);
    for (int k = 0; k < N; k++) sum = fmaf(v[k], v[k], sum);
  }
  const float inv = 1 / sqrtf(block_sum(sum) / d + eps);
  if (rstd && threadIdx.x == 0) *rstd = inv;
  for (int i = threadIdx.x * N; i < d; i += blockDim.x * N) {
    load<N>(x + i, v);
    load<N>(w + i, g);
    // The normalised value is rounded before the weight comes in, as in LLaMA.
    for (int k = 0; k < N; k++) v[k] = value(rounded(v[k] * inv)) * g[k];
    store<N>(y + i, v);
  }
}

// x and y [rows, d], w [d]; rstd [rows], or null, is 1/√(mean(x²)+eps).
KERNEL rms_norm(const Element* x, const Element* w, Element* y, float* rstd, int d, float eps) {
  const i64 row = blockIdx.x;
  x += row * d;
  y += row * d;
  rstd = rstd ? rstd + row : rstd;
  if (d % kPack == 0 && aligned(x, w, y)) normalise<kPack>(x, w, y, rstd, d, eps);
  else normalise<1>(x, w, y, rstd, d, eps);
}

template <int N>
DEVICE void normalise_backward(const Element* g, const Element* x, const Element* w, float inv, Element* dx, int d) {
  float sum = 0, gv[N], xv[N], wv[N];
  for (int i = threadIdx.x * N; i < d; i += blockDim.x * N) {
    load<N>(g + i, gv);
    load<N>(x + i, xv);
    load<N>(w + i, wv);
    for (int k = 0; k < N; k++) sum = fmaf(gv[k] * wv[k], xv[k] * inv, sum);
  }
  const float mean = block_sum(sum) / d;
  for (int i = threadIdx.x * N; i < d; i += blockDim.x * N) {
    load<N>(g + i, gv);
    load<N>(x + i, xv);
    load<N>(w + i, wv);
    for (int k = 0; k < N; k++) gv[k] = fmaf(-(xv[k] * inv), mean, gv[k] * wv[k]) * inv;
    store<N>(dx + i, gv);
  }
}

// dx [rows, d] is the gradient of x for the gradient g of the result.
KERNEL rms_norm_backward(const Element* g, const Element* x, const Element* w, const float* rstd, Element* dx, int d) {
  const i64 row = blockIdx.x;
  g += row * d;
  x += row * d;
  dx += row * d;
  if (d % kPack == 0 && aligned(g, x, w, dx)) normalise_backward<kPack>(g, x, w, rstd[row], dx, d);
  else normalise_backward<1>(g, x, w, rstd[row], dx, d);
}

// parts [blocks of rows, d] are sums of the gradient of w over blockIdx.y's rows, for the host to add up: without
// atomic additions the result is the same in every run.
KERNEL rms_norm_weight(const Element* g, const Element* x, const float* rstd, float* parts, i64 rows, int d,
                       int rows_each) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= d) return;
  const i64 first = static_cast<i64>(blockIdx.y) * rows_each;
  const i64 end = first + rows_each < rows ? first + rows_each : rows;
  float sum = 0;
  for (i64 r = first; r < end; r++) sum = fmaf(value(g[r * d + i]), value(x[r * d + i]) * rstd[r], sum);
  parts[static_cast<i64>(blockIdx.y) * d + i] = sum;
}
