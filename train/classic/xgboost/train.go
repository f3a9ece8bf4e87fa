package xgboost

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"gopeft/bindings/fault"
)

// Data is a row-major matrix [Rows, Cols] and, to train or validate on, a label for each row.
type Data struct {
	Rows, Cols int
	Values     []float32
	Labels     []float32
}

// Param is a parameter by XGBoost's own name.
type Param struct{ Name, Value string }

// Settings say how to train; what they leave out is as XGBoost has it.
type Settings struct {
	Params  []Param
	Rounds  int
	Threads int
	// Validation, if set, is scored after each round. Training ends when EarlyStop rounds have brought nothing better.
	Validation *Data
	EarlyStop  int
	// Progress, if set, is called after each round.
	Progress func(done, total int)
}

// Trained is the outcome of training.
type Trained struct {
	Model  []byte  // XGBoost's JSON
	Rounds int     // taken
	Best   int     // the round, counted from 0, whose score on the validation data was best; -1 without such data
	Score  float64 // of that round, by the objective's own measure
	// Messages are what the library had to say, one line each.
	Messages []string
}

// onThread runs work on a thread of its own, which ends with it: OpenMP keeps threads for each thread that has called
// it, and the library its last error.
func onThread(work func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- fault.Guard(work)
	}()
	return <-done
}

// Train trains a booster. It stops between two rounds when ctx is done.
func (l *Library) Train(ctx context.Context, training Data, s Settings) (out Trained, err error) {
	err = onThread(func() (err error) {
		out, err = l.train(ctx, training, s)
		return err
	})
	return out, err
}

func (l *Library) train(ctx context.Context, training Data, s Settings) (out Trained, err error) {
	if err := l.listen(); err != nil {
		return out, err
	}
	var matrices []*matrix
	defer func() {
		for _, m := range matrices {
			err = errors.Join(err, m.close())
		}
	}()
	for _, d := range []*Data{&training, s.Validation} {
		if d == nil {
			continue
		}
		m, err := l.newMatrix(*d, s.Threads)
		if err != nil {
			return out, err
		}
		matrices = append(matrices, m)
	}
	b, err := l.newBooster(matrices...)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, b.free()) }()
	for _, p := range append(s.Params, Param{"nthread", strconv.Itoa(s.Threads)}) {
		if err := b.set(p.Name, p.Value); err != nil {
			return out, err
		}
	}
	out.Best = -1
	for round := range s.Rounds {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		if err := b.update(round, matrices[0]); err != nil {
			return out, err
		}
		out.Rounds++
		if s.Progress != nil {
			s.Progress(out.Rounds, s.Rounds)
		}
		if s.Validation == nil {
			continue
		}
		line, err := b.evaluate(round, matrices[1])
		if err != nil {
			return out, err
		}
		score, err := lastScore(line)
		if err != nil {
			return out, err
		}
		if out.Best < 0 || score < out.Score {
			out.Best, out.Score = round, score
		} else if s.EarlyStop > 0 && round-out.Best >= s.EarlyStop {
			break
		}
	}
	out.Model, err = b.save()
	out.Messages = heard()
	return out, err
}

// lastScore reads "[3]\tvalidation-logloss:0.61".
func lastScore(line string) (float64, error) {
	score, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ':')+1:], 64)
	if err != nil {
		return 0, fmt.Errorf("no score in %q", line)
	}
	return score, nil
}

// reason is XGBoost's account of an error in one line, without the place in its source and the stack.
func reason(said string) string {
	said, _, _ = strings.Cut(said, "Stack trace")
	return plain(said)
}

// plain takes the time and the place in the source off a message: "[10:44:03] /src/learner.cc:85: Check failed: …".
func plain(said string) string {
	said = strings.Join(strings.Fields(said), " ")
	if rest, ok := strings.CutPrefix(said, "["); ok {
		if _, rest, ok := strings.Cut(rest, "] "); ok {
			said = rest
		}
	}
	said = strings.TrimPrefix(said, "WARNING: ")
	if place, rest, ok := strings.Cut(said, ": "); ok && strings.HasPrefix(place, "/") && !strings.Contains(place, " ") {
		said = rest
	}
	return said
}
