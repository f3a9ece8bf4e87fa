package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/peft"
	"gopeft/train/data"
	"gopeft/train/dist"
	"gopeft/train/neftune"
)

// LoopConfig are the settings of the loop itself.
type LoopConfig struct {
	Epochs     int
	MaxSteps   int // 0: bounded by Epochs alone
	Sampler    data.Sampler
	EvalBatch  int // rows of a batch in evaluation
	GradAccum  int
	Clip       float64 // largest gradient norm; 0: not clipped
	Device     bindings.Device
	Precision  bindings.DType
	LogEvery   int
	EvalEvery  int  // steps between two calls of OnEval, besides OnEpoch; 0: it is never called
	Checkpoint bool // recompute activations in the backward pass
}

// Trainer takes optimizer steps. Its methods run inside one call of bindings.Do.
type Trainer struct {
	Config   LoopConfig
	Model    model.Model
	Params   []*model.Param // trainable, in order
	Task     Task
	Data     *Part
	Opt      *Optimizer
	Schedule Schedule
	Scaler   *Scaler // nil unless fp16
	// Group are the processes that share each batch; nil: this one alone.
	Group *dist.Group
	Shard bool   // they hold the frozen weights together, and make each pass together
	Seed  uint64 // of what is random in a step, where processes share it
	// Due reports whether the clock asks for something at the end of the step, of the first process; nil: it never does.
	Due func() bool
	// Silent names the parameters whose first gradient may be zero by construction; nil: none.
	Silent func(name string) bool
	// Laps sums where the time goes; nil: not measured.
	Laps *Laps

	noise    *neftune.Noise  // on token embeddings; nil: none
	resumed  string          // the file that state which processes share is still to be read from
	sums     *dist.Gradients // the gradients of all processes, once a step was taken
	checked  bool            // the gradients of the first step taken were
	timed    bool            // Due said so
	updating bool            // the optimizer is at work: some weights may be a step ahead of others

	// At is where the run stands; a resumed run starts from what a checkpoint held.
	At Position
	// OnStep is called after every optimizer step, OnEval after every EvalEvery-th that ends no epoch, OnEpoch after every
	// epoch; an error ends the run. ErrStop is returned to end it early without error.
	OnStep  func(s *bindings.Scope, r StepReport) error
	OnEval  func(s *bindings.Scope, r StepReport) error
	OnEpoch func(s *bindings.Scope, r StepReport) error
}

// Position is a point in training: steps taken, and what the running epoch has summed so far.
type Position struct {
	Step        int     `json:"step"`        // optimizer steps taken
	Epoch       int     `json:"epoch"`       // epochs completed
	Batch       int     `json:"batch"`       // batches of the running epoch done
	LossSum     float64 `json:"loss_sum"`    // of the running epoch, with its weight
	Weight      float64 `json:"weight"`      //
	Correct     int     `json:"correct"`     //
	Rows        int     `json:"rows"`        //
	WindowLoss  float64 `json:"window_loss"` // the same since the last log line
	WindowW     float64 `json:"window_weight"`
	WindowRight int     `json:"window_correct"`
	WindowRows  int     `json:"window_rows"`
	Samples     int     `json:"samples"`             // rows trained on in the whole run
	Tokens      int     `json:"tokens"`              // real tokens trained on in the whole run
	Skipped     int     `json:"skipped"`             // steps the loss scaler skipped
	Evaluated   int     `json:"evaluated,omitempty"` // step of the last OnEval
}

// StepReport says what a step or an epoch gave.
type StepReport struct {
	Position
	Epochs  float64 // passes over the data, with the fraction of the running one
	LR      float64
	Loss    float64 // mean over the step's window (OnStep) or the epoch (OnEpoch)
	Acc     float64 // NaN for tasks without accuracy
	Log     bool    // a line is due
	EndOf   bool    // the step ends an epoch
	Timed   bool    // Due said so, on the first process
	Elapsed time.Duration
}

// ErrStop ends a run early from a callback.
var ErrStop = errors.New("stop")

// NonFiniteError is a loss, gradient or weight that is infinite or not a number.
type NonFiniteError struct {
	Step   int
	Tensor string // the first bad tensor
}

func (e *NonFiniteError) Error() string {
	return fmt.Sprintf("step %d: training is not finite; the first bad tensor is %s. The last good checkpoint is kept; try a lower --lr, --clip 1, or --amp none", e.Step, e.Tensor)
}

