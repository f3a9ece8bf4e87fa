package main

// Loading libtorch takes a quarter of a second, all of it in the initialisers that register its operators. early.c
// lets what needs none of them, such as `gopeft --help`, run before.

// #cgo CFLAGS: -std=c11 -Wall -O2
import "C"
