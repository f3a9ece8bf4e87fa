package train_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
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

func TestScalerShrinksOnOverflowAndGrowsWithTime(t *testing.T) {
	bindingstest.Do(t, func(s *bindings.Scope) error {
		c := train.NewScaler(s, bindings.CPU)
		defer c.Close()
		scale := func() float64 { return c.Scale(s, s.Scalar(1, bindings.Float, bindings.CPU)).Item() }
		update := func(grad float64) (finite bool) {
			g := s.Scalar(grad, bindings.Float, bindings.CPU)
			finite = c.Unscale(s, []bindings.Tensor{g})
			if want := grad / scale(); finite && g.Item() != want {
				t.Errorf("%g unscaled is %g, want %g", grad, g.Item(), want)
			}
			c.Update(s)
			return finite
		}
		for _, x := range []struct {
			grad  float64
			times int
			want  float64 // the scale then
		}{{3, 1999, 65536}, {math.Inf(1), 1, 32768}, {math.NaN(), 1, 16384}, {3, 1999, 16384}, {3, 1, 32768}} {
			for range x.times {
				if finite := update(x.grad); finite != (x.grad == 3) {
					t.Fatalf("a gradient of %g is finite: %v", x.grad, finite)
				}
			}
			if got := scale(); got != x.want {
				t.Errorf("after %d gradients of %g the scale is %g, want %g", x.times, x.grad, got, x.want)
			}
		}
		return nil
	})
}

// weighted is classification whose losses are multiplied by factors in turn, then by 1.
type weighted struct {
	train.Classification
	factors []float64
}

// Measure implements train.Task.
func (w *weighted) Measure(s *bindings.Scope, m model.Model, b data.Batch, in model.Input) train.Measure {
	x := w.Classification.Measure(s, m, b, in)
	if len(w.factors) > 0 {
		x.Loss = s.MulScalar(x.Loss, w.factors[0])
		w.factors = w.factors[1:]
	}
	return x
}

// overflow makes scaled gradients infinite and leaves the loss finite.
const overflow = 1e35

// tinyTrainer calls fn with a trainer of a method on the tiny DistilBERT, on batches of four rows by number.
func tinyTrainer(t *testing.T, s *bindings.Scope, c traintest.MethodCase, precision bindings.DType, batches []int, factors []float64, fn func(*train.Trainer) error) error {
	t.Helper()
	none := 0.0
	m, err := model.Load(s, modeltest.Testdata(t, "distilbert/tiny"), model.Options{Classify: true, Dropout: &none})
	if err != nil {
		return err
	}
	defer m.Close()
	s.Seed(3)
	method, err := peft.New(c.Method, c.Options)
	if err != nil {
		return err
	}
	if err := method.Attach(s, m); err != nil {
		return err
	}
	defer method.Close()
	var rows [][]int64
	var labels []int
	for _, b := range batches {
		for i := range int64(4) {
			rows = append(rows, []int64{5, 6 + i, 30 + int64(b), 31 + int64(b) + 2*i, 7})
			labels = append(labels, (b+int(i))%3)
		}
	}
	part := train.ClassificationPart(rows, labels, 0)
	loop := train.DefaultLoop()
	loop.Epochs, loop.LR = 1, 1e-2
	on := train.Machine{Device: bindings.CPU, Precision: train.Precision{DType: precision}}
	tr, err := train.NewTrainer(s, loop, on, m, method, &weighted{factors: factors}, part, data.Sampler{Lengths: part.Lengths, BatchSize: 4})
	if err != nil {
		return err
	}
	defer tr.Opt.Close()
	defer func() { tr.Scaler.Close() }()
	return fn(tr)
}

// TestLossScalingChangesNothingButOverflows: scaled by a power of two, gradients are the same numbers, and a step
// whose gradients overflow is as if its batch had not been there.
func TestLossScalingChangesNothingButOverflows(t *testing.T) {
	for _, c := range traintest.MethodCases() {
		t.Run(c.Name, func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				trained := func(scaled bool, batches []int, factors []float64, skipped int) (out []bindings.Tensor) {
					err := tinyTrainer(t, s, c, bindings.Float, batches, factors, func(tr *train.Trainer) error {
						if scaled {
							tr.Scaler = train.NewScaler(s, bindings.CPU)
						}
						if err := tr.Run(context.Background(), s); err != nil {
							return err
						}
						if tr.At.Skipped != skipped || tr.At.Step != len(batches) {
							t.Errorf("%d of %d steps were skipped, want %d of %d", tr.At.Skipped, tr.At.Step, skipped, len(batches))
						}
						for _, p := range tr.Params {
							out = append(out, s.Clone(s.Detach(p.T)))
						}
						return nil
					})
					if err != nil {
						t.Fatal(err)
					}
					return out
				}
				compare := func(what string, got, want []bindings.Tensor) {
					for i := range want {
						modeltest.Close(t, fmt.Sprintf("%s, trained tensor %d", what, i), got[i], want[i], 0)
					}
				}
				compare("scaled", trained(true, []int{0, 1, 2}, nil, 0), trained(false, []int{0, 1, 2}, nil, 0))
				compare("after an overflow", trained(true, []int{0, 1, 2}, []float64{1, overflow}, 1), trained(false, []int{0, 2}, nil, 0))
				return nil
			})
		})
	}
}

