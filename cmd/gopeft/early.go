package main

// early.c runs `gopeft --help` before libtorch's initialisers, which take 0.2 s; it says how. This file holds the
// compiler flags for it.

// #cgo CFLAGS: -std=c11 -Wall -O2
import "C"
