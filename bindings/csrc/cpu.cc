// What this CPU's instructions serve.
#include <cpuid.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "fused.h"
#include "kernel_table.h"

namespace gp {
namespace {

bool has_f16c() {  // which __builtin_cpu_supports knows only since GCC 11
  unsigned a, b, c, d;
  return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

struct Path {
  const char* name;
  bool (*runs)();  // whether the CPU has what it needs
  const Kernels* kernels;
};

// The best is first.
const Path kPaths[] = {
    {"avx512",
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
     },
     &avx512::kTable},
    {"avx2", [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); },
     &avx2::kTable},
    {"none", [] { return true; }, nullptr},
};

// Choice is the path to use, and what is wrong with the one that was asked for.
struct Choice {
  const Path* path;
  std::string error;
};

Choice choose(const char* asked) {
  const Path* best = kPaths;
  while (!best->runs()) best++;
  if (!asked || !*asked) return {best, ""};
  for (const Path& p : kPaths) {
    if (std::strcmp(p.name, asked) != 0) continue;
    if (p.runs()) return {&p, ""};
    return {best, std::string("this CPU cannot; its best is ") + best->name};
  }
  return {best, "known are avx512, avx2 and none"};
}

const Choice& choice() {
  static const Choice c = choose(std::getenv("GOPEFT_CPU"));
  return c;
}

}  // namespace

const Kernels& kernels() { return *choice().path->kernels; }

bool has_avx512() { return choice().path->kernels == &avx512::kTable; }

bool has_kernels() { return choice().path->kernels != nullptr; }

bool has_bf16_kernels() {
  static const bool yes = has_avx512() && __builtin_cpu_supports("avx512bf16");
  return yes;
}

}  // namespace gp

const char* gp_cpu_path(void) { return gp::choice().path->name; }

char* gp_cpu_path_check(void) {
  const std::string& error = gp::choice().error;
  return error.empty() ? nullptr : strdup(error.c_str());
}

gp_bool gp_fusable(gp_tensor a, gp_tensor b, gp_tensor c, gp_tensor d) {
  const gp::Autocast cast = gp::autocast(c10::kCPU);
  // Products are in bf16 if a is. The fp32 kernels for AVX-512 write other bf16 with instructions for it, too.
  const bool any = gp::has_avx512();
  bool low = cast.enabled;
  for (gp_tensor p : {a, b, c, d}) {
    if (!p) continue;
    const at::Tensor& t = gp::T(p);
    const auto type = t.scalar_type();
    if (!t.is_cpu() || (type != at::kFloat && type != at::kBFloat16) || t.layout() != at::kStrided) return 0;
    low = low || (type == at::kBFloat16 && (p == a || any));
  }
  if (cast.enabled && cast.dtype != at::kBFloat16) return 0;
  return low ? gp::has_bf16_kernels() : gp::has_kernels();
}
