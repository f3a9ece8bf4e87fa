// Package launch is the host's side of the GPU kernels in csrc/nvrtc/kernels: which kernel, on how many threads, with which
// arguments. It is C++ in headers alone, for two users: package csrc launches on a GPU's stream, and the tests run the
// same functions with kernels that the CPU emulates.
//
// Go does not see when a header of another package changes. Importing this package, which embeds its headers, makes it.
package launch

import _ "embed"

// Arguments is the source of the structs that kernels take, which stands before the kernels' own.
//
//go:embed arguments.h
var Arguments string

//go:embed launch.h
var _ string

//go:embed quantised.h
var _ string

//go:embed training.h
var _ string
