// A device whose two lanes run at once, for the order of copies and of what computes with them.
#pragma once
#ifdef __cplusplus
extern "C" {
#endif

// Issues turns, each a pair of a unit to compute with and the one that comes next, and lets the lanes run what that
// gives in a random order that their marks allow. forget: 1 has the computing lane wait for nothing, 2 the copying
// lane. Returns what went wrong, which the caller frees, or NULL.
char* lanes_run(unsigned seed, int units, const int* turns, int n, int forget);

#ifdef __cplusplus
}
#endif
