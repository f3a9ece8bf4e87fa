// The machine: random numbers, threads, libtorch itself, and its GPUs.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <dlfcn.h>

#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <string>

#include "handles.h"
#include "libtorch.h"

using gp::give;
using gp::guarded;
using gp::T;

namespace {

at::Generator generator(int device) {
  return device < 0 ? at::detail::getDefaultCPUGenerator()
                    : at::globalContext().defaultGenerator(gp::device_of(device));
}

void seed_one(int device, uint64_t seed) {
  auto gen = generator(device);
  std::lock_guard<std::mutex> lock(gen.mutex());
  gen.set_current_seed(seed);
}

int gpus() { return at::globalContext().hasCUDA() ? static_cast<int>(at::getNumGPUs()) : 0; }

// function is one of a library's functions, NULL where it has none of that name.
template <class F>
F* function(void* library, const char* name) {
  return reinterpret_cast<F*>(dlsym(library, name));
}

}  // namespace

char* gp_seed(uint64_t seed) {
  return guarded([&] {
    seed_one(-1, seed);
    for (int i = 0; i < gpus(); i++) seed_one(i, seed);
  });
}

char* gp_rng_get(gp_tensor* out, int device) {
  return give(out, [&] {
    auto gen = generator(device);
    std::lock_guard<std::mutex> lock(gen.mutex());
    return gen.get_state();
  });
}

char* gp_rng_set(gp_tensor state, int device) {
  return guarded([&] {
    auto gen = generator(device);
    std::lock_guard<std::mutex> lock(gen.mutex());
    gen.set_state(T(state));
  });
}

int gp_threads(void) { return at::get_num_threads(); }

char* gp_set_threads(int n) {
  return guarded([&] { at::set_num_threads(n); });
}

void gp_set_deterministic(gp_bool on) {
  if (on) setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);  // without which libtorch refuses cuBLAS
  at::globalContext().setDeterministicAlgorithms(on != 0, /*warn_only=*/false);
}

void gp_flush_denormal(gp_bool on) { at::globalContext().setFlushDenormal(on != 0); }

const char* gp_torch_version(void) { return TORCH_VERSION; }

const char* gp_cpu_capability(void) {
  static const std::string name = at::get_cpu_capability();
  return name.c_str();
}

const char* gp_library_path(void) {
  Dl_info info;
  return dladdr(reinterpret_cast<void*>(&at::get_num_threads), &info) && info.dli_fname ? info.dli_fname : "";
}

gp_bool gp_is_cxx11_abi(void) { return _GLIBCXX_USE_CXX11_ABI; }

char* gp_load_library(const char* path) {
  return guarded([&] {
    if (!dlopen(path, RTLD_NOW | RTLD_GLOBAL)) throw std::runtime_error(dlerror());
  });
}

char* gp_cuda_count(int* n) {
  return guarded([&] { *n = gpus(); });
}

// libtorch tells the compute capability in CUDA's headers only; the driver, which libtorch has loaded, needs none.
char* gp_cuda_capability(int device, int* major, int* minor) {
  return guarded([&] {
    void* driver = dlopen("libcuda.so.1", RTLD_NOW);
    if (!driver) throw std::runtime_error(dlerror());
    auto* init = function<int(unsigned)>(driver, "cuInit");
    auto* get = function<int(int*, int)>(driver, "cuDeviceGet");
    auto* attribute = function<int(int*, int, int)>(driver, "cuDeviceGetAttribute");
    if (!init || !get || !attribute) throw std::runtime_error("libcuda.so.1 lacks functions");
    const int major_of = 75, minor_of = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
    int handle = 0, code = init(0);
    if (!code) code = get(&handle, device);
    if (!code) code = attribute(major, major_of, handle);
    if (!code) code = attribute(minor, minor_of, handle);
    if (code) throw std::runtime_error("the driver's error " + std::to_string(code));
  });
}

char* gp_cuda_peak(int device, int64_t* bytes) {
  return guarded([&] { *bytes = gp::cuda_peak(device); });
}

char* gp_cuda_synchronize(int device) {
  return guarded([&] { gp::cuda_synchronize(device); });
}

// cuDNN's attention makes a plan, for tens of milliseconds and more, whenever a batch has another shape, as buckets and
// decoding always have; some of its versions give NaN with a mask. libtorch's own kernels serve in its place.
void gp_cuda_no_cudnn_attention(void) { gp::use_cudnn_attention(false); }

void gp_cuda_allow_tf32(gp_bool on) {
  at::globalContext().setAllowTF32CuBLAS(on != 0);
  at::globalContext().setAllowTF32CuDNN(on != 0);
}
