// Weights that lie in the host's memory, in units: what one step of a computation reads. Two units are on the device:
// the one that is computed with, and the one that comes next, which is copied meanwhile.
//
// Conventions are shim.h's.
#pragma once
#include "../shim.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef void* gp_offload;

// device is what the weights are computed on: a GPU, or the CPU, where they are copied at once.
char* gp_offload_new(gp_offload* out, int device);
// Ends it: backward passes that are still to come turn no more.
void gp_offload_free(gp_offload offload);
// Makes a unit of tensors without gaps, which are on the CPU. They are on the device then, and hold their values while
// their unit is turned to. *pinned says whether their contents were copied to pinned memory, so that no more of the
// tensors as they were is read; else they are copied from where they lay, which takes longer.
char* gp_offload_add(gp_offload offload, gp_tensor* ts, int n, int* pinned);
// The bytes on the device.
int64_t gp_offload_held(gp_offload offload);
// What is computed from now on reads unit at; next is copied meanwhile. Lets go of others.
char* gp_offload_turn(gp_offload offload, int64_t at, int64_t next);
// Turns once the backward pass has t's whole gradient.
char* gp_offload_turn_at_gradient(gp_offload offload, gp_tensor t, int64_t at, int64_t next);

#ifdef __cplusplus
}
#endif
