package classic

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"gopeft/train/classic/xgboost"
)

// BoostOptions adjust FitBoosted; the zero value is that of XGBoost's XGBClassifier().
type BoostOptions struct {
	Rounds int // 0 means 100
	// EarlyStop, if positive, ends training when as many rounds have not bettered the loss on the validation data, and
	// has the rounds up to the best predict: what Python calls early_stopping_rounds.
	EarlyStop int
	// Validation and ValidationLabels are what EarlyStop scores on.
	Validation       Matrix
	ValidationLabels []int
	Workers          int // threads; 0 means all cores. The last bits depend on them.
	// Progress, if set, is called after each round.
	Progress func(done, total int)
	// Note, if set, is told what the library has to say.
	Note func(format string, args ...any)
}

// Boosted is an ensemble of trees that XGBoost's library has trained and predicts with.
type Boosted struct {
	classes  int   // size of the label space
	seen     []int // labels that training data had, ascending
	features int
	rounds   int     // that predict, the last being the best; 0: all
	score    float64 // of the last of rounds, on validation data
	model    object  // XGBoost's JSON
	workers  int

	mu      sync.Mutex // the booster keeps what it has computed
	booster *xgboost.Booster
}

// FitBoosted trains gradient-boosted trees (T. Chen, C. Guestrin, "XGBoost: a scalable tree boosting system", KDD 2016)
// on labels in [0, classes), through XGBoost's own library, with XGBClassifier's defaults. A class without a training row
// gets probability 0 ever after, and fewer than two classes in the data are an error. The result has to be closed.
func FitBoosted(ctx context.Context, x Matrix, labels []int, classes int, o BoostOptions) (*Boosted, error) {
	lib, err := xgboost.Open()
	if err != nil {
		return nil, err
	}
	b, err := fitBoosted(ctx, lib, x, labels, classes, o)
	if err != nil {
		return nil, fmt.Errorf("boosted trees: %w", err)
	}
	return b, nil
}

func fitBoosted(ctx context.Context, lib *xgboost.Library, x Matrix, labels []int, classes int, o BoostOptions) (*Boosted, error) {
	if o.Rounds == 0 {
		o.Rounds = 100
	}
	if o.Rounds < 0 || o.EarlyStop < 0 {
		return nil, fmt.Errorf("%d rounds, early stop after %d: out of range", o.Rounds, o.EarlyStop)
	}
	if err := checkTraining(ctx, x, labels, classes, o.Workers); err != nil {
		return nil, err
	}
	b := &Boosted{classes: classes, seen: distinct(labels), features: x.Cols, workers: o.Workers}
	if len(b.seen) < 2 {
		return nil, fmt.Errorf("all %d training rows have label %d: two classes are needed", x.Rows, b.seen[0])
	}
	training, err := b.data(x, labels)
	if err != nil {
		return nil, err
	}
	s := xgboost.Settings{Params: []xgboost.Param{{Name: "objective", Value: b.objective()}, {Name: "seed", Value: "0"}}, Rounds: o.Rounds,
		Threads: workerCount(o.Workers), EarlyStop: o.EarlyStop, Progress: o.Progress}
	if b.outputs() > 1 {
		s.Params = append(s.Params, xgboost.Param{Name: "num_class", Value: strconv.Itoa(b.outputs())})
	}
	if o.EarlyStop > 0 {
		if err := checkTraining(ctx, o.Validation, o.ValidationLabels, classes, o.Workers); err != nil {
			return nil, fmt.Errorf("validation data: %w", err)
		}
		validation, err := b.data(o.Validation, o.ValidationLabels)
		if err != nil {
			return nil, fmt.Errorf("validation data: %w", err)
		}
		s.Validation = &validation
	}
	trained, err := lib.Train(ctx, training, s)
	if err != nil {
		return nil, err
	}
	if o.Note != nil {
		for _, m := range trained.Messages {
			o.Note("XGBoost: %s", m)
		}
	}
	if b.model, err = readObject(trained.Model); err != nil {
		return nil, fmt.Errorf("what XGBoost saves: %w", err)
	}
	if o.EarlyStop > 0 {
		b.rounds, b.score = trained.Best+1, trained.Score
	}
	return b, b.open(lib)
}

