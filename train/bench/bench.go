package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/generate"
	"gopeft/peft"
	"gopeft/train"
)

// Spread is how a figure varies over the steps.
type Spread struct {
	Min    float64 `json:"min"`
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

// Result is what was measured. Rates are over all steps behind the warm-up; tokens are real ones, padding apart.
type Result struct {
	Arch    string `json:"arch,omitempty"`
	Method  string `json:"method"`
	Mode    string `json:"mode"`
	Batch   int    `json:"batch"`
	Seq     int    `json:"seq"`
	AMP     string `json:"amp"`
	DType   string `json:"dtype"`
	Threads int    `json:"threads"`
	Device  string `json:"device"`
	Steps   int    `json:"steps"`
	Warmup  int    `json:"warmup"`

	SamplesPerS float64 `json:"samples_per_s"`
	TokensPerS  float64 `json:"tokens_per_s"`
	StepS       Spread  `json:"step_s"`
	FirstStepS  float64 `json:"first_step_s"` // from the process's start to the end of the first step (generate: to the first token)
	StartupS    float64 `json:"startup_s"`    // from the process's start until the model was ready
	PeakRSSMB   float64 `json:"peak_rss_mb"`
	ReadyRSSMB  float64 `json:"ready_rss_mb,omitempty"` // resident before the first step
	PeakCUDAMB  float64 `json:"peak_cuda_mb,omitempty"`
	Trainable   int64   `json:"trainable"`
	Total       int64   `json:"total"`

	FirstLoss float64 `json:"first_loss,omitempty"`
	LastLoss  float64 `json:"last_loss,omitempty"`
	// Padding is the share of padding among all positions computed.
	Padding float64 `json:"padding,omitempty"`

	NewTokens        int     `json:"new_tokens,omitempty"`
	PrefillS         float64 `json:"prefill_s,omitempty"` // fastest, until the first token
	PrefillTokensPS  float64 `json:"prefill_tokens_per_s,omitempty"`
	DecodeTokensPerS float64 `json:"decode_tokens_per_s,omitempty"` // of all rows, in the fastest run, behind the first token
	DecodeMedian     float64 `json:"decode_tokens_per_s_median,omitempty"`

	Accuracy float64 `json:"accuracy,omitempty"` // of fit, on the rows held out

	GoAllocsPerStep float64 `json:"go_allocs_per_step"`
	GoHeapMB        float64 `json:"go_heap_mb"` // the most the Go heap has taken

	PhaseS map[string]float64 `json:"phase_s,omitempty"` // mean seconds of a training step's phases

	Processes []Process `json:"processes,omitempty"` // of several: rates are of all together, the figures above of the first
}

// Process is one of several that were measured together.
type Process struct {
	Waiting    float64 `json:"waiting"` // share of the time behind the warm-up that went into sums over the processes
	PeakRSSMB  float64 `json:"peak_rss_mb"`
	PeakCUDAMB float64 `json:"peak_cuda_mb,omitempty"`
}

// bench is a measurement in progress.
type bench struct {
	cfg    Config
	on     train.Machine
	model  model.Model
	method peft.Method // nil for features and base
	causal bool
	work   *work
	clock  clock
	waited time.Duration // for the other processes, until the warm-up's end
	result Result
}

// Run measures what cfg says. first_step_s and peak_rss_mb are of the whole process, so they mean what they say
// in a process that does nothing else.
func Run(ctx context.Context, cfg Config) (Result, error) {
	if err := cfg.check(); err != nil {
		return Result{}, err
	}
	b := &bench{cfg: cfg, clock: clock{warmup: cfg.Warmup}}
	if cfg.Mode == Fit || cfg.Mode == Tokenize {
		err := b.classic(ctx)
		return b.result, err
	}
	err := bindings.Do(ctx, func(s *bindings.Scope) (err error) {
		defer func() {
			if b.model != nil {
				err = errors.Join(err, b.model.Close())
			}
		}()
		if err := b.setUp(s); err != nil {
			return err
		}
		if err := b.on.Join(ctx, s, b.model); err != nil {
			return err
		}
		switch {
		case cfg.Mode == Train:
			err = b.train(ctx, s)
		case cfg.Mode == Generate:
			err = b.generate(s)
		case cfg.Method == train.Features:
			err = b.features(ctx, s)
		default:
			err = b.infer(ctx, s)
		}
		if err != nil {
			return err
		}
		return b.finish(s)
	})
	return b.result, err
}

// setUp builds the model, attaches the method and makes the data.
func (b *bench) setUp(s *bindings.Scope) (err error) {
	cfg := b.cfg
	if b.on, err = cfg.machine().Begin(s); err != nil {
		return err
	}
	usual := cfg.usual()
	o := model.Options{Device: b.on.Device, Aside: b.on.Aside(), Classify: usual.Family != "" && !usual.Decoder && cfg.Method != train.Features, Copy: !b.on.Without.Use(train.LeverMapping)}
	if cfg.DType == "bf16" {
		o.DType = bindings.BFloat16
	} else if err := b.holdBase(&o); err != nil {
		return err
	}
	if cfg.Stream || cfg.Shard { // files are there then
		file, err := model.FileDType(cfg.Model)
		if err != nil {
			return err
		}
		if err := b.on.CheckHold(train.HeldAs(o, file)); err != nil {
			return err
		}
	}
	if cfg.Dropout >= 0 {
		o.Dropout = &cfg.Dropout
	}
	m, err := b.build(s, o)
	if err != nil {
		return err
	}
	b.model = m
	_, lm := b.model.(model.CausalLM)
	b.causal = lm && len(b.model.Labels()) == 0
	if cfg.Method != train.Features && cfg.Method != Base {
		if b.method, err = peft.New(cfg.Method, cfg.Peft); err != nil {
			return &train.UsageError{Err: err}
		}
		if err := b.method.Attach(s, b.model); err != nil {
			return err
		}
		b.on.Divide = b.on.Shard && b.method.Needs().WholeModel
	}
	// Nothing is saved here: made-up weights need not outlive the cast. Those of a folder stay in its files.
	err = b.on.HoldWeights(b.model, cfg.Recompute || cfg.Mode != Train, cfg.Model != "", func(string, ...any) {}) // figures are all that is printed
	if err != nil {
		return err
	}
	if err := b.room(); err != nil {
		return err
	}
	if b.work, err = makeWork(cfg, b.model.Info().Vocab, len(b.model.Labels())); err != nil {
		return err
	}
	b.describe(s)
	ready, err := sinceProcessStart()
	b.result.StartupS, b.result.ReadyRSSMB = ready.Seconds(), train.RSSMB()
	return err
}

// holdBase chooses the dtype of frozen matrices. A method that trains them in place keeps fp32.
func (b *bench) holdBase(o *model.Options) error {
	file := bindings.Float
	if b.cfg.Model != "" {
		var err error
		if file, err = model.FileDType(b.cfg.Model); err != nil {
			return err
		}
	}
	if !peft.Builtin().InPlace(b.cfg.Method) {
		base, err := train.ChooseBase(b.cfg.BaseDType, b.cfg.Quantize, file, b.on.Precision)
		o.Base, o.Quantise = base.DType, base.Quantise
		return err
	}
	return train.FullBase(b.cfg.Method, b.cfg.Quantize)
}

// build makes the model with random weights, or opens its folder: what is no language model gets a classification
// head.
func (b *bench) build(s *bindings.Scope, o model.Options) (model.Model, error) {
	if b.cfg.Model == "" {
		config, err := b.cfg.shape()
		if err != nil {
			return nil, err
		}
		m, err := model.New(s, config, o)
		if err != nil {
			return nil, &train.UsageError{Err: err}
		}
		return m, nil
	}
	m, err := model.Load(s, b.cfg.Model, o)
	if err != nil {
		return nil, err
	}
	if _, lm := m.(model.CausalLM); lm || b.cfg.Method == train.Features {
		return m, nil
	}
	if err := m.Close(); err != nil {
		return nil, err
	}
	o.Classify = true
	return model.Load(s, b.cfg.Model, o)
}

// room checks that the model can read as many tokens.
func (b *bench) room() error {
	need := b.cfg.Seq + b.model.Hooks().PromptLen()
	if room := b.model.Info().MaxPositions; need > room {
		return &train.UsageError{Err: fmt.Errorf("--seq is %d (with the method's tokens %d), the model reads at most %d", b.cfg.Seq, need, room)}
	}
	return nil
}

func (b *bench) describe(s *bindings.Scope) {
	amp := map[bindings.DType]string{bindings.BFloat16: "bf16", bindings.Half: "fp16"}[b.on.Precision.DType]
	if amp == "" {
		amp = "none"
	}
	b.result = Result{Arch: b.model.Info().Family, Method: b.cfg.Method, Mode: b.cfg.Mode, Batch: b.cfg.Batch, Seq: b.cfg.Seq, AMP: amp,
		DType: b.cfg.DType, Threads: s.Threads(), Device: b.on.Device.String()}
	if b.method != nil {
		b.result.Trainable, b.result.Total = train.CountParams(b.model, b.method)
		return
	}
	_, b.result.Total = b.model.Params().Count()
}

// finish fills in the figures of the whole run.
func (b *bench) finish(s *bindings.Scope) error {
	b.result.PeakRSSMB = train.PeakRSSMB()
	if b.on.Device.IsCUDA() {
		peak, err := bindings.CUDAPeak(b.on.Device)
		if err != nil {
			return err
		}
		b.result.PeakCUDAMB = max(0, float64(peak)/(1<<20))
	}
	if err := b.clock.report(&b.result); err != nil {
		return err
	}
	return b.gather(s)
}

// gather fills in the figures of each of several processes.
func (b *bench) gather(s *bindings.Scope) error {
	group := b.on.Group
	if group == nil {
		return nil
	}
	took := time.Duration(0)
	for _, step := range b.clock.counted() {
		took += step.took
	}
	waited := group.Waited() - b.waited
	all, err := group.Gather(s, int64(waited), int64(took), int64(b.result.PeakRSSMB), int64(b.result.PeakCUDAMB))
	if err != nil {
		return err
	}
	for _, p := range all {
		b.result.Processes = append(b.result.Processes, Process{float64(p[0]) / float64(p[1]), float64(p[2]), float64(p[3])})
	}
	return nil
}

func (b *bench) task() train.Task {
	if b.causal {
		return train.Causal{WholeLogits: !b.on.Without.Use(train.LeverChunks)}
	}
	return train.Classification{EveryPosition: !b.on.Without.Use(train.LeverPooling)}
}

// train takes optimizer steps.
func (b *bench) train(ctx context.Context, s *bindings.Scope) error {
	order := b.work.order(b.cfg)
	batches, err := order.Epoch(0)
	if err != nil {
		return err
	}
	t, err := train.NewTrainer(s, b.cfg.loop(), b.on, b.model, b.method, b.task(), b.work.part(b.causal, !b.on.Without.Use(train.LeverOverlap)), order)
	if err != nil {
		return err
	}
	defer t.Close()
	if b.cfg.Profile {
		t.Laps = &train.Laps{}
	}
	var before train.Position
	t.OnStep = func(s *bindings.Scope, r train.StepReport) error {
		s.Synchronize(b.on.Device)
		if r.Step == 1 {
			b.result.FirstLoss = r.Loss
		}
		if r.Step == b.cfg.Warmup {
			b.waited = b.on.Group.Waited()
			if t.Laps != nil {
				*t.Laps = train.Laps{}
			}
		}
		b.result.LastLoss = r.Loss
		err := b.clock.end(r.Samples-before.Samples, r.Tokens-before.Tokens)
		before = r.Position
		return err
	}
	b.clock.start()
	if err := t.Run(ctx, s); err != nil {
		return err
	}
	b.result.Padding = b.work.padding(batches[:len(b.clock.steps)])
	if t.Laps != nil {
		b.result.PhaseS = map[string]float64{}
		for p := range train.Phases {
			b.result.PhaseS[p.String()] = t.Laps.Spent[p].Seconds() / float64(len(b.clock.counted()))
		}
	}
	return nil
}

// watch ends a step whenever another batch of an inference is done, in however many passes.
func (b *bench) watch() (progress func(done, total int), err error) {
	passes, err := train.EvalOrder(b.work.lengths, b.cfg.Batch, 0, b.on).Epoch(0)
	if err != nil {
		return nil, err
	}
	b.result.Padding = b.work.padding(passes)
	pass, all, rows, tokens := 0, 0, 0, 0
	return func(done, total int) {
		for ; all < done; pass++ { // several where processes share them
			for _, i := range passes[pass] {
				tokens += b.work.lengths[i]
			}
			rows, all = rows+len(passes[pass]), all+len(passes[pass])
		}
		if rows >= b.cfg.Batch || done == total {
			if len(b.clock.steps) == b.cfg.Warmup-1 {
				b.waited = b.on.Group.Waited()
			}
			_ = b.clock.end(rows, tokens)
			rows, tokens = 0, 0
		}
	}, nil
}

// infer evaluates the model on the rows.
func (b *bench) infer(ctx context.Context, s *bindings.Scope) error {
	progress, err := b.watch()
	if err != nil {
		return err
	}
	b.clock.start()
	e, err := train.Evaluate(ctx, s, b.model, b.task(), b.work.part(b.causal, !b.on.Without.Use(train.LeverOverlap)),
		train.EvalOptions{Batch: b.cfg.Batch, On: b.on, Progress: progress})
	b.result.LastLoss = e.Loss
	return err
}

// features computes the pooled hidden states that a classic classifier reads.
func (b *bench) features(ctx context.Context, s *bindings.Scope) error {
	progress, err := b.watch()
	if err != nil {
		return err
	}
	b.clock.start()
	_, err = train.ComputeFeatures(ctx, s, b.model, b.work.ids, 0,
		train.FeatureOptions{Batch: b.cfg.Batch, On: b.on, Progress: progress})
	return err
}

// generate decodes greedily, a batch of prompts at a step.
func (b *bench) generate(s *bindings.Scope) error {
	lm, ok := b.model.(model.CausalLM)
	if !ok {
		return &train.UsageError{Err: fmt.Errorf("%s is no language model: it cannot generate", b.cfg.Model)}
	}
	n := b.cfg.NewTokens
	var prefill, decode []float64
	b.clock.start()
	for i := range b.cfg.Steps {
		begun := time.Now()
		var first, last time.Time
		seen := 0
		_, err := generate.Run(s, lm, b.work.ids[i*b.cfg.Batch:(i+1)*b.cfg.Batch], generate.Options{MaxNew: n, Batch: b.cfg.Batch},
			func(generate.Event) (err error) {
				if seen++; seen%b.cfg.Batch == 0 {
					last = time.Now()
				}
				if seen == b.cfg.Batch {
					first = last
					err = b.clock.firstDone()
				}
				return err
			})
		if err != nil {
			return err
		}
		if err := b.clock.end(b.cfg.Batch, b.cfg.Batch*n); err != nil {
			return err
		}
		prefill = append(prefill, first.Sub(begun).Seconds())
		decode = append(decode, float64(b.cfg.Batch*(n-1))/last.Sub(first).Seconds())
	}
	w := len(b.clock.steps) - len(b.clock.counted())
	prefill, decode = prefill[w:], decode[w:]
	r := &b.result
	r.NewTokens, r.PrefillS = n, slices.Min(prefill)
	r.PrefillTokensPS = float64(b.cfg.Batch*b.cfg.Seq) / r.PrefillS
	r.DecodeTokensPerS, r.DecodeMedian = slices.Max(decode), median(decode)
	return nil
}
