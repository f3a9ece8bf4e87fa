package infer

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/tokenizer"
	"gopeft/train"
	"gopeft/train/classic"
	"gopeft/train/data"
	"gopeft/train/dist"
	"gopeft/train/prompted"
)

// PredictorOptions are how a Predictor computes.
type PredictorOptions struct {
	Device    string
	AMP       string // "" and "auto" mean none: inference
	BaseDType string // as --base-dtype has it; "": auto
	Quantize  string // as --quantize has it; "": as the run had it that src is of, or keep
	Threads   int
	Batch     int
	MaxTokens int
	Stream    bool          // leaves frozen weights in their files: train.MachineSettings.Stream
	Shard     bool          // has the processes hold the frozen weights together: train.MachineSettings.Shard
	Problem   model.Problem // what the head scores; "": what its files say
	Group     *dist.Group   // the processes that share each call's batches: all make the same calls; nil: this one alone
}

// Predictor classifies texts.
type Predictor struct {
	Labels    []string             // of the adapter attached
	Tokenizer *tokenizer.Tokenizer // nil when the model's folder has none: rows must carry token ids
	MaxLength int

	source Source
	noTok  error // why there is no Tokenizer
	pad    int64
	clf    classic.Classifier
	prompt *prompted.Classifier // nil: labels are not asked for by a prompt
	opts   PredictorOptions
	adapters
}

// OpenPredictor loads what src names. Close it inside the same call of bindings.Do.
func OpenPredictor(s *bindings.Scope, src Source, o PredictorOptions) (*Predictor, error) {
	return open(s, src, o, true)
}

