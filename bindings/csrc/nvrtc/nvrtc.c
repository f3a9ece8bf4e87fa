#include "nvrtc.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void* program;

struct compiler {
  int (*version)(int* major, int* minor);
  int (*count)(int* n);
  int (*architectures)(int* all);
  int (*create)(program* p, const char* source, const char* name, int n, const char* const* headers,
                const char* const* names);
  int (*compile)(program p, int n, const char* const* options);
  int (*destroy)(program* p);
  int (*log_size)(program p, size_t* bytes);
  int (*log)(program p, char* to);
  int (*ptx_size)(program p, size_t* bytes);
  int (*ptx)(program p, char* to);
  int (*cubin_size)(program p, size_t* bytes);
  int (*cubin)(program p, char* to);
  const char* (*reason)(int result);
};

static char* failed(const char* doing, const char* why) {
  char* message = NULL;
  if (asprintf(&message, "%s: %s", doing, why) < 0) return strdup("no memory");
  return message;
}

// find looks one function up; the first that is missing stays in *missing.
static void find(void* library, const char* name, void* function, const char** missing) {
  void* p = dlsym(library, name);
  if (!p && !*missing) *missing = name;
  memcpy(function, &p, sizeof p);
}

// open_builtins opens what nvrtc itself would open by name alone.
static void open_builtins(const char* path, int major, int minor) {
  const char* slash = strrchr(path, '/');
  char* file = NULL;
  if (!slash || asprintf(&file, "%.*s/libnvrtc-builtins.so.%d.%d", (int)(slash - path), path, major, minor) < 0) return;
  dlopen(file, RTLD_NOW | RTLD_LOCAL);
  free(file);
}

char* compiler_open(const char* path, compiler** out, int* major, int* minor) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return failed("open NVRTC", dlerror());
  compiler* c = calloc(1, sizeof *c);
  if (!c) return failed("open NVRTC", "no memory");
  const char* missing = NULL;
  find(library, "nvrtcVersion", &c->version, &missing);
  find(library, "nvrtcGetNumSupportedArchs", &c->count, &missing);
  find(library, "nvrtcGetSupportedArchs", &c->architectures, &missing);
  find(library, "nvrtcCreateProgram", &c->create, &missing);
  find(library, "nvrtcCompileProgram", &c->compile, &missing);
  find(library, "nvrtcDestroyProgram", &c->destroy, &missing);
  find(library, "nvrtcGetProgramLogSize", &c->log_size, &missing);
  find(library, "nvrtcGetProgramLog", &c->log, &missing);
  find(library, "nvrtcGetPTXSize", &c->ptx_size, &missing);
  find(library, "nvrtcGetPTX", &c->ptx, &missing);
  find(library, "nvrtcGetCUBINSize", &c->cubin_size, &missing);
  find(library, "nvrtcGetCUBIN", &c->cubin, &missing);
  find(library, "nvrtcGetErrorString", &c->reason, &missing);
  if (missing || c->version(major, minor) != 0) {
    free(c);
    return failed(path, missing ? missing : "no version");
  }
  open_builtins(path, *major, *minor);
  *out = c;
  return NULL;
}

int compiler_supports(const compiler* c, int architecture) {
  int n = 0, found = 0;
  if (c->count(&n) != 0 || n <= 0) return 0;
  int* all = calloc((size_t)n, sizeof *all);
  if (all && c->architectures(all) == 0)
    for (int i = 0; i < n; i++) found |= all[i] == architecture;
  free(all);
  return found;
}

// taken reads one of a program's results, with a zero after it.
static void* taken(program p, int (*size)(program, size_t*), int (*read)(program, char*), size_t* bytes) {
  if (size(p, bytes) != 0) return NULL;
  char* to = calloc(1, *bytes + 1);
  if (to && read(p, to) == 0) return to;
  free(to);
  return NULL;
}

char* compiler_compile(const compiler* c, const char* source, const char* const* options, int n, int ptx, void** code,
                       size_t* bytes, char** log) {
  program p = NULL;
  int result = c->create(&p, source, "gopeft.cu", 0, NULL, NULL);
  if (result != 0) return failed("compile GPU kernels", c->reason(result));
  result = c->compile(p, n, options);
  size_t length = 0;
  *log = taken(p, c->log_size, c->log, &length);
  if (result == 0) *code = taken(p, ptx ? c->ptx_size : c->cubin_size, ptx ? c->ptx : c->cubin, bytes);
  c->destroy(&p);
  if (result != 0) return failed("compile GPU kernels", c->reason(result));
  return *code && *bytes > 0 ? NULL : failed("compile GPU kernels", "the compiler gave no code");
}
