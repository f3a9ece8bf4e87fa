// The path for CPUs with AVX-512.
#include "vec_includes.h"

#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma,f16c")

#define GP_PATH avx512
#define GP_BF16  // and its products in bf16, for those CPUs that have them
#include "vec_avx512.h"
#include "vec_kernels.h"