func open(s *bindings.Scope, src Source, o PredictorOptions, classify bool) (p *Predictor, err error) {
	p = &Predictor{source: src, opts: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if err := p.begin(s, train.MachineSettings{Device: o.Device, AMP: o.AMP, Threads: o.Threads, Stream: o.Stream, Shard: o.Shard, Group: o.Group}); err != nil {
		return p, err
	}
	mo := model.Options{Device: p.on.Device, Aside: p.on.Aside(), Classify: classify && src.Classifier == "" && src.Prompt == ""}
	base, err := src.base(o.BaseDType, o.Quantize, p.on.Precision)
	if err != nil {
		return p, err
	}
	if err := p.on.CheckHold(base); err != nil {
		return p, err
	}
	mo.Base, mo.Quantise = base.DType, base.Quantise
	if path := src.firstAdapter(); path != "" {
		info, err := src.Methods.Probe(path)
		if err != nil {
			return p, err
		}
		mo.As = info.Family
		if classify || info.NumLabels > 0 { // a classifier's adapter has a head, which features leave alone
			facts, err := model.ReadFacts(src.Model)
			if err != nil {
				return p, err
			}
			mo.Classify, mo.Labels = true, info.HeadLabels(facts.Labels)
		}
	}
	if src.Classifier != "" {
		saved, err := classic.Load(src.Classifier)
		if err != nil {
			return p, err
		}
		p.clf, p.Labels = saved.Model, saved.Labels
		if b, ok := p.clf.(*classic.Boosted); ok {
			b.SetWorkers(train.MachineSettings{Threads: o.Threads, Group: o.Group}.Cores())
		}
	}
	p.Tokenizer, p.noTok = src.tokenizer()
	if p.pad, err = train.PadID(p.Tokenizer, src.Model); err != nil {
		return p, err
	}
	if p.model, err = model.Load(s, src.Model, mo); err != nil {
		return p, err
	}
	if err := p.load(s, src, p.model); err != nil {
		return p, err
	}
	if src.Prompt != "" && classify {
		if err := p.loadPrompt(); err != nil {
			return p, err
		}
	} else if p.clf == nil && classify {
		p.Labels = p.labels()
		if p.set.Active() == nil && len(p.model.Fresh()) > 0 {
			return p, fmt.Errorf("model %s has no trained classification head (it has no %s): fine-tune it first", src.Model, strings.Join(p.model.Fresh(), ", "))
		}
	} else if p.clf != nil && p.clf.Features() != p.model.Info().Hidden {
		return p, fmt.Errorf("%s expects %d features, the model gives %d", src.Classifier, p.clf.Features(), p.model.Info().Hidden)
	}
	if err := p.hold(p.model); err != nil {
		return p, err
	}
	p.MaxLength, err = train.ClampLength(src.MaxLength, p.room)
	return p, err
}

// begin readies libtorch, and keeps what is to be said about it. The random generators are left alone: drawing tokens
// has a seed of its own.
func (a *adapters) begin(s *bindings.Scope, c train.MachineSettings) (err error) {
	if a.on, err = c.OpenInference(s); err == nil && a.on.Note != "" {
		a.note("%s", a.on.Note)
	}
	return err
}

// hold says where the weights of m, with its adapters attached, are.
func (a *adapters) hold(m model.Model) error { return a.on.HoldWeights(m, true, true, a.note) }

func (a *adapters) note(format string, args ...any) {
	a.notes = append(a.notes, fmt.Sprintf(format, args...))
}

func (s Source) firstAdapter() string {
	if len(s.Adapters) > 0 {
		return s.Adapters[0].Path
	}
	return s.Adapter
}

// labels are the label names of the head in use.
func (p *Predictor) labels() []string {
	if method := p.set.Active(); method != nil && len(method.Labels()) > 0 {
		return method.Labels()
	}
	return p.model.Labels()
}

// Problem is what the head in use scores: what was asked for, or what its files say.
func (p *Predictor) Problem() model.Problem {
	if p.clf != nil {
		return model.OneLabel
	}
	said := p.opts.Problem
	if method := p.set.Active(); said == "" && method != nil && len(method.Labels()) > 0 {
		said = method.Problem()
	}
	if said == "" {
		said = model.ProblemOf(p.model)
	}
	return said.Or(len(p.labels()))
}

// Model is the loaded model, with the adapter attached.
func (p *Predictor) Model() model.Model { return p.model }

// Prediction is a text's scores by label.
type Prediction struct {
	Problem model.Problem
	Label   int       // the likeliest
	Chosen  []int     // of AnyLabels: those likelier than not, ascending
	Labels  []string  // the names, by index
	Probs   []float32 // nil of Regression
	Logits  []float32 // of Regression the predicted numbers; nil from trees
}

// predictionOf is what a head's logits say.
func predictionOf(problem model.Problem, labels []string, logits []float32) Prediction {
	p := Prediction{Problem: problem, Label: argmax(logits), Labels: labels, Logits: logits}
	switch problem {
	case model.OneLabel:
		p.Probs = softmax(logits)
	case model.AnyLabels:
		p.Probs = make([]float32, len(logits))
		for k, x := range logits {
			if p.Probs[k] = float32(1 / (1 + math.Exp(-float64(x)))); x > 0 {
				p.Chosen = append(p.Chosen, k)
			}
		}
	}
	return p
}

// Predict classifies token sequences, in order.
func (p *Predictor) Predict(ctx context.Context, s *bindings.Scope, ids [][]int64) ([]Prediction, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	out, err := p.predict(ctx, s, ids)
	if err == nil {
		err = p.model.Unchanged()
	}
	return out, err
}

func (p *Predictor) predict(ctx context.Context, s *bindings.Scope, ids [][]int64) ([]Prediction, error) {
	if p.clf != nil {
		x, err := train.ComputeFeatures(ctx, s, p.model, ids, p.pad, train.FeatureOptions{Pool: p.source.Pool, Batch: p.opts.Batch,
			MaxTokens: p.opts.MaxTokens, On: p.on})
		if err != nil {
			return nil, err
		}
		return p.classify(ctx, x)
	}
	e, err := train.Evaluate(ctx, s, p.model, train.Classification{}, train.ClassificationPart(ids, make([]int, len(ids)), p.pad),
		train.EvalOptions{Batch: p.opts.Batch, MaxTokens: p.opts.MaxTokens, On: p.on, Logits: true})
	if err != nil {
		return nil, err
	}
	out := make([]Prediction, len(ids))
	for i, logits := range e.Logits {
		if err := p.checkFinite("scores", logits); err != nil {
			return nil, err
		}
		out[i] = predictionOf(p.Problem(), p.labels(), logits)
	}
	return out, nil
}

// classify applies the classic classifier to features.
func (p *Predictor) classify(ctx context.Context, x classic.Matrix) ([]Prediction, error) {
	out := make([]Prediction, x.Rows)
	if lr, ok := p.clf.(*classic.LogisticRegression); ok {
		scores, err := lr.Decision(ctx, x)
		if err != nil {
			return nil, err
		}
		for i := range out {
			row := scores.Row(i)
			out[i] = predictionOf(model.OneLabel, p.Labels, row)
		}
		return out, nil
	}
	probs, err := p.clf.PredictProba(ctx, x)
	if err != nil {
		return nil, err
	}
	for i := range out {
		row := probs.Row(i)
		out[i] = Prediction{Problem: model.OneLabel, Label: argmax(row), Labels: p.Labels, Probs: row}
	}
	return out, nil
}

// PredictRows is PredictWith of rows that Stream gave.
func (p *Predictor) PredictRows(ctx context.Context, s *bindings.Scope, rows Rows, adapters []string) ([]Prediction, error) {
	if p.prompt == nil {
		return p.PredictWith(ctx, s, rows.IDs, adapters)
	}
	return p.ask(ctx, s, rows.Examples)
}

// PredictWith is Predict with the adapter of its name for each row; see Several.
func (p *Predictor) PredictWith(ctx context.Context, s *bindings.Scope, ids [][]int64, adapters []string) ([]Prediction, error) {
	out := make([]Prediction, len(ids))
	err := p.byAdapter(s, len(ids), adapters, func(rows []int) error {
		if p.clf == nil && p.set.Active() == nil && len(p.model.Fresh()) > 0 {
			return fmt.Errorf("model %s has no trained classification head to use without an adapter", p.source.Model)
		}
		part := make([][]int64, len(rows))
		for k, i := range rows {
			part[k] = ids[i]
		}
		got, err := p.Predict(ctx, s, part)
		if err != nil {
			return err
		}
		for k, i := range rows {
			out[i] = got[k]
		}
		return nil
	})
	return out, err
}

func argmax(v []float32) int {
	best := 0
	for i, x := range v {
		if x > v[best] {
			best = i
		}
	}
	return best
}

func softmax(logits []float32) []float32 {
	top := float64(logits[argmax(logits)])
	out, sum := make([]float32, len(logits)), 0.0
	for _, x := range logits {
		sum += math.Exp(float64(x) - top)
	}
	for i, x := range logits {
		out[i] = float32(math.Exp(float64(x)-top) / sum)
	}
	return out
}

// Close frees the model and its classifier.
func (p *Predictor) Close() error {
	m, clf := p.model, p.clf
	p.model, p.clf = nil, nil
	if clf == nil {
		return p.close(m)
	}
	return errors.Join(p.close(m), clf.Close())
}

// Join meets the other processes of the group, once all have loaded what they need.
func (a *adapters) Join(ctx context.Context, s *bindings.Scope) error {
	return a.on.Join(ctx, s, a.model)
}

// Run is the run whose result is used, nil for what is no run's.
func (p *Predictor) Run() *Trained { return p.source.Run }

// Rows is a stretch of a data file, tokenized.
type Rows struct {
	Examples []data.Example
	IDs      [][]int64
	Err      error
}

// Stream reads and tokenizes a data file ahead of the reader, in stretches of size rows: constant memory
// however long the file is. The last value has Err set unless the file ended well.
func (p *Predictor) Stream(ctx context.Context, r *data.ExampleReader, size, maxLength int) iter.Seq[Rows] {
	var enc data.Encoder = train.Encoder{Tokenizer: p.Tokenizer, Missing: p.noTok}
	if p.prompt != nil {
		enc = p.prompt
	}
	return StreamRows(ctx, r, size, enc, maxLength, model.Vocab(p.model), train.MachineSettings{Threads: p.opts.Threads, Group: p.opts.Group}.Cores())
}

// OpenEmbedder loads the encoder src names, for Embed: a classification head is not needed.
func OpenEmbedder(s *bindings.Scope, src Source, o PredictorOptions) (*Predictor, error) {
	return open(s, src, o, false)
}

// checkFinite refuses values that the model has given where some are no numbers.
func (p *Predictor) checkFinite(what string, values []float32) error {
	for _, v := range values {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return fmt.Errorf("model %s gives %s that are not finite: `gopeft inspect --load` looks for bad weights, --amp none avoids overflow", p.source.Model, what)
		}
	}
	return nil
}

