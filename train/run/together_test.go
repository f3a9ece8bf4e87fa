package run_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gopeft/train"
	"gopeft/train/dist"
	"gopeft/train/launch"
	"gopeft/train/report"
	"gopeft/train/run"
	"gopeft/train/traintest"
)

// rankPlan is what a process of a run does in a test.
type rankPlan struct {
	Mode     run.OutMode
	StopRank int    // this one is told to stop
	StopStep int    // at this step; 0: none is
	Blind    bool   // all but the first know nothing of the run, whose folder they do not see
	Says     string // what the first one has to say
	Refused  string // what all say that refuse to run
	Fails    string // what each says in its line when the run fails
}

// asRank trains as one of the processes that inRanks starts.
func asRank(cfg run.Config) error {
	var plan rankPlan
	if err := json.Unmarshal([]byte(os.Getenv("GOPEFT_TEST_PLAN")), &plan); err != nil {
		return err
	}
	world, err := launch.FromEnv(os.Getenv)
	if err != nil {
		return err
	}
	interrupted := func(err error) bool { return errors.Is(err, run.ErrInterrupted) }
	err = dist.Run(context.Background(), dist.Options{World: world, Timeout: time.Minute}, interrupted, func(ctx context.Context, g *dist.Group) error {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		ui := train.UI(train.Quiet{})
		if plan.StopStep > 0 && plan.StopRank == g.Rank() {
			ui = &stopAt{step: plan.StopStep, stop: stop}
		}
		said := &notes{}
		if plan.Says != "" && g.First() {
			ui = said
		}
		if plan.Blind && !g.First() {
			cfg = run.Defaults()
		}
		cfg.Machine.Group, cfg.Version = g, fmt.Sprint("rank ", g.Rank())
		_, err := run.Run(ctx, cfg, plan.Mode, ui)
		if usage := (*train.UsageError)(nil); plan.Refused != "" && errors.As(err, &usage) && strings.Contains(err.Error(), plan.Refused) && !strings.Contains(err.Error(), "\n") {
			err = nil
		} else if plan.Refused != "" {
			err = fmt.Errorf("want a refusal with %q, got %w", plan.Refused, err)
		}
		if plan.Fails != "" {
			if err == nil || !strings.Contains(err.Error(), plan.Fails) || strings.Contains(err.Error(), "\n") {
				return fmt.Errorf("want an end with %q, got %w", plan.Fails, err)
			}
			err = nil
		}
		if err == nil && plan.Says != "" && g.First() && !strings.Contains(said.text, plan.Says) {
			err = fmt.Errorf("%q is not said: %s", plan.Says, said.text)
		}
		return err
	})
	if plan.StopStep > 0 && interrupted(err) {
		return nil
	}
	return err
}

type stopAt struct {
	train.Quiet
	step int
	stop func()
}

func (u *stopAt) Progress(phase string, done, _ int, _ string) {
	if phase == "train" && done == u.step {
		u.stop()
	}
}

// inRanks trains in n processes.
func inRanks(t *testing.T, cfg run.Config, n int, plan rankPlan) {
	t.Helper()
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	cmd := inChild(t, "rank", cfg)
	var stdout, stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l := launch.Launcher{Command: cmd.Args, Env: append(cmd.Env, "GOPEFT_TEST_PLAN="+string(text)), Procs: n, Stdout: &stdout, Stderr: &stderr}
	if err := l.Run(ctx); err != nil {
		t.Fatalf("%d processes: %v: %s", n, err, stderr.String())
	}
}

// sameFigures compares two runs' metrics within tol of the values, and their trained weights within weightTol. Of the few
// rows between two lines one may be a tie, whose prediction the last digits decide.
func sameFigures(t *testing.T, got, want string, tol, weightTol float64) {
	t.Helper()
	a, b := readMetrics(t, got), readMetrics(t, want)
	if len(a) != len(b) {
		t.Fatalf("%d lines of metrics, want %d", len(a), len(b))
	}
	for i := range a {
		const tie = 0.1
		for _, v := range [][3]float64{{a[i].TrainLoss, b[i].TrainLoss, tol}, {a[i].TrainAcc, b[i].TrainAcc, tie}, {a[i].EpochTrainLoss, b[i].EpochTrainLoss, tol}, {a[i].EpochTrainAcc, b[i].EpochTrainAcc, tie},
			{a[i].ValLoss, b[i].ValLoss, tol}, {a[i].ValAcc, b[i].ValAcc, tie}, {a[i].LR, b[i].LR, tol}, {a[i].Epoch, b[i].Epoch, tol}, {float64(a[i].Step), float64(b[i].Step), tol}} {
			if math.IsNaN(v[0]) != math.IsNaN(v[1]) || math.Abs(v[0]-v[1]) > v[2]*math.Max(1, math.Abs(v[1])) {
				t.Errorf("line %d of the metrics is %+v, want %+v", i, a[i], b[i])
				break
			}
		}
	}
	closeWeights(t, got, want, weightTol)
}

// closeWeights compares two runs' trained weights within weightTol.
func closeWeights(t *testing.T, got, want string, weightTol float64) {
	t.Helper()
	x, y := trained(t, got), trained(t, want)
	if len(x) != len(y) || len(x) == 0 {
		t.Fatalf("%d trained tensors, want %d", len(x), len(y))
	}
	worst, where := 0.0, ""
	for name := range y {
		if strings.HasSuffix(name, "k_lin.bias") { // its gradient is zero but for rounding, which Adam makes steps of
			continue
		}
		for i := range y[name] {
			if d := math.Abs(float64(x[name][i] - y[name][i])); !(d <= worst) {
				worst, where = d, name
			}
		}
	}
	if !(worst <= weightTol) {
		t.Errorf("%s differs by %.3g, at most %.3g was expected", where, worst, weightTol)
	}
}

