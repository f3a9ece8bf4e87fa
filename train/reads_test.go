package train_test

import (
	"context"
	"fmt"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/peft"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/traintest"
)

// Between its batch and its loss a step waits for nothing that a GPU computes.
func TestAStepReadsOnlyWhatItReports(t *testing.T) {
	steps := func(tr *train.Trainer, s *bindings.Scope) (reads []int64, err error) {
		last := bindings.Reads()
		tr.OnStep = func(*bindings.Scope, train.StepReport) error {
			now := bindings.Reads()
			reads, last = append(reads, now-last), now
			return nil
		}
		err = tr.Run(context.Background(), s)
		return reads, err
	}
	expect := func(t *testing.T, reads []int64, most int64) {
		t.Helper()
		if len(reads) < 3 {
			t.Fatalf("%d steps", len(reads))
		}
		for i, n := range reads[1:] { // the first one looks at every gradient
			if n > most {
				t.Errorf("step %d read %d times, want at most %d", i+2, n, most)
			}
		}
	}
	for _, c := range traintest.MethodCases() {
		t.Run("classify/"+c.Name, func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				return tinyTrainer(t, s, c, bindings.Float, []int{0, 1, 2, 3}, nil, func(tr *train.Trainer) error {
					reads, err := steps(tr, s)
					expect(t, reads, 2) // the loss, and how many were right
					return err
				})
			})
		})
	}
	for _, method := range []string{"lora", "prefix", "llama-adapter"} {
		for _, width := range []int{0, 24} {
			t.Run(fmt.Sprintf("causal/%s, packed to %d", method, width), func(t *testing.T) {
				bindingstest.Do(t, func(s *bindings.Scope) error {
					reads, err := causalSteps(s, modeltest.Testdata(t, "llama/gqa"), method, width, func(tr *train.Trainer) ([]int64, error) { return steps(tr, s) })
					expect(t, reads, 1)
					return err
				})
			})
		}
	}
}

// causalSteps trains on token sequences of different lengths, three steps and more.
func causalSteps(s *bindings.Scope, folder, name string, width int, fn func(*train.Trainer) ([]int64, error)) ([]int64, error) {
	m, err := model.Load(s, folder, model.Options{})
	if err != nil {
		return nil, err
	}
	defer m.Close()
	method, err := peft.New(name, peft.Options{})
	if err != nil {
		return nil, err
	}
	if err := method.Attach(s, m); err != nil {
		return nil, err
	}
	defer method.Close()
	var seqs []data.Sequence
	for i := range 16 {
		var ids []int64
		for j := range 5 + i%7 {
			ids = append(ids, int64(3+(i*5+j*j)%40))
		}
		seqs = append(seqs, data.Sequence{IDs: ids, Targets: ids})
	}
	part, err := train.CausalPart(seqs, 0, width)
	if err != nil {
		return nil, err
	}
	loop := train.DefaultLoop()
	loop.Epochs = 2
	on := train.Machine{Device: bindings.CPU, Precision: train.Precision{DType: bindings.Float}}
	tr, err := train.NewTrainer(s, loop, on, m, method, train.Causal{}, part, data.Sampler{Lengths: part.Lengths, BatchSize: 4})
	if err != nil {
		return nil, err
	}
	defer tr.Opt.Close()
	return fn(tr)
}