// Embed pools the last hidden states of rows, in order; how is "cls", "mean" or "last", "" the family's.
func (p *Predictor) Embed(ctx context.Context, s *bindings.Scope, rows Rows, how string) (classic.Matrix, error) {
	x, err := train.ComputeFeatures(ctx, s, p.model, rows.IDs, p.pad, train.FeatureOptions{Pool: how, Batch: p.opts.Batch, MaxTokens: p.opts.MaxTokens,
		On: p.on})
	if err == nil {
		err = p.model.Unchanged()
	}
	if err != nil {
		return x, err
	}
	for i, e := range rows.Examples {
		if err := p.checkFinite("features", x.Data[i*x.Cols:(i+1)*x.Cols]); err != nil {
			return x, fmt.Errorf("%s, row %d: %w", e.File, e.Row, err)
		}
	}
	return x, nil
}

// Normalize scales every row to length 1; a row of zeros stays.
func Normalize(x classic.Matrix) {
	for i := range x.Rows {
		row := x.Data[i*x.Cols : (i+1)*x.Cols]
		sum := 0.0
		for _, v := range row {
			sum += float64(v) * float64(v)
		}
		if sum > 0 {
			f := float32(1 / math.Sqrt(sum))
			for k := range row {
				row[k] *= f
			}
		}
	}
}
