// Package bindingstest holds what tests of every package above bindings share.
package bindingstest

import (
	"context"
	"testing"

	"gopeft/bindings"
)

// Do runs fn on libtorch's thread, fails the test on an error, and fails it when fn left tensors alive.
func Do(t testing.TB, fn func(*bindings.Scope) error) {
	t.Helper()
	before := bindings.Live()
	if err := bindings.Do(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
	if after := bindings.Live(); after != before {
		t.Fatalf("%d tensors were left alive", after-before)
	}
}