// TotalSteps is how many optimizer steps the whole run takes.
func (c LoopConfig) TotalSteps() (int, error) {
	total := 0
	for e := range c.Epochs {
		batches, err := c.Sampler.Epoch(e)
		if err != nil {
			return 0, err
		}
		total += (len(batches) + c.GradAccum - 1) / c.GradAccum
		if c.MaxSteps > 0 && total >= c.MaxSteps {
			return c.MaxSteps, nil
		}
		if c.Sampler.Steady() {
			total = min(total*c.Epochs, orMax(c.MaxSteps)) // every epoch has as many
			break
		}
	}
	return total, nil
}

func orMax(n int) int {
	if n == 0 {
		return math.MaxInt
	}
	return n
}

// ErrNoMemory ends training where a batch finds no memory. What was trained before it is whole.
var ErrNoMemory = errors.New("no memory is left for the next step")

// Run trains from t.At to the end. A cancelled context ends it between two steps with the context's error, or with
// OnEpoch's; then t.At stands before what was not done, and Run can go on from there. So it does after ErrNoMemory.
func (t *Trainer) Run(ctx context.Context, s *bindings.Scope) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = t.failed(p)
		}
	}()
	start := time.Now()
	for t.At.Epoch < t.Config.Epochs && (t.At.Batch > 0 || !t.lastStep()) {
		batches, err := t.Config.Sampler.Epoch(t.At.Epoch)
		if err != nil {
			return err
		}
		if err := t.epoch(ctx, s, batches, start); err != nil {
			if errors.Is(err, ErrStop) {
				return nil
			}
			return err
		}
	}
	return nil
}

// failed makes an error of a panic that says that there is no memory, or that another process is lost. It panics again with
// any other, and where the optimizer was at work: some weights are a step ahead of others then.
func (t *Trainer) failed(panicked any) error {
	e, ok := panicked.(*bindings.OpError)
	switch {
	case !ok || t.updating:
		panic(panicked)
	case !strings.Contains(e.Message, "out of memory") && !strings.Contains(e.Message, "allocate memory"):
		return t.Group.Rescue(panicked)
	}
	return fmt.Errorf("step %d: %w: %w", t.At.Step+1, ErrNoMemory, e)
}

// lastStep reports whether --max-steps ends the run here.
func (t *Trainer) lastStep() bool { return t.Config.MaxSteps > 0 && t.At.Step >= t.Config.MaxSteps }

// epoch trains on what is left of an epoch's batches, and ends it.
func (t *Trainer) epoch(ctx context.Context, s *bindings.Scope, batches [][]int, start time.Time) error {
	accum := t.Config.GradAccum
	switch {
	case t.At.Batch > len(batches):
		return fmt.Errorf("the checkpoint stands at batch %d, an epoch has %d: the data is not what the run was started with", t.At.Batch, len(batches))
	case t.At.Batch == len(batches) || t.At.Batch > 0 && t.lastStep(): // stopped while its end was evaluated
		return t.end(s, t.stepReport(len(batches), start))
	case t.At.Batch > 0 && t.evalDue(): // stopped while this step was evaluated
		if err := t.eval(s, t.stepReport(len(batches), start)); err != nil {
			return err
		}
	}
	group := make([]data.Batch, 0, accum)
	t.Laps.restart()
	for b, err := range t.Data.Batches(t.Group.Patient(ctx), t.share(batches[t.At.Batch:])) {
		if err != nil {
			return err
		}
		t.Laps.end(s, t.Config.Device, PhaseData)
		b.Idle = t.idle(batches[t.At.Batch+len(group)])
		group = append(group, b)
		if len(group) < accum && t.At.Batch+len(group) < len(batches) {
			continue
		}
		weight, err := t.agree(ctx, s, group)
		if err != nil {
			return err
		}
		if err := t.step(s, group, weight); err != nil {
			return err
		}
		t.At.Batch += len(group)
		group = group[:0]
		if err := t.report(s, len(batches), start); err != nil {
			return err
		}
		t.Laps.restart()
	}
	return nil
}

// stepReport describes where the run stands, with the losses since the last log line.
func (t *Trainer) stepReport(batches int, start time.Time) StepReport {
	at := &t.At
	return StepReport{
		Position: *at, Epochs: float64(at.Epoch) + float64(at.Batch)/float64(batches), LR: t.Schedule.Rate(at.Step - 1),
		Loss: at.WindowLoss / at.WindowW, Acc: ratio(at.WindowRight, at.WindowRows),
		Log: at.Step%t.Config.LogEvery == 0, EndOf: at.Batch == batches || t.lastStep(), Elapsed: time.Since(start), Timed: t.timed,
	}
}

