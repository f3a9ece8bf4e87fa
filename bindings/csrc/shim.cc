#include "shim.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/autocast_mode.h>
#include <c10/core/AutogradState.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>
#if __has_include(<torch/headeronly/version.h>)
#include <torch/headeronly/version.h>
#else
#include <torch/csrc/api/include/torch/version.h>
#endif
#define GP_TORCH (TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR)
#if GP_TORCH >= 209
#include <ATen/DeviceAccelerator.h>
#include <c10/core/CachingDeviceAllocator.h>
#endif

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "guard.h"

using at::Tensor;

namespace {

Tensor& T(gp_tensor t) { return *static_cast<Tensor*>(t); }
Tensor opt(gp_tensor t) { return t ? T(t) : Tensor(); }
#if GP_TORCH >= 204
std::optional<Tensor> maybe(gp_tensor t) { return t ? std::optional<Tensor>(T(t)) : std::nullopt; }
#else
c10::optional<Tensor> maybe(gp_tensor t) { return t ? c10::optional<Tensor>(T(t)) : c10::nullopt; }
#endif
gp_tensor box(Tensor t) { return new Tensor(std::move(t)); }
at::IntArrayRef dims(const int64_t* p, int n) { return at::IntArrayRef(p, static_cast<size_t>(n)); }

c10::Device device_of(int d) {
  return d < 0 ? c10::Device(c10::kCPU) : c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(d));
}

c10::DeviceType type_of(int d) { return d < 0 ? c10::kCPU : c10::kCUDA; }

at::TensorOptions options(int dtype, int device) {
  return at::TensorOptions().dtype(static_cast<at::ScalarType>(dtype)).device(device_of(device));
}

std::vector<Tensor> list(gp_tensor* ts, int n) {
  std::vector<Tensor> v;
  v.reserve(static_cast<size_t>(n));
  for (int i = 0; i < n; i++) v.push_back(T(ts[i]));
  return v;
}

at::Generator generator(int device) {
  return device < 0 ? at::detail::getDefaultCPUGenerator() : at::globalContext().defaultGenerator(device_of(device));
}

}  // namespace

int64_t gp_dim(gp_tensor t) { return T(t).dim(); }

int64_t gp_size(gp_tensor t, int64_t dim) {
  int64_t n = T(t).dim();
  if (dim < 0) dim += n;
  return dim < 0 || dim >= n ? -1 : T(t).sizes()[static_cast<size_t>(dim)];
}

int64_t gp_numel(gp_tensor t) { return T(t).numel(); }
int gp_dtype(gp_tensor t) { return static_cast<int>(T(t).scalar_type()); }
int gp_device(gp_tensor t) { return T(t).is_cuda() ? T(t).get_device() : -1; }
int gp_is_contiguous(gp_tensor t) { return T(t).is_contiguous(); }
int gp_requires_grad(gp_tensor t) { return T(t).requires_grad(); }
int gp_is_leaf(gp_tensor t) { return T(t).is_leaf(); }
void* gp_data(gp_tensor t) { return T(t).data_ptr(); }
int64_t gp_item_size(gp_tensor t) { return static_cast<int64_t>(T(t).element_size()); }

char* gp_from_blob(gp_tensor* out, void* data, const int64_t* sizes, int n, int dtype) {
  GUARD(*out = box(at::from_blob(data, dims(sizes, n), options(dtype, -1)));)
}

char* gp_empty(gp_tensor* out, const int64_t* sizes, int n, int dtype, int device, int pinned) {
  GUARD(*out = box(at::empty(dims(sizes, n), options(dtype, device).pinned_memory(pinned != 0)));)
}

char* gp_full(gp_tensor* out, const int64_t* sizes, int n, double value, int dtype, int device) {
  GUARD(*out = box(at::full(dims(sizes, n), value, options(dtype, device)));)
}

char* gp_arange(gp_tensor* out, int64_t start, int64_t end, int dtype, int device) {
  GUARD(*out = box(at::arange(start, end, options(dtype, device)));)
}

char* gp_uniform_(gp_tensor t, double lo, double hi) { GUARD(c10::NoGradGuard g; T(t).uniform_(lo, hi);) }
char* gp_normal_(gp_tensor t, double mean, double std) { GUARD(c10::NoGradGuard g; T(t).normal_(mean, std);) }

