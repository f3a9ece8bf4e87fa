package emulator

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"
)

func (b *bench) int64s(values []int64) *Memory {
	m := b.memory(8*len(values), 0)
	for i, v := range values {
		binary.LittleEndian.PutUint64(m.Bytes()[8*i:], uint64(v))
	}
	return m
}

// crossEntropy is what the kernel gives for the logits that m holds, which become their gradient.
func (b *bench) crossEntropy(m *Memory, targets []int64, vocab int) (losses, gradient []float64) {
	rows := len(targets)
	out := b.floats(make([]float32, rows))
	before := b.values(m)
	b.run(b.CrossEntropy(m, b.int64s(targets), out, rows, vocab, false))
	b.near("logits without a gradient", b.values(m), before, 0, 0)
	first := float32s(out)
	b.run(b.CrossEntropy(m, b.int64s(targets), out, rows, vocab, true))
	b.near("losses again", float32s(out), first, 0, 0)
	return first, b.values(m)
}

func TestCrossEntropy(t *testing.T) {
	for _, shape := range [][2]int{{1, 1}, {3, 7}, {2, 64}, {2, 1001}, {1, 5000}} {
		rows, vocab := shape[0], shape[1]
		t.Run(fmt.Sprint(shape), func(t *testing.T) {
			everywhere(t, func(b *bench) {
				logits, v := b.random(rows*vocab, 0, 4)
				targets := make([]int64, rows)
				for r := range targets {
					targets[r] = int64((r*37 + vocab - 1) % vocab)
				}
				losses, gradient := b.crossEntropy(logits, targets, vocab)
				want := make([]float64, rows*vocab)
				for r := range rows {
					sum := 0.0
					for _, x := range v[r*vocab : (r+1)*vocab] {
						sum += math.Exp(x)
					}
					if want := math.Log(sum) - v[r*vocab+int(targets[r])]; math.Abs(losses[r]-want) > 1e-5 {
						t.Fatalf("row %d's loss is %v, want %v", r, losses[r], want)
					}
					for i := range vocab {
						want[r*vocab+i] = math.Exp(v[r*vocab+i]) / sum
					}
					want[r*vocab+int(targets[r])]--
				}
				b.near("gradient", gradient, want, 1, 1e-6)
			})
		})
	}
}

// Logits of any size give finite losses, masked ones have no part, and a target that is none has no loss.
func TestCrossEntropyOfExtremes(t *testing.T) {
	everywhere(t, func(b *bench) {
		const vocab = 40
		logits, targets := b.empty(4*vocab), []int64{1, 0, vocab, -1}
		for i := range 4 * vocab {
			v := math.Inf(-1) // of what is masked
			switch {
			case i == 1:
				v = 30000
			case i == 2:
				v = 29999 // which bf16 cannot tell from it
				if b.Element == Float {
					v = 30000
				}
			case i >= vocab:
				v = -50
			}
			if b.Element == Half && i < 3 {
				v = map[int]float64{0: -60000, 1: 60000, 2: 60000}[i]
			}
			if b.Element == Half && math.IsInf(v, 0) {
				b.halfInfinity(logits, i)
				continue
			}
			b.put(logits, i, b.round(v))
		}
		losses, gradient := b.crossEntropy(logits, targets, vocab)
		if math.Abs(losses[0]-math.Ln2) > 1e-6 || math.Abs(losses[1]-math.Log(vocab)) > 1e-5 {
			t.Errorf("losses %v", losses)
		}
		if !math.IsNaN(losses[2]) || !math.IsNaN(losses[3]) {
			t.Errorf("losses of targets outside the vocabulary: %v", losses[2:])
		}
		if gradient[0] != 0 || gradient[1] != -0.5 || gradient[2] != 0.5 || gradient[3] != 0 {
			t.Errorf("gradients %v", gradient[:4])
		}
	})
}

// halfInfinity writes -∞, which halfBits is not for.
func (b *bench) halfInfinity(m *Memory, i int) {
	binary.LittleEndian.PutUint16(m.Bytes()[2*i:], 0xfc00)
}
