package bindings_test

import (
	"context"
	"fmt"

	"gopeft/bindings"
)

func ExampleDo() {
	err := bindings.Do(context.Background(), func(s *bindings.Scope) error {
		x := s.FromFloat32s([]float32{1, 2, 3, 4}, 2, 2)
		fmt.Println(s.MatMul(x, x).Float32s())
		return nil
	})
	fmt.Println(err)
	// Output:
	// [7 10 15 22]
	// <nil>
}