char* gp_to(gp_tensor* out, gp_tensor t, int dtype, int device, int non_blocking) {
  GUARD(*out = box(T(t).to(device_of(device), static_cast<at::ScalarType>(dtype), non_blocking != 0));)
}

char* gp_copy_(gp_tensor dst, gp_tensor src, int non_blocking) {
  GUARD(c10::NoGradGuard g; T(dst).copy_(T(src), non_blocking != 0);)
}

char* gp_read(gp_tensor t, void* dst, int dtype) {
  GUARD(c10::NoGradGuard g; Tensor src = T(t).detach();
        Tensor view = at::from_blob(dst, src.sizes(), options(dtype, -1)); view.copy_(src);)
}

char* gp_add_scalar(gp_tensor* out, gp_tensor a, double v) { GUARD(*out = box(at::add(T(a), v));) }
char* gp_mul_scalar(gp_tensor* out, gp_tensor a, double v) { GUARD(*out = box(at::mul(T(a), v));) }
char* gp_pow_scalar(gp_tensor* out, gp_tensor a, double v) { GUARD(*out = box(at::pow(T(a), v));) }

char* gp_masked_fill(gp_tensor* out, gp_tensor a, gp_tensor mask, double v) {
  GUARD(*out = box(at::masked_fill(T(a), T(mask), v));)
}

char* gp_clamp(gp_tensor* out, gp_tensor a, double lo, double hi) { GUARD(*out = box(at::clamp(T(a), lo, hi));) }

char* gp_compare_scalar(gp_tensor* out, gp_tensor a, int op, double v) {
  GUARD(switch (op) {
    case 0: *out = box(at::lt(T(a), v)); break;
    case 1: *out = box(at::le(T(a), v)); break;
    case 2: *out = box(at::eq(T(a), v)); break;
    case 3: *out = box(at::ne(T(a), v)); break;
    case 4: *out = box(at::ge(T(a), v)); break;
    default: *out = box(at::gt(T(a), v));
  })
}

char* gp_compare(gp_tensor* out, gp_tensor a, int op, gp_tensor b) {
  GUARD(switch (op) {
    case 0: *out = box(at::lt(T(a), T(b))); break;
    case 1: *out = box(at::le(T(a), T(b))); break;
    case 2: *out = box(at::eq(T(a), T(b))); break;
    case 3: *out = box(at::ne(T(a), T(b))); break;
    case 4: *out = box(at::ge(T(a), T(b))); break;
    default: *out = box(at::gt(T(a), T(b)));
  })
}

char* gp_slice(gp_tensor* out, gp_tensor a, int64_t dim, int64_t start, int64_t end, int64_t step) {
  GUARD(*out = box(at::slice(T(a), dim, start, end, step));)
}

char* gp_clone(gp_tensor* out, gp_tensor a) { GUARD(*out = box(T(a).clone());) }

char* gp_attention(gp_tensor* out, gp_tensor q, gp_tensor k, gp_tensor v, gp_tensor mask, double dropout, int causal,
                   double scale, int gqa) {
#if GP_TORCH >= 205
  GUARD(*out = box(at::scaled_dot_product_attention(T(q), T(k), T(v), maybe(mask), dropout, causal != 0, scale, gqa != 0));)
#else
  GUARD(Tensor key = T(k); Tensor value = T(v); if (gqa) {
    int64_t groups = T(q).size(1) / key.size(1);
    key = key.repeat_interleave(groups, 1);
    value = value.repeat_interleave(groups, 1);
  } *out = box(at::scaled_dot_product_attention(T(q), key, value, maybe(mask), dropout, causal != 0, scale));)
#endif
}

char* gp_add_(gp_tensor dst, gp_tensor src, double alpha) { GUARD(c10::NoGradGuard g; T(dst).add_(T(src), alpha);) }
char* gp_mul_scalar_(gp_tensor t, double v) { GUARD(c10::NoGradGuard g; T(t).mul_(v);) }
char* gp_fill_(gp_tensor t, double v) { GUARD(c10::NoGradGuard g; T(t).fill_(v);) }

char* gp_set_requires_grad(gp_tensor t, int on) { GUARD(T(t).set_requires_grad(on != 0);) }

