// Package modeltest reads fixtures and compares tensors, for the tests of package model and those above it.
package modeltest

import (
	"math"
	"path/filepath"
	"testing"

	"gopeft/bindings"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
	"gopeft/model/modeltest/realdata"
)

// Root is the repository's top folder.
func Root(t testing.TB) string { return realdata.Root(t) }

// Testdata is the path of a fixture in the top-level testdata folder.
func Testdata(t testing.TB, name string) string {
	return filepath.Join(Root(t), "testdata", filepath.FromSlash(name))
}

// Shared is realdata.Shared.
func Shared(t testing.TB, name string) string { return realdata.Shared(t, name) }

// Golden is a fixture file of named tensors.
type Golden struct {
	t       testing.TB
	archive files.Archive
}

// OpenGolden opens a fixture; it is closed when the test ends.
func OpenGolden(t testing.TB, name string) *Golden {
	t.Helper()
	a, err := files.Open(Testdata(t, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return &Golden{t, a}
}

// Has reports whether the fixture holds a tensor.
func (g *Golden) Has(name string) bool {
	_, ok := g.archive.Lookup(name)
	return ok
}

// Names lists the fixture's tensors.
func (g *Golden) Names() []string {
	var names []string
	for _, e := range g.archive.Entries() {
		names = append(names, e.Name)
	}
	return names
}

// Tensor is one tensor of the fixture, owned by s.
func (g *Golden) Tensor(s *bindings.Scope, name string) bindings.Tensor {
	g.t.Helper()
	e, ok := g.archive.Lookup(name)
	if !ok {
		g.t.Fatalf("fixture has no tensor %s", name)
	}
	t, err := hf.Tensor(s, e)
	if err != nil {
		g.t.Fatal(err)
	}
	return s.Clone(t)
}

// Close fails the test unless got and want have one shape and differ by at most tol anywhere.
func Close(t testing.TB, what string, got, want bindings.Tensor, tol float64) {
	t.Helper()
	if g, w := got.String(), want.String(); g != w && !sameShape(got, want) {
		t.Errorf("%s is %s, want %s", what, g, w)
		return
	}
	if d := MaxDiff(got, want); !(d <= tol) {
		t.Errorf("%s differs by %g, tolerance %g", what, d, tol)
	}
}

func sameShape(a, b bindings.Tensor) bool {
	if a.Dim() != b.Dim() {
		return false
	}
	for i := range a.Dim() {
		if a.Size(i) != b.Size(i) {
			return false
		}
	}
	return true
}

// MaxDiff is the largest absolute difference of two tensors with equally many elements; NaN if either has one.
func MaxDiff(a, b bindings.Tensor) float64 {
	x, y := a.Float64s(), b.Float64s()
	worst := 0.0
	for i := range x {
		d := math.Abs(x[i] - y[i])
		if math.IsNaN(d) {
			return d
		}
		worst = max(worst, d)
	}
	return worst
}
