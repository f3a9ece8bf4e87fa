// Everything that the vector code uses and that is not vector code: it has to be read before the compiler is told of a
// path's instructions, or its inline functions, of which the program keeps one copy, would hold them.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>

#include "attention.h"
#include "dropout.h"
#include "gemm.h"
#include "kernel_table.h"
#include "parallel.h"
#include "quant.h"
#include "typed.h"