namespace {
// ThisThread makes autograd run a graph where it is asked to, on a GPU too, rather than on a thread of the device:
// modes and a checkpointed block's second run belong to the thread. An engine other than libtorch's own, such as
// checkpoint.cc's, would have no such thread.
struct ThisThread {
  ThisThread() : was(state().get_multithreading_enabled()) { state().set_multithreading_enabled(false); }
  ~ThisThread() { state().set_multithreading_enabled(was); }
  static c10::AutogradState& state() { return c10::AutogradState::get_tls_state(); }
  bool was;
};
}  // namespace

char* gp_backward(gp_tensor loss, gp_tensor grad) {
  GUARD(ThisThread here; T(loss).backward(opt(grad), /*retain_graph=*/false, /*create_graph=*/false);)
}

char* gp_grad_of(gp_tensor* outs, gp_tensor output, gp_tensor grad, gp_tensor* inputs, int n) {
  GUARD(ThisThread here; std::vector<Tensor> seeds; if (grad) seeds.push_back(T(grad));
        auto grads = torch::autograd::grad({T(output)}, list(inputs, n), seeds, false, false, /*allow_unused=*/true);
        for (int i = 0; i < n; i++) outs[i] = grads[static_cast<size_t>(i)].defined()
                                                  ? box(grads[static_cast<size_t>(i)]) : nullptr;)
}

char* gp_get_grad(gp_tensor* out, gp_tensor t) {
  GUARD(const Tensor& g = T(t).grad(); *out = g.defined() ? box(g) : nullptr;)
}

char* gp_set_grad(gp_tensor t, gp_tensor grad) { GUARD(T(t).mutable_grad() = opt(grad);) }

int gp_grad_enabled(void) { return c10::GradMode::is_enabled(); }
void gp_set_grad_enabled(int on) { c10::GradMode::set_enabled(on != 0); }
void* gp_inference_enter(void) { return new c10::InferenceMode(true); }
void gp_inference_leave(void* guard) { delete static_cast<c10::InferenceMode*>(guard); }

void gp_autocast_set(int device, int enabled, int dtype, int* was_enabled, int* was_dtype) {
  namespace ac = at::autocast;
#if GP_TORCH >= 204
  auto type = type_of(device);
  *was_enabled = ac::is_autocast_enabled(type);
  *was_dtype = static_cast<int>(ac::get_autocast_dtype(type));
  ac::set_autocast_enabled(type, enabled != 0);
  ac::set_autocast_dtype(type, static_cast<at::ScalarType>(dtype));
#else
  if (device < 0) {
    *was_enabled = ac::is_cpu_enabled();
    *was_dtype = static_cast<int>(ac::get_autocast_cpu_dtype());
    ac::set_cpu_enabled(enabled != 0);
    ac::set_autocast_cpu_dtype(static_cast<at::ScalarType>(dtype));
  } else {
    *was_enabled = ac::is_enabled();
    *was_dtype = static_cast<int>(ac::get_autocast_gpu_dtype());
    ac::set_enabled(enabled != 0);
    ac::set_autocast_gpu_dtype(static_cast<at::ScalarType>(dtype));
  }
#endif
  // Nesting as Python's autocast counts it: the cast cache lives until the outermost guard leaves.
  if (enabled && !*was_enabled) ac::increment_nesting();
  if (!enabled && *was_enabled && ac::decrement_nesting() == 0) ac::clear_cache();
}

char* gp_seed(uint64_t seed) {
  GUARD(auto set = [&](int device) {
    auto gen = generator(device);
    std::lock_guard<std::mutex> lock(gen.mutex());
    gen.set_current_seed(seed);
  };
        set(-1); if (at::globalContext().hasCUDA()) {
          for (int i = 0; i < static_cast<int>(at::getNumGPUs()); i++) set(i);
        })
}

char* gp_rng_get(gp_tensor* out, int device) {
  GUARD(auto gen = generator(device); std::lock_guard<std::mutex> lock(gen.mutex()); *out = box(gen.get_state());)
}

char* gp_rng_set(gp_tensor state, int device) {
  GUARD(auto gen = generator(device); std::lock_guard<std::mutex> lock(gen.mutex()); gen.set_state(T(state));)
}

int gp_threads(void) { return at::get_num_threads(); }
char* gp_set_threads(int n) { GUARD(at::set_num_threads(n);) }

