// Activation checkpointing.
//
// Between gp_checkpoint_begin and gp_checkpoint_end, what autograd would save for the backward pass is dropped.
// The first time the backward pass asks for any of it, gpCheckpointRun, exported from Go, runs the same
// operations again under the random and autocast state of the first time, and what they save is handed out.
// Gradients flow through the graph of the first run, so tensors that the block merely refers to (parameters,
// prefixes computed once for all blocks) get theirs as if nothing had been dropped.
#pragma once
#include "shim.h"

#ifdef __cplusplus
extern "C" {
#endif

// inputs (entries may be NULL) are kept alive and handed to gpCheckpointRun. id names the Go function. *frame
// is for gp_checkpoint_end; NULL when there is nothing to do: no recording, or inside another checkpoint.
char* gp_checkpoint_begin(void** frame, gp_tensor* inputs, int n, uint64_t id);
void gp_checkpoint_end(void* frame);
// Moves up to n ids whose graphs are gone to ids and returns how many.
int gp_checkpoint_dead(uint64_t* ids, int n);

#ifdef __cplusplus
}
#endif
