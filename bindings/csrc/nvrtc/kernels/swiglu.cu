// SwiGLU: silu(gate)·up, rounded once.

DEVICE float sigmoid(float v) { return 1 / (1 + expf(-v)); }

// y may be gate or up themselves.
KERNEL swiglu(const Element* gate, const Element* up, Element* y, i64 n) {
  in_packs(n, aligned(gate, up, y), [&](i64 i, auto width) {
    constexpr int N = decltype(width)::value;
    float a[N], u[N];
    load<N>(gate + i, a);
    load<N>(up + i, u);
    for (int k = 0; k < N; k++) a[k] = a[k] * sigmoid(a[k]) * u[k];
    store<N>(y + i, a);
  });
}

KERNEL swiglu_backward(const Element* g, const Element* gate, const Element* up, Element* dgate, Element* dup, i64 n) {
  in_packs(n, aligned(g, gate, up) && aligned(dgate, dup), [&](i64 i, auto width) {
    constexpr int N = decltype(width)::value;
    float gy[N], a[N], u[N];
    load<N>(g + i, gy);
    load<N>(gate + i, a);
    load<N>(up + i, u);
    for (int k = 0; k < N; k++) {
      const float s = sigmoid(a[k]), silu = a[k] * s;
      a[k] = gy[k] * u[k] * fmaf(silu, 1 - s, s);  // silu' = s + silu·(1-s)
      u[k] = gy[k] * silu;
    }
    store<N>(dgate + i, a);
    store<N>(dup + i, u);
  });
}