void gp_set_deterministic(int on) {
  if (on) setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);  // without which libtorch refuses cuBLAS
  at::globalContext().setDeterministicAlgorithms(on != 0, /*warn_only=*/false);
}

void gp_flush_denormal(int on) { at::globalContext().setFlushDenormal(on != 0); }

const char* gp_torch_version(void) { return TORCH_VERSION; }

const char* gp_cpu_capability(void) {
  static const std::string name = at::get_cpu_capability();
  return name.c_str();
}

const char* gp_library_path(void) {
  Dl_info info;
  return dladdr(reinterpret_cast<void*>(&at::get_num_threads), &info) && info.dli_fname ? info.dli_fname : "";
}

int gp_is_cxx11_abi(void) { return _GLIBCXX_USE_CXX11_ABI; }

char* gp_load_library(const char* path) {
  GUARD(if (!dlopen(path, RTLD_NOW | RTLD_GLOBAL)) throw std::runtime_error(dlerror());)
}

char* gp_cuda_count(int* n) {
  GUARD(*n = at::globalContext().hasCUDA() ? static_cast<int>(at::getNumGPUs()) : 0;)
}

// libtorch tells the compute capability in CUDA's headers only; the driver, which libtorch has loaded, needs none.
char* gp_cuda_capability(int device, int* major, int* minor) {
  GUARD(void* driver = dlopen("libcuda.so.1", RTLD_NOW); if (!driver) throw std::runtime_error(dlerror());
        auto init = reinterpret_cast<int (*)(unsigned)>(dlsym(driver, "cuInit"));
        auto get = reinterpret_cast<int (*)(int*, int)>(dlsym(driver, "cuDeviceGet"));
        auto attribute = reinterpret_cast<int (*)(int*, int, int)>(dlsym(driver, "cuDeviceGetAttribute"));
        if (!init || !get || !attribute) throw std::runtime_error("libcuda.so.1 lacks functions");
        const int major_of = 75, minor_of = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
        int handle = 0; int code = init(0); if (!code) code = get(&handle, device);
        if (!code) code = attribute(major, major_of, handle); if (!code) code = attribute(minor, minor_of, handle);
        if (code) throw std::runtime_error("the driver's error " + std::to_string(code));)
}

char* gp_cuda_peak(int device, int64_t* bytes) {
#if GP_TORCH >= 209
  GUARD(*bytes = c10::getDeviceAllocator(c10::kCUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(device)).allocated_bytes[0].peak;)
#else
  *bytes = -1;
  return nullptr;
#endif
}

char* gp_cuda_synchronize(int device) {
#if GP_TORCH >= 209
  GUARD(at::accelerator::synchronizeDevice(static_cast<c10::DeviceIndex>(device));)
#else
  GUARD(at::detail::getCUDAHooks().deviceSynchronize(device);)
#endif
}

// cuDNN's attention makes a plan, for tens of milliseconds and more, whenever a batch has another shape, as buckets and
// decoding always have; some of its versions give NaN with a mask. libtorch's own kernels serve in its place.
void gp_cuda_no_cudnn_attention(void) {
#if GP_TORCH >= 205
  at::globalContext().setSDPUseCuDNN(false);
#endif
}

void gp_cuda_allow_tf32(int on) {
  at::globalContext().setAllowTF32CuBLAS(on != 0);
  at::globalContext().setAllowTF32CuDNN(on != 0);
}

// The fused step's arithmetic for one tensor, op by op.
static void adam_step(Tensor& p, Tensor g, Tensor& m, Tensor& v, double step, double lr, double beta1, double beta2,
                      double weight_decay, double eps, bool decoupled) {
  if (weight_decay != 0 && decoupled) p.mul_(1 - lr * weight_decay);
  if (weight_decay != 0 && !decoupled) g = g.add(p, weight_decay);
  m.lerp_(g, 1 - beta1);
  v.mul_(beta2).addcmul_(g, g, 1 - beta2);
  double bias1 = 1 - std::pow(beta1, step), bias2 = 1 - std::pow(beta2, step);
  p.addcdiv_(m, v.sqrt().div_(std::sqrt(bias2)).add_(eps), -lr / bias1);
}

