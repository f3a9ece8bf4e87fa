#include "gpu_driver.h"

#include <dlfcn.h>

#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace gp {
namespace {

// The driver's types and functions, as cuda.h has them: its library comes with the driver, its header does not.
using Context = void*;
using Module = void*;
using Function = void*;

struct Driver {
  int (*init)(unsigned flags);
  int (*device)(int* device, int ordinal);
  int (*retain)(Context* context, int device);
  int (*push)(Context context);
  int (*pop)(Context* context);
  int (*load)(Module* module, const void* image);
  int (*function)(Function* f, Module module, const char* name);
  int (*launch)(Function f, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                unsigned block_z, unsigned shared_bytes, void* stream, void** arguments, void** extra);
  int (*error)(int result, const char** name);

  // libtorch's stream of a device that operations go to now.
  int (*current_stream)(int32_t device, void** stream);

  Driver() {
    void* cuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    TORCH_CHECK(cuda, "NVIDIA's driver: ", dlerror());
    find(cuda, "cuInit", &init);
    find(cuda, "cuDeviceGet", &device);
    find(cuda, "cuDevicePrimaryCtxRetain", &retain);
    find(cuda, "cuCtxPushCurrent_v2", &push);
    find(cuda, "cuCtxPopCurrent_v2", &pop);
    find(cuda, "cuModuleLoadData", &load);
    find(cuda, "cuModuleGetFunction", &function);
    find(cuda, "cuLaunchKernel", &launch);
    find(cuda, "cuGetErrorName", &error);
    void* torch = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_NOLOAD);
    TORCH_CHECK(torch, "libtorch's CUDA part is not loaded");
    find(torch, "aoti_torch_get_current_cuda_stream", &current_stream);
    check(init(0), "start");
  }

  template <class F>
  static void find(void* library, const char* name, F** to) {
    *to = reinterpret_cast<F*>(dlsym(library, name));
    TORCH_CHECK(*to, "there is no function ", name);
  }

  void check(int result, const std::string& doing) const {
    if (result == 0) return;
    const char* name = nullptr;
    error(result, &name);
    TORCH_CHECK(false, doing, ": ", name ? name : std::to_string(result).c_str());
  }
};

const Driver& driver() {
  static const Driver d;
  return d;
}

// Current makes a context the calling thread's while it lives: that of the tensors' device need not be.
class Current {
 public:
  explicit Current(Context c) { driver().check(driver().push(c), "enter the GPU's context"); }
  ~Current() {
    Context was;
    driver().pop(&was);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;
};

// Kernels are those of one device and element type.
struct Kernels {
  Context context = nullptr;
  std::vector<Module> modules;
  std::map<std::string, Function, std::less<>> functions;
};

// Loaded are the kernels of the process, which autograd's threads look up too.
struct Loaded {
  std::mutex mutex;
  std::map<std::pair<int, at::ScalarType>, Kernels> kernels;
};

Loaded& loaded() {
  static Loaded l;
  return l;
}

// kernels_of are those for an element type on a device; they stay where they are once they are there.
Kernels& kernels_of(int device, at::ScalarType element) {
  Loaded& l = loaded();
  const std::lock_guard<std::mutex> lock(l.mutex);
  const auto k = l.kernels.find({device, element});
  TORCH_CHECK(k != l.kernels.end(), "no GPU kernels are loaded for ", element, " on GPU ", device);
  return k->second;
}

// find gives a kernel's function, which it looks for in the modules at first.
Function find(Kernels& k, const char* name) {
  const std::lock_guard<std::mutex> lock(loaded().mutex);
  if (const auto known = k.functions.find(name); known != k.functions.end()) return known->second;
  for (Module m : k.modules) {
    Function f = nullptr;
    if (driver().function(&f, m, name) == 0) return k.functions[name] = f;
  }
  TORCH_CHECK(false, "GPU kernel ", name, " is not loaded");
}

}  // namespace

void load_kernels(int device, at::ScalarType element, const void* code) {
  const Driver& d = driver();
  int number = 0;
  Context context = nullptr;
  d.check(d.device(&number, device), "open the GPU");
  d.check(d.retain(&context, number), "open the GPU's context");
  const Current current(context);
  Module module = nullptr;
  d.check(d.load(&module, code), "load GPU kernels");
  Loaded& l = loaded();
  const std::lock_guard<std::mutex> lock(l.mutex);
  Kernels& k = l.kernels[{device, element}];
  if (!k.context) k.context = context;
  k.modules.push_back(module);
}

bool has_gpu_kernels(const at::Device& device, at::ScalarType element) {
  if (!device.is_cuda()) return false;
  Loaded& l = loaded();
  const std::lock_guard<std::mutex> lock(l.mutex);
  return l.kernels.count({device.index(), element}) > 0;
}

Stream::Stream(const at::Device& device, at::ScalarType element)
    : device_(device.index()), element_(element), stream_(nullptr) {
  TORCH_CHECK(device.is_cuda(), "GPU kernels are for tensors on a GPU");
  TORCH_CHECK(driver().current_stream(device_, &stream_) == 0, "libtorch gives no stream of GPU ", device_);
}

void Stream::run(const launch::Call& call) {
  Kernels& k = kernels_of(device_, element_);
  const Current current(k.context);
  const auto size = [](int64_t n) { return static_cast<unsigned>(n); };
  driver().check(driver().launch(find(k, call.kernel), size(call.blocks_x), size(call.blocks_y), 1, size(call.threads),
                                 1, 1, 0, stream_, call.arguments, nullptr),
                 std::string("launch GPU kernel ") + call.kernel);
}

}  // namespace gp
