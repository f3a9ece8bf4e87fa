// NVIDIA's run-time compiler, found by dlopen: its few functions are declared here, so that no CUDA header is needed.
#pragma once
#include <stddef.h>

// A compiler is an open library; it stays open as long as the process.
typedef struct compiler compiler;

// compiler_open opens the library at path, and beside it the part that nvrtc otherwise looks for on the system's paths.
// Functions that return char* return NULL, or a message that the caller frees.
char* compiler_open(const char* path, compiler** out, int* major, int* minor);

// compiler_supports is whether code for an architecture, 80 for sm_80, can be made.
int compiler_supports(const compiler* c, int architecture);

// compiler_compile compiles a source to a cubin, or to PTX. code and log are the caller's to free; log is what the
// compiler said, which is also set where it fails.
char* compiler_compile(const compiler* c, const char* source, const char* const* options, int n, int ptx, void** code,
                       size_t* bytes, char** log);
