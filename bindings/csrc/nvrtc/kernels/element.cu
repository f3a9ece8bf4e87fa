// What the kernels share. They are compiled once for each ELEMENT (0 fp32, 1 bf16, 2 fp16), the type of what they read
// and write; they compute in fp32. NVRTC comes without headers, so conversions are instructions; the emulator has its
// own.
#ifdef __CUDACC_RTC__
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define KERNEL extern "C" __global__ void
#define DEVICE __device__ __forceinline__

DEVICE u16 bf16_bits(float f) {
  u16 b;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(b) : "f"(f));
  return b;
}

DEVICE u16 half_bits(float f) {
  u16 b;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(b) : "f"(f));
  return b;
}

DEVICE float half_value(u16 b) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(b));
  return f;
}
#endif

#if ELEMENT == 0
typedef float Element;
DEVICE float value(Element e) { return e; }
DEVICE Element rounded(float f) { return f; }
#else
struct Element {
  u16 bits;
};
#if ELEMENT == 1
DEVICE float value(Element e) { return __uint_as_float(static_cast<u32>(e.bits) << 16); }
DEVICE Element rounded(float f) { return {bf16_bits(f)}; }
#else
DEVICE float value(Element e) { return half_value(e.bits); }
DEVICE Element rounded(float f) { return {half_bits(f)}; }
#endif
#endif

// A pack is what one load of 16 bytes holds.
constexpr int kPack = 16 / sizeof(Element);

// load reads N elements: 1, or a pack, whose address must be a multiple of 16.
template <int N>
DEVICE void load(const Element* p, float* to) {
  if constexpr (N == 1) {
    to[0] = value(p[0]);
  } else {
    const uint4 v = *reinterpret_cast<const uint4*>(p);
    const u32 words[4] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4; i++) {
#if ELEMENT == 0
      to[i] = __uint_as_float(words[i]);
#else
      to[2 * i] = value({static_cast<u16>(words[i])});
      to[2 * i + 1] = value({static_cast<u16>(words[i] >> 16)});
#endif
    }
  }
}

template <int N>
DEVICE void store(Element* p, const float* from) {
  if constexpr (N == 1) {
    p[0] = rounded(from[0]);
  } else {
    u32 words[4];
    for (int i = 0; i < 4; i++) {
#if ELEMENT == 0
      words[i] = __float_as_uint(from[i]);
#else
      words[i] = rounded(from[2 * i]).bits | static_cast<u32>(rounded(from[2 * i + 1]).bits) << 16;
#endif
    }
    *reinterpret_cast<uint4*>(p) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

// aligned is whether all of the addresses are multiples of 16.
template <class... P>
DEVICE bool aligned(const P*... p) {
  return ((reinterpret_cast<u64>(p) | ...) & 15) == 0;
}

DEVICE i64 first_index() { return blockIdx.x * static_cast<i64>(blockDim.x) + threadIdx.x; }
DEVICE i64 index_step() { return gridDim.x * static_cast<i64>(blockDim.x); }

template <int N>
struct Width {
  static constexpr int value = N;
};

// in_packs calls each(place, Width<N>) for n elements: for packs where wide allows, then for those that are left.
template <class F>
DEVICE void in_packs(i64 n, bool wide, const F& each) {
  const i64 packs = wide ? n / kPack : 0;
  for (i64 i = first_index(); i < packs; i += index_step()) each(i * kPack, Width<kPack>());
  for (i64 i = packs * kPack + first_index(); i < n; i += index_step()) each(i, Width<1>());
}

DEVICE float warp_sum(float v) {
  for (int o = 16; o; o /= 2) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}

DEVICE float warp_max(float v) {
  for (int o = 16; o; o /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
  return v;
}

// across gives the sum, or the greatest, of what the warps of a block each give; it is the same in every thread and
// run.
DEVICE float across(float v, bool greatest) {
  __shared__ float parts[32];
  __syncthreads();  // what an earlier call left may still be being read
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
  __syncthreads();
  v = parts[0];
  for (u32 i = 1; i < blockDim.x / 32; i++) v = greatest ? fmaxf(v, parts[i]) : v + parts[i];
  return v;
}

// block_sum is the sum of v over a block of whole warps, block_max the greatest.
DEVICE float block_sum(float v) { return across(warp_sum(v), false); }
DEVICE float block_max(float v) { return across(warp_max(v), true); }
