package data

import (
	"math/bits"
	"math/rand/v2"
)

// What a stream of random numbers is for. The same seed gives unrelated streams
// for each.
const (
	forSplit uint64 = iota + 1
	forSample
	forShuffle
	forMix
	forShots
)

// newRNG gives the generator of one purpose and epoch.
func newRNG(seed, purpose, epoch uint64) *rand.PCG {
	hi := mix(seed ^ mix(purpose))
	return rand.NewPCG(hi, mix(hi^mix(epoch)))
}

// mix is the finaliser of splitmix64 (Steele, Lea, Flood 2014): close seeds give
// unrelated states.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// below draws a uniform number in [0, n) by Lemire's multiply-and-reject (2019).
// math/rand/v2 promises the bits of a PCG, not how its helpers use them.
func below(rng *rand.PCG, n uint64) uint64 {
	hi, lo := bits.Mul64(rng.Uint64(), n)
	if lo < n {
		for reject := -n % n; lo < reject; {
			hi, lo = bits.Mul64(rng.Uint64(), n)
		}
	}
	return hi
}

// permutation gives 0..n-1 in random order.
func permutation(rng *rand.PCG, n int) []int {
	p := make([]int, n)
	for i := range p {
		p[i] = i
	}
	shuffle(rng, p)
	return p
}

func shuffle[T any](rng *rand.PCG, s []T) {
	for i := len(s) - 1; i > 0; i-- {
		j := below(rng, uint64(i)+1)
		s[i], s[j] = s[j], s[i]
	}
}
