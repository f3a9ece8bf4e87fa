// See limited.c.
#ifndef GOPEFT_LIMITED_H
#define GOPEFT_LIMITED_H

// Returns in the process that is to run the program: 1 if another watches it. With debug an end for want of memory is
// shown as it is.
int watch_where_memory_is_limited(int debug);

#endif