// report calls the callbacks after a step, and moves to the next epoch when one ended.
func (t *Trainer) report(s *bindings.Scope, batches int, start time.Time) error {
	r, at := t.stepReport(batches, start), &t.At
	if r.Log {
		at.WindowLoss, at.WindowW, at.WindowRight, at.WindowRows = 0, 0, 0, 0
	}
	if t.OnStep != nil {
		if err := t.OnStep(s, r); err != nil {
			return err
		}
	}
	switch {
	case r.EndOf:
		return t.end(s, r)
	case t.evalDue():
		return t.eval(s, r)
	}
	return nil
}

// evalDue reports whether the run stands after a step that is to be evaluated and was not.
func (t *Trainer) evalDue() bool {
	every := t.Config.EvalEvery
	return every > 0 && t.At.Step%every == 0 && t.At.Evaluated != t.At.Step
}

// eval has a step evaluated. Where that fails the run still stands before it.
func (t *Trainer) eval(s *bindings.Scope, r StepReport) error {
	was := t.At.Evaluated
	t.At.Evaluated = t.At.Step
	r.Position = t.At
	err := t.OnEval(s, r)
	if err != nil && !errors.Is(err, ErrStop) {
		t.At.Evaluated = was
	}
	return err
}

// end moves to the next epoch. Where OnEpoch fails the run still stands before the end of this one.
func (t *Trainer) end(s *bindings.Scope, r StepReport) error {
	at, done := &t.At, t.At
	at.Epoch++
	at.Batch, at.LossSum, at.Weight, at.Correct, at.Rows = 0, 0, 0, 0, 0
	r.Position = *at
	r.Loss, r.Acc = done.LossSum/done.Weight, ratio(done.Correct, done.Rows)
	if t.OnEpoch != nil {
		if err := t.OnEpoch(s, r); err != nil {
			if !errors.Is(err, ErrStop) {
				*at = done
			}
			return err
		}
	}
	if t.lastStep() {
		return ErrStop
	}
	return nil
}

func ratio(a, b int) float64 {
	if b == 0 {
		return math.NaN()
	}
	return float64(a) / float64(b)
}

// step takes one optimizer step on a group of batches, as if they were one batch: the loss is averaged over total, what
// they hold together on all processes.
func (t *Trainer) step(s *bindings.Scope, group []data.Batch, total float64) error {
	s = s.Child()
	defer s.Close()
	measures := make([]Measure, len(group))
	learns := total > 0
	if !learns {
		total = 1 // nothing to learn from in these rows: a zero loss and zero gradients
	}
	if err := t.beginShared(s); err != nil {
		return err
	}
	for i, b := range group {
		if b.Rows == 0 { // the other processes have all of them
			continue
		}
		// Gathers and sums must begin in one order on all processes: sums travel beside passes only where nothing else does.
		if !t.Shard && !slices.ContainsFunc(group[i+1:], hasRows) {
			if err := t.sums.Last(); err != nil {
				return err
			}
		}
		c := s.Child()
		in := Input(c, b, t.Config.Device)
		in.Train, in.CheckpointActivations = !b.Idle, t.Config.Checkpoint
		t.noise.During(in.Train, func() {
			c.Autocast(t.Config.Device, t.Config.Precision, func() { measures[i] = t.Task.Measure(c, t.Model, b, in) })
		})
		m := &measures[i]
		share := 1 / total
		if b.Idle {
			share = 0
		}
		loss := t.Scaler.Scale(c, c.MulScalar(m.Loss, share))
		t.Laps.end(s, t.Config.Device, PhaseForward)
		c.Backward(loss)
		if err := t.sums.Pass(); err != nil {
			return err
		}
		t.Laps.end(s, t.Config.Device, PhaseBackward)
		m.Loss = c.MoveTo(s, c.Detach(m.Loss))
		if m.Correct.Defined() {
			c.MoveTo(s, m.Correct)
		}
		c.Close()
	}
	// The gradients first: those of a process with rows have been on their way since its backward pass, and all processes
	// must begin the same operations in the same order.
	if err := t.sums.Sum(); err != nil {
		return err
	}
	sum, err := t.total(s, group, measures)
	if err != nil {
		return err
	}
	if t.Group != nil {
		t.Laps.end(s, t.Config.Device, PhaseOthers)
	}
	if err := t.update(s, learns); err != nil {
		return err
	}
	t.Laps.end(s, t.Config.Device, PhaseOptimizer)
	at := &t.At
	at.Step++
	at.LossSum, at.WindowLoss = at.LossSum+sum.loss, at.WindowLoss+sum.loss
	at.Weight, at.WindowW = at.Weight+total, at.WindowW+total
	at.Correct, at.WindowRight = at.Correct+sum.correct, at.WindowRight+sum.correct
	at.Rows, at.WindowRows = at.Rows+sum.rows, at.WindowRows+sum.rows
	at.Samples += sum.samples
	at.Tokens += sum.tokens
	return nil
}

