// What the kernels share on top of 16 lanes. Files of vector code are compiled once for every path: in avx512.cc and
// avx2.cc, each in the namespace GP_PATH, so that no function of one path can stand in for another's.
#pragma once
#include "dropout.h"

// GP_INLINE is for functions that the compiler would find too large to inline: called, they take and give two
// registers through memory.
#define GP_INLINE [[gnu::always_inline]] inline

namespace gp::GP_PATH {

// exp16 is e^x within two units in the last place (Cephes' polynomial).
GP_INLINE F16 exp16(F16 x) {
  x = min16(all(88.72f), max16(all(-104.f), x));
  const F16 n = nearest(x * all(1.44269504f));
  F16 r = fnma(n, all(0.693359375f), x);
  r = fnma(n, all(-2.12194440e-4f), r);
  F16 y = all(1.9875691500e-4f);
  y = fma(y, r, all(1.3981999507e-3f));
  y = fma(y, r, all(8.3334519073e-3f));
  y = fma(y, r, all(4.1665795894e-2f));
  y = fma(y, r, all(1.6666665459e-1f));
  y = fma(y, r, all(5.0000001201e-1f));
  y = fma(y * r, r, r + all(1.f));
  return times_power_of_2(y, n);
}

// keep16 is where 16 elements from index i on are kept. The mixing is Wellons' lowbias32 with a key between its rounds.
GP_INLINE Mask keep16(const Dropout& d, uint64_t i) {
  const uint32_t key = d.k1 + static_cast<uint32_t>(i >> 32) * 0x9e3779b9u;
  U16 x = words_from(static_cast<uint32_t>(i) + d.k0);
  x = exclusive_or(x, shifted_right<16>(x));
  x = multiply(x, words(0x7feb352d));
  x = exclusive_or(x, words(key));
  x = exclusive_or(x, shifted_right<15>(x));
  x = multiply(x, words(0x846ca68bu));
  x = exclusive_or(x, shifted_right<16>(x));
  return at_least(x, words(d.threshold));
}

// dropped is 16 elements from index i on after dropout.
GP_INLINE F16 dropped(const Dropout& d, uint64_t i, F16 v) { return product_where(keep16(d, i), v, all(d.scale)); }

}  // namespace gp::GP_PATH
