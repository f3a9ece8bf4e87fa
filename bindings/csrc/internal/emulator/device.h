// What CUDA gives a kernel, for one thread of a block that fibres.cc runs.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

namespace emulator {

struct Index {
  u32 x = 0, y = 0, z = 0;
};

// Where the running thread is.
struct Place {
  Index thread, block, block_size, grid_size;
};
extern Place place;

// sync waits for all threads of the block that have not returned.
void sync();

// exchange gives v of the lane that differs from this one by mask, once all lanes of the warp are there.
float exchange(float v, int mask);

}  // namespace emulator

struct alignas(16) uint4 {
  u32 x, y, z, w;
};
inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }

inline float __uint_as_float(u32 v) {
  float f;
  std::memcpy(&f, &v, 4);
  return f;
}

inline u32 __float_as_uint(float f) {
  u32 v;
  std::memcpy(&v, &f, 4);
  return v;
}

// To the nearest, ties to even; not a number stays one.
inline u16 bf16_bits(float f) {
  const u32 v = __float_as_uint(f);
  if (f != f) return 0x7fff;
  return static_cast<u16>((v + 0x7fff + (v >> 16 & 1)) >> 16);
}

u16 half_bits(float f);
float half_value(u16 b);

inline void __syncthreads() { emulator::sync(); }
inline float __shfl_xor_sync(u32, float v, int mask) { return emulator::exchange(v, mask); }

#define threadIdx (emulator::place.thread)
#define blockIdx (emulator::place.block)
#define blockDim (emulator::place.block_size)
#define gridDim (emulator::place.grid_size)

#define KERNEL static void
#define DEVICE inline
#define __constant__ static const
#define __shared__ static  // blocks run one after another
