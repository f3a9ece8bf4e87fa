// The processes of one run: libtorch's own c10d. A store (TCPStore) is where they meet and leave each other words; a
// group computes together: Gloo on CPUs, NCCL on GPUs.
//
// Conventions are shim.h's. Every rank makes the same calls on a group in the same order with tensors of the same
// sizes: where they differ Gloo ends the process, so ranks agree on sizes first. A store may be used from any thread;
// each call on it waits for the one before, so what must not wait has a store of its own.
#pragma once
#include "../shim.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef void* gp_store;
typedef void* gp_group;
typedef void* gp_work;       // an operation under way; it owns what it works on
typedef void* gp_shards;     // weights of which each rank holds its part
typedef void* gp_gradients;  // the gradients of some parameters, summed over the ranks
typedef void* gp_parts;      // the same, of which each rank keeps its part

// Keeps libtorch's distributed part from logging to standard error, where its lines come with C++ stacks.
void gp_c10d_quiet(void);

// Opens the store at host:port. serve: 0 connects to it, 1 serves it there, 2 serves it on the listening socket fd.
// prefix is put before every key. An operation fails after timeout_ms.
char* gp_store_open(gp_store* out, const char* host, int port, int serve, int fd, const char* prefix,
                    int64_t timeout_ms);
void gp_store_close(gp_store store);
char* gp_store_set(gp_store store, const char* key, const void* value, int64_t length);
// *out is memory of malloc's that the caller frees, NULL where there is no such key.
char* gp_store_get(gp_store store, const char* key, void** out, int64_t* length);

// Makes a group of Gloo's. address is what this process listens on for its peers; "" lets GLOO_SOCKET_IFNAME, else the
// host's name, decide. All ranks must call it within the timeout, which is also that of every operation.
char* gp_group_gloo(gp_group* out, gp_store store, const char* address, int rank, int size, int64_t timeout_ms);
// Adds NCCL for the tensors on GPUs, of libtorch's CUDA part, which must be loaded.
char* gp_group_add_nccl(gp_group group, gp_store store, int rank, int size, int64_t timeout_ms);
// Ends this process's part. It waits for operations under way.
char* gp_group_leave(gp_group group);

// These work in place, beside the caller, until gp_work_wait.
char* gp_group_sum(gp_work* out, gp_group group, gp_tensor t);
char* gp_group_broadcast(gp_work* out, gp_group group, gp_tensor t, int root);
// whole is [size, …] of part.
char* gp_group_gather(gp_work* out, gp_group group, gp_tensor whole, gp_tensor part);
// Waits at most ms milliseconds; *done says whether it is over. A failure is returned once it is.
char* gp_work_wait(gp_work work, int64_t ms, int* done);
void gp_work_free(gp_work work);

// Gathers the gradients of params in flat buckets of at most cap bytes (0: one for each dtype), the last parameter's
// first, about the order in which a backward pass makes them. A bucket is summed over the ranks as soon as all of its
// gradients are there, while the pass goes on.
char* gp_gradients_new(gp_gradients* out, gp_group group, gp_tensor* params, int n, int64_t cap);
void gp_gradients_free(gp_gradients g);
// begin makes all gradients zero, before a step's first backward pass; last says that the next pass is the step's last.
char* gp_gradients_begin(gp_gradients g);
char* gp_gradients_last(gp_gradients g);
// end starts what has not started; a parameter that got no gradient counts as zero.
char* gp_gradients_end(gp_gradients g);
// Waits as gp_work_wait does. Once done, a parameter that got a gradient on no rank has none.
char* gp_gradients_wait(gp_gradients g, int64_t ms, int* done);

// Sums the gradients of params over the ranks in the same buckets, of which each rank keeps its part: of parameter i,
// laid flat, own[i] in its dtype, from[i] elements behind its beginning. Whole are only those of two buckets at a time.
// Every pass of a step is summed as it runs, and added. All ranks make the same passes.
char* gp_parts_new(gp_parts* out, gp_group group, gp_tensor* params, gp_tensor* own, const int64_t* from, int n,
                   int64_t cap);
void gp_parts_free(gp_parts parts);
// Makes all parts zero, before a step's first backward pass.
char* gp_parts_begin(gp_parts parts);
// Sums what a backward pass left unsummed. Waits at most about ms milliseconds; to be called again until *done.
char* gp_parts_pass(gp_parts parts, int64_t ms, int* done);
// came[i] says whether parameter i got a gradient on any rank in the step.
void gp_parts_came(gp_parts parts, int* came);

// Lets what waits in the group's shards end with an error, from any thread.
void gp_group_give_up(gp_group group);
// What the group's shards have come to: whether one has failed, how many times a unit was asked for, and how long that
// was waited for. From any thread.
void gp_group_shared(gp_group group, int* broken, int64_t* begun, int64_t* waited_ns);

// Holds weights in units, each of which a step of a computation reads whole: each of size ranks keeps an equal
// part.
char* gp_shards_new(gp_shards* out, int rank, int size);
// Ends it: backward passes that are still to come turn no more.
void gp_shards_free(gp_shards shards);
// Makes a unit of tensors without gaps. Of their contents this rank's part is copied to the device; the tensors are
// then on it, and hold their values while their unit is turned to. Elsewhere these are not to be read.
char* gp_shards_add(gp_shards shards, int device, gp_tensor* ts, int n);
// Names the group whose ranks hold the other parts. Every rank has units of the same sizes, and turns to them in the
// same order among its other operations.
void gp_shards_join(gp_shards shards, gp_group group);
// The bytes that this rank keeps of all units.
int64_t gp_shards_held(gp_shards shards);
// The elements of a unit's tensor, laid flat, that a rank keeps: n from the one numbered from.
char* gp_shards_span(gp_shards shards, int64_t unit, int64_t tensor, int rank, int64_t* from, int64_t* n);
// Begins to gather two units, lets go of the others, and returns once the first is whole.
char* gp_shards_turn(gp_shards shards, int64_t at, int64_t next);
// Turns once the backward pass has t's whole gradient.
char* gp_shards_turn_at_gradient(gp_shards shards, gp_tensor t, int64_t at, int64_t next);

// A number that two lists of tensors share only where they hold the same bits.
char* gp_tensors_hash(uint64_t* out, gp_tensor* ts, int n);

#ifdef __cplusplus
}
#endif
