// Package nvrtc compiles the project's GPU kernels when a GPU is there to run them, by NVIDIA's run-time compiler, a
// library beside libtorch's CUDA part. So the build needs no CUDA, and one binary serves every GPU.
//
// It needs neither libtorch nor a GPU itself: what it compiles is package csrc's to load and launch. The kernels are in
// kernels/*.cu, CUDA C++ without includes. Their tests run them on the CPU (csrc/internal/emulator), and this package's
// compile them for each generation of GPUs.
package nvrtc

import (
	"embed"
	"fmt"
	"strings"

	"gopeft/bindings/csrc/launch"
)

//go:embed kernels/*.cu
var kernels embed.FS

// Element is the type of what a program's kernels read and write.
type Element int

// The elements, numbered as the kernels' ELEMENT.
const (
	Float Element = iota
	BFloat16
	Half
)

func (e Element) String() string { return [...]string{"fp32", "bf16", "fp16"}[e] }

// Group is kernels that are compiled together.
type Group string

// The groups.
const (
	Training  Group = "training"
	Quantised Group = "quantised"
)

// Groups are all of them.
func Groups() []Group { return []Group{Training, Quantised} }

func (g Group) files() []string {
	if g == Quantised {
		return []string{"element", "quantised"}
	}
	return []string{"element", "loss", "low_rank", "norm", "rotary", "swiglu"}
}

// Source is the source of a group's kernels for an element.
func Source(g Group, e Element) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#define ELEMENT %d\n", e)
	b.WriteString(strings.Replace(launch.Arguments, "#pragma once\n", "", 1))
	for _, name := range g.files() {
		text, err := kernels.ReadFile("kernels/" + name + ".cu")
		if err != nil {
			panic(err) // they are embedded
		}
		b.Write(text)
	}
	return b.String()
}