// TestFirstStepTakenIsChecked: the first step that a loss scaler lets through must train every tensor.
func TestFirstStepTakenIsChecked(t *testing.T) {
	for _, c := range []struct {
		name    string
		scaled  bool
		factors []float64
		want    string // of the error; "" for none
	}{
		{"zero", false, []float64{0}, "trains nothing"},
		{"zero, scaled", true, []float64{0}, "trains nothing"},
		{"zero after an overflow", true, []float64{overflow, overflow, 0}, "a zero one in [distilbert.transformer.layer.0.attention.q_lin.lora_B.weight"},
		{"zero later", true, []float64{1, 0}, ""},
		{"overflow", true, []float64{overflow, overflow}, ""},
		{"overflow without a scaler", false, []float64{overflow}, "not finite"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				return tinyTrainer(t, s, traintest.MethodCase{Method: "lora"}, bindings.Float, []int{0, 1, 2, 3}, c.factors, func(tr *train.Trainer) error {
					if c.scaled {
						tr.Scaler = train.NewScaler(s, bindings.CPU)
					}
					err := tr.Run(context.Background(), s)
					if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
						t.Errorf("got %v, want %q", err, c.want)
					}
					return nil
				})
			})
		})
	}
}

// TestCheckOfTheFirstStepSurvivesACheckpoint: a run saved before any step was taken is checked when it goes on.
func TestCheckOfTheFirstStepSurvivesACheckpoint(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after []float64
		want          string
	}{
		{"skipped", []float64{overflow}, []float64{0}, "trains nothing"},
		{"taken", []float64{1}, []float64{0}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			bindingstest.Do(t, func(s *bindings.Scope) error {
				err := tinyTrainer(t, s, traintest.MethodCase{Method: "lora"}, bindings.Float, []int{0, 1, 2}, c.before, func(tr *train.Trainer) error {
					tr.Scaler = train.NewScaler(s, bindings.CPU)
					tr.OnStep = func(s *bindings.Scope, _ train.StepReport) error {
						return errors.Join(tr.SaveState(s, dir, train.Progress{}), train.ErrStop)
					}
					return tr.Run(context.Background(), s)
				})
				if err != nil {
					return err
				}
				return tinyTrainer(t, s, traintest.MethodCase{Method: "lora"}, bindings.Float, []int{0, 1, 2}, c.after, func(tr *train.Trainer) error {
					tr.Scaler = train.NewScaler(s, bindings.CPU)
					if _, err := tr.LoadState(s, dir, func(string) bool { return true }); err != nil {
						return err
					}
					err := tr.Run(context.Background(), s)
					if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
						t.Errorf("got %v, want %q", err, c.want)
					}
					return nil
				})
			})
		})
	}
}

// TestHalfPrecision trains every method as with --amp fp16, which libtorch can also compute on a CPU: the scale falls
// until gradients fit, then the loss falls.
func TestHalfPrecision(t *testing.T) {
	if strings.HasPrefix(bindings.Version(), "2.1.") {
		t.Skip("SKIPPED: libtorch 2.1 multiplies no fp16 matrices on CPUs")
	}
	for _, c := range traintest.MethodCases() {
		t.Run(c.Name, func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				return tinyTrainer(t, s, c, bindings.Half, []int{0, 0, 0, 0, 0, 0, 0, 0}, nil, func(tr *train.Trainer) error {
					if tr.Scaler == nil {
						t.Error("there is no loss scaler")
					}
					tr.Config.LogEvery = 1
					var losses []float64
					tr.OnStep = func(_ *bindings.Scope, r train.StepReport) error {
						losses = append(losses, r.Loss)
						return nil
					}
					if err := tr.Run(context.Background(), s); err != nil {
						return err
					}
					if tr.At.Skipped > 3 || !(losses[len(losses)-1] < losses[0]) {
						t.Errorf("losses %v, %d steps skipped", losses, tr.At.Skipped)
					}
					return tr.CheckFinite(s)
				})
			})
		})
	}
}
