// IEEE half precision in software: compilers of g++ 9's age have no type for it.
#include "device.h"

float half_value(u16 b) {
  const u32 sign = static_cast<u32>(b & 0x8000) << 16, exponent = b >> 10 & 31, fraction = b & 1023;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000 | fraction << 13);
  if (exponent == 0) {
    const float small = std::ldexp(static_cast<float>(fraction), -24);
    return sign ? -small : small;
  }
  return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
}

u16 half_bits(float f) {
  const u16 sign = static_cast<u16>(__float_as_uint(f) >> 16 & 0x8000);
  const float size = std::fabs(f);
  if (f != f) return 0x7fff;
  if (size >= 65520) return sign | 0x7c00;
  if (size < 6.103515625e-05f)  // below the least normal number halves are multiples of 2^-24
    return static_cast<u16>(sign | static_cast<u16>(std::nearbyint(std::ldexp(size, 24))));
  const u32 v = __float_as_uint(size);
  return static_cast<u16>(sign | ((v - (112u << 23) + 0xfff + (v >> 13 & 1)) >> 13));
}
