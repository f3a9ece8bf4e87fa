package train

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// Progress is what a run remembers between checkpoints beside its tensors.
type Progress struct {
	Position
	Best      *float64 `json:"best"`       // the monitored metric at its best; null before the first evaluation
	BestEpoch int      `json:"best_epoch"` // epochs done when it was
	BestStep  int      `json:"best_step"`
	Stale     int      `json:"stale"`   // evaluations since
	Seconds   float64  `json:"seconds"` // of training, over all sessions
	Counts    []int    `json:"adam_steps,omitempty"`
	SGDBegun  bool     `json:"sgd_begun,omitempty"`
	Checked   bool     `json:"checked"` // the gradients of the first step taken were
	Config    string   `json:"config"`  // fingerprint of the settings and data a resumed run must share
}

const (
	stateJSON    = "state.json"
	stateTensors = "state.safetensors"
	rngCPU       = "rng/cpu"
	rngCUDA      = "rng/cuda"
	scalerScale  = "scaler/scale"
	scalerSteps  = "scaler/growth_tracker"
	paramPrefix  = "param/"
)

// SaveState writes what exact resume needs into an existing folder: the trainable weights as they are, the
// optimizer's and the scaler's state, the random generators', and p.
func (t *Trainer) SaveState(s *bindings.Scope, dir string, p Progress) error {
	return s.Run(func(s *bindings.Scope) error {
		p.Position, p.Counts, p.SGDBegun, p.Checked = t.At, t.Opt.count, !t.Opt.fresh, t.checked
		ts := t.state()
		for _, param := range t.Params {
			ts = append(ts, hf.Named{Name: paramPrefix + param.Name, Tensor: param.T})
		}
		ts = append(ts, hf.Named{Name: rngCPU, Tensor: s.RNGState(bindings.CPU)})
		if t.Config.Device.IsCUDA() {
			ts = append(ts, hf.Named{Name: rngCUDA, Tensor: s.RNGState(t.Config.Device)})
		}
		if err := saveTensors(s, filepath.Join(dir, stateTensors), ts); err != nil {
			return err
		}
		return hf.WriteJSON(filepath.Join(dir, stateJSON), p)
	})
}

func saveTensors(s *bindings.Scope, path string, ts []hf.Named) error {
	out, err := hf.Outgoing(s, ts)
	if err != nil {
		return err
	}
	return files.WriteSafetensors(path, out, nil)
}

// LoadState puts back what SaveState wrote, if the run is the same by its fingerprint.
func (t *Trainer) LoadState(s *bindings.Scope, dir string, same func(fingerprint string) bool) (Progress, error) {
	p, err := ReadProgress(dir)
	if err != nil {
		return p, err
	}
	if !same(p.Config) {
		return p, fmt.Errorf("%s: the run was started with other settings or other data; resume it with its own config.yaml, or start anew with --overwrite", dir)
	}
	if len(p.Counts) != len(t.Params) && t.Opt.cfg.Name != "sgd" {
		return p, fmt.Errorf("%s: state of %d trainable tensors, the model has %d", dir, len(p.Counts), len(t.Params))
	}
	want := t.state()
	for _, param := range t.Params {
		want = append(want, hf.Named{Name: paramPrefix + param.Name, Tensor: param.T})
	}
	path := filepath.Join(dir, stateTensors)
	if err := loadTensors(s, path, want); err != nil {
		return p, err
	}
	if err := loadRNG(s, path, rngCPU, bindings.CPU); err != nil {
		return p, err
	}
	if t.Config.Device.IsCUDA() {
		if err := loadRNG(s, path, rngCUDA, t.Config.Device); err != nil {
			return p, err
		}
	}
	t.take(s, p)
	return p, nil
}

// ReadProgress reads a checkpoint's state.json.
func ReadProgress(dir string) (Progress, error) {
	var p Progress
	raw, err := hf.ReadJSON(filepath.Join(dir, stateJSON))
	if err != nil {
		return p, fmt.Errorf("nothing to resume from: %w", err)
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return p, fmt.Errorf("%s: %w", filepath.Join(dir, stateJSON), err)
	}
	return p, nil
}

// loadTensors copies a file's tensors into existing ones of the same names and shapes.
func loadTensors(s *bindings.Scope, path string, into []hf.Named) error {
	a, err := files.Open(path)
	if err != nil {
		return err
	}
	defer a.Close()
	for _, n := range into {
		e, ok := a.Lookup(n.Name)
		if !ok {
			return fmt.Errorf("%s: tensor %s is missing", path, n.Name)
		}
		if !slices.Equal(e.Shape, n.Tensor.Shape()) {
			return fmt.Errorf("%s: tensor %s is %v, want %v", path, n.Name, e.Shape, n.Tensor.Shape())
		}
		err := s.Run(func(s *bindings.Scope) error {
			t, err := hf.Tensor(s, e)
			if err != nil {
				return err
			}
			s.Copy(n.Tensor, t)
			return e.Release()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func loadRNG(s *bindings.Scope, path, name string, dev bindings.Device) error {
	return s.Run(func(s *bindings.Scope) error {
		a, err := files.Open(path)
		if err != nil {
			return err
		}
		defer a.Close()
		e, ok := a.Lookup(name)
		if !ok {
			return fmt.Errorf("%s: tensor %s is missing", path, name)
		}
		s.SetRNGState(s.FromRaw(slices.Clone(e.Data), bindings.Uint8, e.Shape...), dev)
		return nil
	})
}

// SaveWeights writes the trainable tensors alone, from which LoadWeights brings the best ones back.
func SaveWeights(s *bindings.Scope, path string, params []*model.Param) error {
	ts := make([]hf.Named, len(params))
	for i, p := range params {
		ts[i] = hf.Named{Name: paramPrefix + p.Name, Tensor: p.T}
	}
	return saveTensors(s, path, ts)
}

func LoadWeights(s *bindings.Scope, path string, params []*model.Param) error {
	ts := make([]hf.Named, len(params))
	for i, p := range params {
		ts[i] = hf.Named{Name: paramPrefix + p.Name, Tensor: p.T}
	}
	return loadTensors(s, path, ts)
}

// Monitor follows a metric and says when it is at its best.
type Monitor struct {
	Metric   string // "val_acc" or "val_loss"
	Patience int    // evaluations without improvement before stopping; 0: never
}

// Value is the metric's value in an evaluation, higher being better.
func (m Monitor) Value(e Evaluation) float64 {
	if m.Metric == "val_acc" {
		return e.Acc
	}
	return -e.Loss
}

// Note updates p with an evaluation and reports whether it is the best so far and whether to stop.
func (m Monitor) Note(p *Progress, e Evaluation) (best, stop bool) {
	v := m.Value(e)
	if !math.IsNaN(v) && !math.IsInf(v, 0) && (p.Best == nil || v > *p.Best) {
		p.Best, p.BestEpoch, p.BestStep, p.Stale = &v, p.Epoch, p.Step, 0
		return true, false
	}
	p.Stale++
	return false, m.Exhausted(*p)
}

// Exhausted reports whether patience has run out.
func (m Monitor) Exhausted(p Progress) bool { return m.Patience > 0 && p.Stale >= m.Patience }
