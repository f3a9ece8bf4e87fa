package train

import (
	"gopeft/bindings"
	"gopeft/model"
	"gopeft/peft"
	"gopeft/train/data"
	"gopeft/train/neftune"
)

// NewTrainer makes the trainer of a method attached to m, on the part p in the sampler's order, with a loop's length,
// schedule and optimizer (a zero LR is the method's). It is to be closed.
func NewTrainer(s *bindings.Scope, c LoopSettings, on Machine, m model.Model, method peft.Method, task Task, p *Part, order data.Sampler) (*Trainer, error) {
	loop := LoopConfig{
		Epochs: c.Epochs, MaxSteps: c.MaxSteps, EvalBatch: max(32, c.BatchSize), GradAccum: c.GradAccum, Clip: c.Clip, Device: on.Device,
		Precision: on.Precision.DType, LogEvery: c.LogEvery, EvalEvery: c.EvalEvery, Checkpoint: c.Recompute, Sampler: order,
	}
	total, err := loop.TotalSteps()
	if err != nil {
		return nil, err
	}
	if c.LR == 0 {
		c.LR = method.LR()
	}
	schedule, err := NewSchedule(c.Schedule, c.LR, c.Warmup, total)
	if err != nil {
		return nil, &UsageError{err}
	}
	trainable := method.Trainable(m)
	settings := OptimizerConfig{Name: c.Optimizer, WeightDecay: c.WeightDecay, Momentum: c.Momentum, NoDecay: BiasOrNorm,
		Composed: !on.Without.Use(LeverOptimizer)}
	if rate := peft.LoRAPlus(method, c.LR, c.PlusRatio); rate != nil {
		settings.Factor = func(p *model.Param) float64 { return rate(p) / c.LR }
	}
	if c.ShardState || on.Divide {
		settings.Group = on.Group
	}
	opt, err := NewOptimizer(s, settings, trainable)
	if err != nil {
		return nil, &UsageError{err}
	}
	t := &Trainer{Config: loop, Model: m, Params: trainable, Task: task, Data: p, Opt: opt, Schedule: schedule, Silent: method.Silent, Group: on.Group, Shard: on.Shard}
	if c.NEFTune > 0 {
		t.noise = neftune.Attach(m.Hooks(), c.NEFTune)
	}
	t.gatherShared()
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
