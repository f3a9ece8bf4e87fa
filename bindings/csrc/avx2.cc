// The path for CPUs with AVX2, FMA and F16C.
#include "vec_includes.h"

#pragma GCC target("avx2,fma,f16c")

#define GP_PATH avx2
#include "vec_avx2.h"
#include "vec_kernels.h"
