// Cross-entropy of logits, and its gradient in their place.

// Softer is a sum of exponentials over what they have most in common, so that none is too large.
struct Softer {
  float most, sum;
};

// add takes in a value; the smallest number stands for no value yet, so that -∞ adds nothing.
DEVICE void add(Softer& s, float v) {
  if (v > s.most) {
    s.sum *= expf(s.most - v);
    s.most = v;
  }
  s.sum += expf(v - s.most);
}

template <int N>
DEVICE Softer gathered(const Element* row, int vocab) {
  Softer s{-3.4028234e38f, 0};
  float v[N];
  for (int i = threadIdx.x * N; i < vocab; i += blockDim.x * N) {
    load<N>(row + i, v);
    for (int k = 0; k < N; k++) add(s, v[k]);
  }
  return s;
}

// spread writes the probabilities, less 1 at the target.
template <int N>
DEVICE void spread(Element* row, int vocab, int target, Softer s) {
  const float each = 1 / s.sum;
  float v[N];
  for (int i = threadIdx.x * N; i < vocab; i += blockDim.x * N) {
    load<N>(row + i, v);
    for (int k = 0; k < N; k++) v[k] = expf(v[k] - s.most) * each - (i + k == target ? 1 : 0);
    store<N>(row + i, v);
  }
}

// losses [rows] are -log softmax(logits)[target] for logits [rows, vocab], a block to a row. With gradient the logits
// become theirs. A target outside the vocabulary gives no number.
KERNEL cross_entropy(Element* logits, const i64* targets, float* losses, int vocab, int gradient) {
  Element* row = logits + static_cast<i64>(blockIdx.x) * vocab;
  const i64 target = targets[blockIdx.x];
  const bool known = target >= 0 && target < vocab;
  const float at_target = known ? value(row[target]) : __uint_as_float(0x7fffffff);
  const bool wide = vocab % kPack == 0 && aligned(row);
  Softer s = wide ? gathered<kPack>(row, vocab) : gathered<1>(row, vocab);
  const float most = block_max(s.most);
  s = {most, block_sum(s.sum * expf(s.most - most))};
  if (threadIdx.x == 0) losses[blockIdx.x] = logf(s.sum) + (most - at_target);
  if (!gradient) return;
  const int place = known ? static_cast<int>(target) : -1;
  if (wide) spread<kPack>(row, vocab, place, s);
  else spread<1>(row, vocab, place, s);
}
