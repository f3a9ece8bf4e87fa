// The path for CPUs with AVX2 and FMA.
#include "vec_includes.h"

#pragma GCC target("avx2,fma")

#define GP_PATH avx2
#include "vec_avx2.h"
#include "vec_kernels.h"
