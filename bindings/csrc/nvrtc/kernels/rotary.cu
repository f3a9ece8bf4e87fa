// Rotary position embeddings of queries and keys in one launch: a block turns all heads of one position.

// turn gives (x1·c1 - x2·s1, x2·c2 + x1·s2) of the halves of a head, or with transposed its gradient's.
template <int N>
DEVICE void turn(const Element* x, Element* y, const Element* cos, const Element* sin, int half, bool transposed) {
  float x1[N], x2[N], c1[N], c2[N], s1[N], s2[N];
  load<N>(x, x1);
  load<N>(x + half, x2);
  load<N>(cos, c1);
  load<N>(cos + half, c2);
  load<N>(sin, s1);
  load<N>(sin + half, s2);
  for (int k = 0; k < N; k++) {
    const float a = transposed ? -s2[k] : s1[k], b = transposed ? -s1[k] : s2[k], v = x1[k];
    x1[k] = fmaf(-x2[k], a, v * c1[k]);
    x2[k] = fmaf(v, b, x2[k] * c2[k]);
  }
  store<N>(y, x1);
  store<N>(y + half, x2);
}

template <int N>
DEVICE void turn_heads(const Element* x, const Heads& h, Element* y, const Element* cos, const Element* sin, int half,
                       bool transposed) {
  const int each = half / N;
  for (int i = threadIdx.x; i < h.heads * each; i += blockDim.x) {
    const int head = i / each, j = i % each * N;
    turn<N>(x + head * h.from_head + j, y + head * h.to_head + j, cos + j, sin + j, half, transposed);
  }
}

DEVICE void turn_position(const Heads& h, const Element* cos, const Element* sin, i64 b, i64 s, int half,
                          bool transposed) {
  const Element* x = static_cast<const Element*>(h.from) + b * h.from_batch + s * h.from_position;
  Element* y = static_cast<Element*>(h.to) + b * h.to_batch + s * h.to_position;
  const bool even = half % kPack == 0 && h.from_head % kPack == 0 && h.to_head % kPack == 0;
  if (even && aligned(x, y, cos, sin)) turn_heads<kPack>(x, h, y, cos, sin, half, transposed);
  else turn_heads<1>(x, h, y, cos, sin, half, transposed);
}

// k.heads is 0 where q comes alone.
KERNEL rotate(Heads q, Heads k, Angles angles, i64 positions, int half, int transposed) {
  const i64 b = blockIdx.x / positions, s = blockIdx.x % positions;
  const Element* cos = static_cast<const Element*>(angles.cos) + b * angles.cos_batch + s * angles.cos_position;
  const Element* sin = static_cast<const Element*>(angles.sin) + b * angles.sin_batch + s * angles.sin_position;
  turn_position(q, cos, sin, b, s, half, transposed);
  if (k.heads) turn_position(k, cos, sin, b, s, half, transposed);
}
