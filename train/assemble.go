package train

import (
	"gopeft/bindings"
	"gopeft/model"
	"gopeft/peft"
	"gopeft/train/data"
)

// Machine is what a run computes on, and in what precision.
type Machine struct {
	Device    bindings.Device
	Precision Precision
	Note      string // why a GPU is not used, "" if nothing is to be said
}

// Begin readies libtorch for a run as cfg says: device, precision, threads, determinism and seed.
func Begin(s *bindings.Scope, cfg Config) (Machine, error) {
	dev, note, err := device(s, cfg.Device)
	if err != nil {
		return Machine{}, err
	}
	precision, err := ChoosePrecision(cfg.AMP, dev)
	if err != nil {
		return Machine{}, err
	}
	cfg.apply(s)
	return Machine{dev, precision, note}, nil
}

// apply sets what holds for the whole process.
func (c Config) apply(s *bindings.Scope) {
	c.setLevers(s)
	s.SetThreads(threads(c.Threads))
	s.SetDeterministic(c.Deterministic)
	s.AllowTF32(c.TF32)
	s.FlushDenormals(true)
	s.Seed(c.Seed)
}

// NewTrainer makes the trainer of a method attached to m, on the part p in the sampler's order, with the loop,
// schedule and optimizer of cfg (a zero LR is the method's). Its Opt and Scaler are to be closed.
func NewTrainer(s *bindings.Scope, cfg Config, on Machine, m model.Model, method peft.Method, task Task, p *Part, order data.Sampler) (*Trainer, error) {
	loop := LoopConfig{
		Epochs: cfg.Epochs, MaxSteps: cfg.MaxSteps, EvalBatch: max(32, cfg.BatchSize), GradAccum: cfg.GradAccum, Clip: cfg.Clip, Device: on.Device,
		Precision: on.Precision.DType, LogEvery: cfg.LogEvery, Checkpoint: cfg.Recompute, Sampler: order,
	}
	total, err := loop.TotalSteps()
	if err != nil {
		return nil, err
	}
	if cfg.LR == 0 {
		cfg.LR = method.LR()
	}
	schedule, err := NewSchedule(cfg.Schedule, cfg.LR, cfg.Warmup, total)
	if err != nil {
		return nil, &UsageError{err}
	}
	trainable := method.Trainable(m)
	opt, err := NewOptimizer(s, OptimizerConfig{Name: cfg.Optimizer, WeightDecay: cfg.WeightDecay, Momentum: cfg.Momentum, NoDecay: BiasOrNorm,
		Composed: !cfg.Has(LeverOptimizer)}, trainable)
	if err != nil {
		return nil, &UsageError{err}
	}
	t := &Trainer{Config: loop, Model: m, Params: trainable, Task: task, Data: p, Opt: opt, Schedule: schedule, Silent: method.Silent}
	if loop.Precision == bindings.Half {
		t.Scaler = NewScaler(s, on.Device)
	}
	return t, nil
}

// CountParams is the number of trainable elements, and of all: the model's and the method's own, where the
// method's version of a model's tensor counts once.
func CountParams(m model.Model, method peft.Method) (trainable, total int64) {
	seen := map[*model.Param]bool{}
	for _, p := range method.Trainable(m) {
		trainable += p.T.Numel()
		seen[p] = true
	}
	total = trainable
	for _, params := range []*model.Params{m.Params(), method.Params()} {
		for _, p := range params.All() {
			if !seen[p] {
				total += p.T.Numel()
			}
		}
	}
	return trainable, total
}