func readMetrics(t *testing.T, dir string) []report.Row {
	t.Helper()
	rows, _, err := report.ReadMetrics(filepath.Join(dir, "metrics.csv"))
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// TestProcessesTrainAsOne: a run of several processes is the run of one, whatever the method; with rows that do not
// divide by their number, accumulation, clipping, packing, recomputation and cached features.
func TestProcessesTrainAsOne(t *testing.T) {
	for _, family := range []struct {
		name   string
		procs  int
		config func(t *testing.T, method string) run.Config
	}{{"classification", 2, tinyConfig}, {"packed", 3, packedConfig}} {
		for i, c := range traintest.MethodCases() {
			if testing.Short() && i%8 != 0 {
				continue
			}
			t.Run(family.name+"/"+c.Name, func(t *testing.T) {
				cfg := family.config(t, c.Method)
				cfg.Peft, cfg.Model.Dropout = c.Options, 0
				cfg.Loop.LR, cfg.Loop.Optimizer, cfg.Loop.BatchSize, cfg.Loop.GradAccum, cfg.Loop.Clip = 0.05, "sgd", 5, 2, 1
				cfg.Loop.Recompute, cfg.Output.NoTrainEval = family.name == "packed", true
				cfg.Model.CacheStates = c.Method == "last" && family.name == "classification"
				mustRun(t, cfg, run.Refuse)
				shared := cfg
				shared.Output.Out = filepath.Join(t.TempDir(), "shared")
				inRanks(t, shared, family.procs, rankPlan{})
				sameFigures(t, shared.Output.Out, cfg.Output.Out, 2e-6, 1e-6)
			})
		}
	}
}

// TestProcessesWithAdam has the tolerance that Adam's division by small numbers takes, and batches of a token budget.
func TestProcessesWithAdam(t *testing.T) {
	cfg := tinyConfig(t, "lora")
	cfg.Model.Dropout, cfg.Loop.LR, cfg.Loop.BatchSize, cfg.Loop.MaxTokens, cfg.Loop.EarlyStop = 0, 0, 7, 60, 3
	mustRun(t, cfg, run.Refuse)
	shared := cfg
	shared.Output.Out = filepath.Join(t.TempDir(), "shared")
	inRanks(t, shared, 3, rankPlan{})
	sameFigures(t, shared.Output.Out, cfg.Output.Out, 2e-5, 2e-5)
}

// TestProcessesWithoutRows: batches smaller than the number of processes, whole steps of which some have nothing.
func TestProcessesWithoutRows(t *testing.T) {
	for _, accum := range []int{1, 2} {
		cfg := tinyConfig(t, "lora")
		cfg.Model.Dropout, cfg.Loop.Optimizer, cfg.Loop.LR, cfg.Loop.Epochs = 0, "sgd", 0.05, 1
		cfg.Loop.BatchSize, cfg.Loop.GradAccum = 1, accum
		mustRun(t, cfg, run.Refuse)
		shared := cfg
		shared.Output.Out = filepath.Join(t.TempDir(), "shared")
		inRanks(t, shared, 2, rankPlan{})
		sameFigures(t, shared.Output.Out, cfg.Output.Out, 2e-6, 1e-6)
	}
}

// TestProcessesResume: a run that one of its processes was told to stop goes on to the same bits with as many, dropout
// among them, and to the same figures with any other number.
func TestProcessesResume(t *testing.T) {
	whole := packedConfig(t, "lora")
	whole.Loop.BatchSize, whole.Loop.GradAccum, whole.Loop.LR, whole.Output.NoTrainEval = 5, 2, 0, true
	whole.Model.Dropout, whole.Peft.LoRADropout = 0.1, 0.1
	inRanks(t, whole, 2, rankPlan{})
	stopped := whole
	stopped.Output.Out = filepath.Join(t.TempDir(), "stopped")
	inRanks(t, stopped, 2, rankPlan{StopRank: 1, StopStep: 2})
	if p, err := train.ReadProgress(filepath.Join(stopped.Output.Out, "last", "state")); err != nil || p.Step != 2 {
		t.Fatalf("the checkpoint stands at %+v (%v)", p.Position, err)
	}
	inRanks(t, stopped, 2, rankPlan{Mode: run.Resume, Blind: true})
	sameRun(t, comparable(t, stopped.Output.Out), comparable(t, whole.Output.Out))

	whole.Model.Dropout, whole.Peft.LoRADropout, whole.Output.Out = 0, 0, filepath.Join(t.TempDir(), "alone")
	mustRun(t, whole, run.Refuse)
	for _, n := range [][2]int{{2, 3}, {3, 1}, {1, 2}} {
		t.Run(fmt.Sprintf("%d, then %d", n[0], n[1]), func(t *testing.T) {
			cfg := whole
			cfg.Output.Out = filepath.Join(t.TempDir(), "changed")
			if n[0] == 1 {
				interrupt(t, cfg, "train", 2)
			} else {
				inRanks(t, cfg, n[0], rankPlan{StopStep: 2})
			}
			if n[1] == 1 {
				mustRun(t, cfg, run.Resume)
			} else {
				inRanks(t, cfg, n[1], rankPlan{Mode: run.Resume})
			}
			sameFigures(t, cfg.Output.Out, whole.Output.Out, 2e-5, 2e-5)
		})
	}
}
