// What this CPU's instructions serve.
#include "fused.h"
#include "gemm.h"

namespace gp {

bool has_avx512() {
  static const bool yes = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return yes;
}

bool has_avx512_bf16() {
  static const bool yes = has_avx512() && __builtin_cpu_supports("avx512bf16");
  return yes;
}

}  // namespace gp

gp_bool gp_fusable(gp_tensor a, gp_tensor b, gp_tensor c, gp_tensor d) {
  const gp::Autocast cast = gp::autocast(c10::kCPU);
  bool low = cast.enabled;
  for (gp_tensor p : {a, b, c, d}) {
    if (!p) continue;
    const at::Tensor& t = gp::T(p);
    const auto type = t.scalar_type();
    if (!t.is_cpu() || (type != at::kFloat && type != at::kBFloat16) || t.layout() != at::kStrided) return 0;
    low = low || type == at::kBFloat16;
  }
  if (cast.enabled && cast.dtype != at::kBFloat16) return 0;
  return low ? gp::has_avx512_bf16() : gp::has_avx512();
}
