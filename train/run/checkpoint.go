package run

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"gopeft/bindings"
	"gopeft/model/fsutil"
	"gopeft/train"
	"gopeft/train/dist"
)

// saveBest writes best/: what the method saves, the tokenizer, and the trainable tensors as they are.
func (r *run) saveBest(s *bindings.Scope) error {
	if err := r.trainer.CheckFinite(s); err != nil {
		return err
	}
	if err := r.trainer.Same(s); err != nil {
		return err
	}
	return r.leading(s, func() error {
		if err := r.inputs.Settle(); err != nil { // before anything of another model is written
			return err
		}
		return fsutil.WriteDir(filepath.Join(r.cfg.Output.Out, "best"), func(dir string) error {
			if err := r.saveModel(s, dir); err != nil {
				return err
			}
			return train.SaveWeights(s, filepath.Join(dir, "state", "weights.safetensors"), r.trainer.Params)
		})
	})
}

// leading has the first process write, while the others give it the parts that they hold of what it writes.
func (r *run) leading(s *bindings.Scope, write func() error) error {
	if !r.first() {
		return r.trainer.Follow(s)
	}
	err := write()
	if failed := r.trainer.Release(s); err == nil {
		err = failed
	}
	if lost := (*dist.PeerError)(nil); errors.As(err, &lost) {
		return lost // which says all, whatever was being written
	}
	return err
}

func (r *run) saveModel(s *bindings.Scope, dir string) error {
	if err := r.method.Save(s, dir, r.model); err != nil {
		return err
	}
	if r.tok != nil {
		if err := r.tok.Save(dir); err != nil {
			return err
		}
	}
	return os.Mkdir(filepath.Join(dir, "state"), 0o777)
}

// checkpointDue reports whether the last checkpoint, or the run's begin, is older than --checkpoint-minutes.
func (r *run) checkpointDue() bool {
	since := r.begun
	if r.savedAt.After(since) {
		since = r.savedAt
	}
	return r.cfg.Output.Minutes > 0 && time.Since(since).Minutes() >= r.cfg.Output.Minutes
}

// saveLast writes last/: the same, with what exact resume needs. All processes call it.
func (r *run) saveLast(s *bindings.Scope) error {
	if err := r.trainer.Same(s); err != nil {
		return err
	}
	if err := r.trainer.CheckFinite(s); err != nil {
		return err
	}
	err := r.leading(s, func() error { return r.writeLast(s) })
	if err == nil {
		at := r.trainer.At
		r.saved = &at
	}
	return err
}

// saveAlone is saveLast without the others.
func (r *run) saveAlone(s *bindings.Scope) error {
	if err := r.trainer.CheckFinite(s); err != nil || !r.first() {
		return err
	}
	return r.writeLast(s)
}

// writeLast is what the first process writes.
func (r *run) writeLast(s *bindings.Scope) error {
	if err := r.inputs.Settle(); err != nil { // before anything of another model is written
		return err
	}
	r.prog.Seconds = r.resumed + time.Since(r.begun).Seconds()
	err := fsutil.WriteDir(filepath.Join(r.cfg.Output.Out, "last"), func(dir string) error {
		if err := r.saveModel(s, dir); err != nil {
			return err
		}
		return r.trainer.SaveState(s, filepath.Join(dir, "state"), r.prog)
	})
	r.savedAt = time.Now()
	if err == nil {
		err = asideOf(r.cfg.Output.Out).Drop() // this run stands
	}
	return err
}
