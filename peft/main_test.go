package peft_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"gopeft/bindings"
)

// The models of these tests are tiny: threads would only wait for each other.
func TestMain(m *testing.M) {
	err := bindings.Do(context.Background(), func(s *bindings.Scope) error { s.SetThreads(1); return nil })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
