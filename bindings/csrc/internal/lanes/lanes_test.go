package lanes

import (
	"math/rand/v2"
	"testing"
)

// passes are what a model's blocks and its head ask for: forward, and backward again.
func passes(units, times int) (turns []Turn) {
	for range times {
		for i := range units {
			turns = append(turns, Turn{i, min(i+1, units-1)})
		}
		for i := units - 2; i >= 0; i-- {
			turns = append(turns, Turn{i, max(i-1, 0)})
		}
	}
	return turns
}

// anything are turns of chance, to units that there are not, too.
func anything(r *rand.Rand, units int) []Turn {
	turns := make([]Turn, 60)
	for i := range turns {
		turns[i] = Turn{r.IntN(units + 1), r.IntN(units + 1)}
	}
	return turns
}

// Whatever the order in which two lanes run, each unit is computed with as it was copied.
func TestUnitsAreWholeWhileTheyAreComputedWith(t *testing.T) {
	for seed := range uint(2000) {
		r := rand.New(rand.NewPCG(uint64(seed), 3))
		units := 1 + r.IntN(6)
		turns := passes(units, 2)
		if seed%2 == 0 {
			turns = anything(r, units)
		}
		if err := Run(seed, units, turns, Nothing); err != nil {
			t.Fatalf("seed %d, %d units, turns %v: %v", seed, units, turns, err)
		}
	}
}

// Without one of the two waits it shows that units are not.
func TestAWaitThatIsForgottenIsNoticed(t *testing.T) {
	for _, forget := range []int{Copies, Computations} {
		found := 0
		for seed := range uint(100) {
			if Run(seed, 4, passes(4, 2), forget) != nil {
				found++
			}
		}
		if found < 90 {
			t.Errorf("forgetting %d is noticed %d times of 100", forget, found)
		}
	}
}
