package train

import (
	"slices"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
)

func TestPool(t *testing.T) {
	bindingstest.Do(t, func(s *bindings.Scope) error {
		// Two rows of one virtual token and three positions, of which the second row has two; state k of a row is k, row.
		hidden := s.FromFloat32s([]float32{9, 0, 1, 0, 2, 0, 3, 0, 9, 1, 1, 1, 2, 1, 3, 1}, 2, 4, 2)
		in := model.Input{Mask: s.FromInt64s([]int64{1, 1, 1, 1, 1, 0}, 2, 3)}
		for _, c := range []struct {
			how  string
			in   model.Input
			want []float32
		}{
			{PoolFirst, in, []float32{1, 0, 1, 1}},
			{PoolLast, in, []float32{3, 0, 2, 1}},
			{PoolMean, in, []float32{2, 0, 1.5, 1}},
			{PoolFirst, model.Input{}, []float32{1, 0, 1, 1}},
			{PoolLast, model.Input{}, []float32{3, 0, 3, 1}},
			{PoolMean, model.Input{}, []float32{2, 0, 2, 1}},
		} {
			if got := Pool(s, c.how, c.in, model.Output{Hidden: hidden, Virtual: 1}).Float32s(); !slices.Equal(got, c.want) {
				t.Errorf("%s, masked %t: %v, want %v", c.how, c.in.Mask.Defined(), got, c.want)
			}
		}
		return nil
	})
	if DefaultPool(false) != PoolFirst || DefaultPool(true) != PoolLast || CheckPool("max") == nil || CheckPool("") != nil {
		t.Error("the ways to pool are not as documented")
	}
}