// update clips and applies the gradients of rows that held something to learn from, or not.
func (t *Trainer) update(s *bindings.Scope, learns bool) error {
	if len(t.Params) == 0 {
		return errors.New("nothing is trainable")
	}
	t.Opt.owned = t.sums.Own()
	grads, names := t.Opt.Gradients(s)
	if !t.Scaler.Unscale(s, grads) {
		t.At.Skipped++
		t.Opt.ZeroGrad(s)
		t.Scaler.Update(s)
		return nil
	}
	if !t.checked && learns {
		if err := t.checkFirst(s, grads, names); err != nil {
			return err
		}
		t.checked = true
	}
	if t.Config.Clip > 0 {
		norm, err := t.norm(s, grads)
		if err != nil {
			return err
		}
		if math.IsNaN(norm) || math.IsInf(norm, 0) {
			name := "all parameters together" // each may be finite where their norm is not
			i, err := t.firstNonFinite(s, grads, t.Opt.owned != nil)
			if err != nil {
				return err
			}
			if i >= 0 {
				name = names[i]
			}
			return &NonFiniteError{Step: t.At.Step + 1, Tensor: "the gradient of " + name}
		}
		// PyTorch's clip_grad_norm_.
		if factor := t.Config.Clip / (norm + 1e-6); factor < 1 {
			s.ScaleAll(grads, factor)
		}
	}
	t.updating = true
	if err := t.Opt.Step(s, t.Schedule.Rate(t.At.Step)); err != nil {
		return err
	}
	t.Model.Retake(s)
	t.updating = false
	t.Scaler.Update(s)
	return nil
}

// checkFirst refuses to train when the first step gives a trainable tensor no gradient, a zero one that is not
// so by construction, or one that is not finite: a run that trains nothing never passes silently. With a loss
// scaler that is the first step it does not skip.
func (t *Trainer) checkFirst(s *bindings.Scope, grads []bindings.Tensor, names []string) error {
	of, err := t.firstGradients(s, grads, names)
	if err != nil {
		return err
	}
	err = peft.CheckFirstStep(s, t.Params, func(p *model.Param) bindings.Tensor { return of[p.Name] }, t.Silent)
	var failed *peft.FirstStepError
	if errors.As(err, &failed) && len(failed.NotFinite) > 0 {
		return &NonFiniteError{Step: t.At.Step + 1, Tensor: "the gradient of " + failed.NotFinite[0]}
	}
	return err
}

// firstBad looks for the tensor a non-finite loss comes from: a weight, else the first block whose output
// is bad, else the loss itself.
func (t *Trainer) firstBad(s *bindings.Scope, b data.Batch) string {
	if p := model.FirstNonFinite(s, t.Model.Params().All()); p != nil {
		return p.Name
	}
	if p := model.FirstNonFinite(s, t.Params); p != nil {
		return p.Name
	}
	if t.Shard { // the others make no pass now
		return "the loss"
	}
	var states []bindings.Tensor
	s.NoGrad(func() {
		in := Input(s, b, t.Config.Device)
		in.States = &states
		s.Autocast(t.Config.Device, t.Config.Precision, func() { t.Model.Forward(s, in) })
	})
	if i := s.FirstNonFinite(states); i == 0 {
		return "the embeddings' output"
	} else if i > 0 && i <= len(t.Model.Hooks().Blocks) {
		return "the output of " + t.Model.Hooks().Blocks[i-1].Name
	}
	return "the loss itself"
}

// CheckFinite reports a trained weight that is not finite: such a state is no checkpoint to keep. All processes call it.
func (t *Trainer) CheckFinite(s *bindings.Scope) error {
	return s.Run(func(s *bindings.Scope) error {
		ts := make([]bindings.Tensor, len(t.Params))
		for i, p := range t.Params {
			if ts[i] = p.T; p.Shared() {
				ts[i] = partOf(s, p, t.Group.Rank()).of(s, p.T)
			}
		}
		i, err := t.firstNonFinite(s, ts, sharesAny(t.Params))
		if err == nil && i >= 0 {
			err = &NonFiniteError{Step: t.At.Step, Tensor: t.Params[i].Name}
		}
		return err
	})
}
