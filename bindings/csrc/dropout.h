// Dropout whose mask is a function of a seed and the element's index, so that the backward pass computes it again
// instead of keeping it.
#pragma once
#include <cstdint>

namespace gp {

// draw_seed takes one number from libtorch's generator, so that what is random here follows its seed and state.
uint64_t draw_seed();

// Dropout is a mask: what an element's index is mixed with, and who is dropped. vec.h mixes.
struct Dropout {
  uint32_t k0 = 0, k1 = 0, threshold = 0;  // drops where the hash is below the threshold
  float scale = 1;
  Dropout() = default;
  Dropout(double p, uint64_t seed)
      : k0(static_cast<uint32_t>(seed)),
        k1(static_cast<uint32_t>(seed >> 32)),
        threshold(static_cast<uint32_t>(p * 4294967296.0)),
        scale(static_cast<float>(1 / (1 - p))) {}
  bool on() const { return threshold != 0; }
  // stream gives independent masks from one seed.
  Dropout stream(uint64_t i) const {
    Dropout d = *this;
    uint64_t z = (static_cast<uint64_t>(k1) << 32 | k0) + (i + 1) * 0x9e3779b97f4a7c15ull;  // splitmix64
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    d.k0 = static_cast<uint32_t>(z);
    d.k1 = static_cast<uint32_t>(z >> 32);
    return d;
  }
};

}  // namespace gp
