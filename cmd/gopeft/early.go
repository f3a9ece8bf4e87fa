package main

// early.c runs before libtorch's initialisers: it answers `gopeft --help`, which need not wait 0.2 s for them, and keeps
// OpenMP's threads from spinning. It says how. This file holds the compiler flags for it.

// #cgo CFLAGS: -std=c11 -D_GNU_SOURCE -Wall -O2
// extern int stdout_closed;
import "C"

// stdoutClosed reports whether the program began without a standard output. Go's runtime puts the null device in its place.
func stdoutClosed() bool { return C.stdout_closed != 0 }