// data gives rows and labels as the library takes them: labels from 0 without a gap.
func (b *Boosted) data(x Matrix, labels []int) (xgboost.Data, error) {
	d := xgboost.Data{Rows: x.Rows, Cols: x.Cols, Values: x.Data, Labels: make([]float32, len(labels))}
	at := make(map[int]float32, len(b.seen))
	for i, l := range b.seen {
		at[l] = float32(i)
	}
	for i, l := range labels {
		v, ok := at[l]
		if !ok {
			return d, fmt.Errorf("row %d has label %d, which no training row has", i, l)
		}
		d.Labels[i] = v
	}
	return d, nil
}

// outputs is the number of trees in a round: one for each class seen, or a single one for two.
func (b *Boosted) outputs() int {
	if len(b.seen) == 2 {
		return 1
	}
	return len(b.seen)
}

func (b *Boosted) objective() string {
	if b.outputs() == 1 {
		return "binary:logistic"
	}
	return "multi:softprob"
}

// open makes the booster of the model. Attributes are nothing to predict by.
func (b *Boosted) open(lib *xgboost.Library) error {
	text, err := b.model.withAttributes(map[string]string{})
	if err != nil {
		return err
	}
	b.booster, err = lib.Load(text)
	return err
}

// SetWorkers says how many threads predict; 0 means all cores.
func (b *Boosted) SetWorkers(n int) { b.workers = n }

// Kind returns "xgboost".
func (b *Boosted) Kind() string { return KindBoosted }

// Features returns the number of columns the trees take.
func (b *Boosted) Features() int { return b.features }

// Classes returns the size of the label space.
func (b *Boosted) Classes() int { return b.classes }

// Rounds returns how many rounds predict, 0 for all there are.
func (b *Boosted) Rounds() int { return b.rounds }

// PredictProba returns rows × classes probabilities.
func (b *Boosted) PredictProba(ctx context.Context, x Matrix) (Matrix, error) {
	out, err := b.predictProba(ctx, x)
	if err != nil {
		return Matrix{}, fmt.Errorf("boosted trees: %w", err)
	}
	return out, nil
}

func (b *Boosted) predictProba(ctx context.Context, x Matrix) (Matrix, error) {
	if err := checkPrediction(ctx, x, b.features, b.workers); err != nil {
		return Matrix{}, err
	}
	if x.Rows == 0 {
		return NewMatrix(0, b.classes), nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.booster == nil {
		return Matrix{}, errors.New("it is closed")
	}
	values, err := b.booster.Predict(xgboost.Data{Rows: x.Rows, Cols: x.Cols, Values: x.Data}, b.rounds, workerCount(b.workers))
	if err != nil {
		return Matrix{}, err
	}
	if len(values) != x.Rows*b.outputs() {
		return Matrix{}, fmt.Errorf("XGBoost gives %d values for %d rows, want %d each", len(values), x.Rows, b.outputs())
	}
	out := NewMatrix(x.Rows, b.classes)
	for r := range x.Rows {
		row := out.Row(r)
		if b.outputs() == 1 {
			row[b.seen[0]], row[b.seen[1]] = 1-values[r], values[r]
			continue
		}
		for k, v := range values[r*len(b.seen) : (r+1)*len(b.seen)] {
			row[b.seen[k]] = v
		}
	}
	return out, ctx.Err()
}

// Predict returns the most probable label of every row, the lowest of equals.
func (b *Boosted) Predict(ctx context.Context, x Matrix) ([]int, error) {
	p, err := b.PredictProba(ctx, x)
	if err != nil {
		return nil, err
	}
	return argmaxRows(p), nil
}

// Close frees the library's copy of the trees.
func (b *Boosted) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.booster == nil {
		return nil
	}
	err := b.booster.Close()
	b.booster = nil
	return err
}
