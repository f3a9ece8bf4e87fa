// Mapped memory whose pages are asked for before they are computed with and given back afterwards, in units: what one
// step of a computation reads. Giving back drops pages of the mapping, which are read from the file again when touched,
// so nobody may have written to them.
//
// Conventions are shim.h's.
#pragma once
#include "../shim.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef void* gp_pager;

char* gp_pager_new(gp_pager* out);
// Ends it: nothing is asked for or given back any more, by what waits for gradients neither.
void gp_pager_free(gp_pager pager);
// Says what the units are: counts[i] ranges of whole pages are unit i's, one unit after the other in starts and sizes.
char* gp_pager_lay(gp_pager pager, const uint64_t* starts, const uint64_t* sizes, const int64_t* counts, int n);
// Asks for two units and gives back the others.
char* gp_pager_turn(gp_pager pager, int64_t at, int64_t next);
// Turns once the backward pass has t's whole gradient.
char* gp_pager_turn_at_gradient(gp_pager pager, gp_tensor t, int64_t at, int64_t next);

#ifdef __cplusplus
}
#endif