char* gp_adam_step(gp_tensor* params, gp_tensor* grads, gp_tensor* m, gp_tensor* v, gp_tensor* steps, int n, double lr,
                   double beta1, double beta2, double weight_decay, double eps, int decoupled, int fused) {
#if GP_TORCH < 204  // has the fused step on GPUs only
  if (n > 0 && !T(params[0]).is_cuda()) fused = 0;
#endif
  if (!fused) {
    GUARD(c10::NoGradGuard guard; for (int i = 0; i < n; i++) {
      adam_step(T(params[i]), T(grads[i]), T(m[i]), T(v[i]), T(steps[i]).item<double>(), lr, beta1, beta2, weight_decay, eps,
                decoupled != 0);
    })
  }
  GUARD(c10::NoGradGuard guard; auto p = list(params, n), g = list(grads, n), first = list(m, n), second = list(v, n),
                                    s = list(steps, n);
        std::vector<Tensor> none; if (decoupled) {
          at::_fused_adamw_(p, g, first, second, none, s, lr, beta1, beta2, weight_decay, eps, false, false);
        } else { at::_fused_adam_(p, g, first, second, none, s, lr, beta1, beta2, weight_decay, eps, false, false); })
}

char* gp_sgd_step(gp_tensor* params, gp_tensor* grads, gp_tensor* momentum_buffers, int n, double lr, double momentum,
                  double weight_decay, int first) {
  GUARD(c10::NoGradGuard guard; for (int i = 0; i < n; i++) {
    Tensor g = T(grads[i]);
    if (weight_decay != 0) g = g.add(T(params[i]), weight_decay);
    if (momentum != 0) {
      Tensor& b = T(momentum_buffers[i]);
      if (first) b.copy_(g); else b.mul_(momentum).add_(g);
      g = b;
    }
    T(params[i]).add_(g, -lr);
  })
}

char* gp_unscale(gp_tensor* grads, int n, gp_tensor found_inf, gp_tensor inv_scale) {
  GUARD(c10::NoGradGuard guard; auto g = list(grads, n);
        at::_amp_foreach_non_finite_check_and_unscale_(g, T(found_inf), T(inv_scale));)
}

char* gp_update_scale(gp_tensor scale, gp_tensor growth_tracker, gp_tensor found_inf, double growth, double backoff,
                      int64_t interval) {
  GUARD(c10::NoGradGuard guard;
        at::_amp_update_scale_(T(scale), T(growth_tracker), T(found_inf), growth, backoff, interval);)
}

char* gp_norm(gp_tensor* ts, int n, double* total) {
#if GP_TORCH >= 204
  GUARD(c10::NoGradGuard guard; if (n == 0) { *total = 0; return nullptr; }
        auto norms = at::_foreach_norm(list(ts, n), 2, at::kFloat);
        *total = at::linalg_vector_norm(at::stack(norms)).item<double>();)
#else
  GUARD(c10::NoGradGuard guard; if (n == 0) { *total = 0; return nullptr; }
        std::vector<Tensor> norms; for (int i = 0; i < n; i++) {
          norms.push_back(at::linalg_vector_norm(T(ts[i]), 2, {}, false, at::kFloat));
        } *total = at::linalg_vector_norm(at::stack(norms)).item<double>();)
#endif
}

// all_finite looks at a tensor in pieces: isfinite makes temporaries larger than what it reads.
static bool all_finite(const Tensor& t) {
  constexpr int64_t kPiece = 1 << 20;
  if (!t.is_contiguous() || t.numel() <= kPiece) return at::isfinite(t).all().item<bool>();
  const Tensor flat = t.view({-1});
  for (int64_t first = 0; first < flat.numel(); first += kPiece)
    if (!at::isfinite(flat.narrow(0, first, std::min(kPiece, flat.numel() - first))).all().item<bool>()) return false;
  return true;
}

char* gp_first_nonfinite(gp_tensor* ts, int n, int* index) {
  GUARD(c10::NoGradGuard guard; *index = -1; for (int i = 0; i < n && *index < 0; i++) {
    if (!all_finite(T(ts[i]))) *index = i;
  })
}

char* gp_scale_all_(gp_tensor* ts, int n, double factor) {
  GUARD(c10::NoGradGuard guard; auto l = list(ts, n); if (n) at::_foreach_mul_(l, factor);)
}

char* gp_add_all_(gp_tensor* ts, int n, double v) {
  GUARD(c10::NoGradGuard guard; auto l = list(ts, n); if (n) at::_foreach_add_(l, v);)
}
