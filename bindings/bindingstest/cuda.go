package bindingstest

import (
	"context"
	"fmt"
	"os"
	"testing"

	"gopeft/bindings"
)

// LoadCUDA loads libtorch's CUDA part where there is a driver. It belongs at the start of a TestMain: after the first
// tensor libtorch does not notice it.
func LoadCUDA() {
	if !bindings.HasDriver() {
		return
	}
	err := bindings.Do(context.Background(), func(s *bindings.Scope) error {
		_, err := s.LoadCUDA("", "")
		return err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// NeedCUDA skips a test, saying so, where there is no GPU.
func NeedCUDA(t testing.TB) {
	t.Helper()
	if !bindings.HasDriver() {
		t.Skip("there is no NVIDIA driver: what runs on a GPU is not tested here")
	}
}
