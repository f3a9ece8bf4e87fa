package train

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"slices"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/fsutil"
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

	Files map[string]fsutil.Checksum `json:"files,omitempty"` // of the other files of the state, by name
	Sum   string                     `json:"sum,omitempty"`   // of state.json itself; stands last
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
// optimizer's and the scaler's state, the random generators', and p. The other processes Follow meanwhile.
func (t *Trainer) SaveState(s *bindings.Scope, dir string, p Progress) error {
	return s.Run(func(s *bindings.Scope) error {
		p.Position, p.Counts, p.SGDBegun, p.Checked = t.At, t.Opt.count, !t.Opt.fresh, t.checked
		ts := append(t.state(), t.scattered(s)...)
		for _, param := range t.Params {
			ts = append(ts, param.Named(paramPrefix+param.Name))
		}
		ts = append(ts, hf.Named{Name: rngCPU, Tensor: s.RNGState(bindings.CPU)})
		if t.Config.Device.IsCUDA() {
			ts = append(ts, hf.Named{Name: rngCUDA, Tensor: s.RNGState(t.Config.Device)})
		}
		sum, err := saveTensors(s, filepath.Join(dir, stateTensors), ts)
		if err != nil {
			return err
		}
		p.Files = map[string]fsutil.Checksum{stateTensors: sum}
		return writeProgress(filepath.Join(dir, stateJSON), p)
	})
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
		if !param.Shared() { // each process then takes its part
			want = append(want, param.Named(paramPrefix+param.Name))
		}
	}
	if err := p.check(filepath.Join(dir, stateJSON), t.Config.Epochs, t.Schedule.Total); err != nil {
		return p, err
	}
	path := filepath.Join(dir, stateTensors)
	if sum, ok := p.Files[stateTensors]; ok {
		if err := verify(path, sum); err != nil {
			return p, err
		}
	}
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
	t.resumed = path
	return p, nil
}

// ReadProgress reads a checkpoint's state.json.
func ReadProgress(dir string) (Progress, error) { return readProgress(filepath.Join(dir, stateJSON)) }

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
		ts[i] = p.Named(paramPrefix + p.Name)
	}
	sum, err := saveTensors(s, path, ts)
	if err != nil {
		return err
	}
	return hf.WriteJSON(filepath.Join(filepath.Dir(path), checksumsJSON), map[string]fsutil.Checksum{filepath.Base(path): sum})
}

// LoadWeights puts back what SaveWeights wrote.
func LoadWeights(s *bindings.Scope, path string, params []*model.Param) error {
	ts := make([]hf.Named, len(params))
	for i, p := range params {
		ts[i] = p.Named(paramPrefix + p.Name)
	}
	if err := verifyBeside(path); err != nil {
		return err
	}
	return loadTensors(s, path, ts)
}

// checksumsJSON holds the checksums of a folder's files, by name, where no state.json does.
const checksumsJSON = "checksums.json"

// saveTensors writes tensors to a file, and sums it up on the way.
func saveTensors(s *bindings.Scope, path string, ts []hf.Named) (fsutil.Checksum, error) {
	out, err := hf.Outgoing(s, ts)
	if err != nil {
		return fsutil.Checksum{}, err
	}
	sum := fsutil.NewSummer()
	err = fsutil.WriteFile(path, func(w io.Writer) error { return files.EncodeSafetensors(io.MultiWriter(w, sum), out, nil) })
	return sum.Sum(), err
}

// DamagedError is of a checkpoint's file that is not as it was written.
type DamagedError struct{ Path, Why string }

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%s is damaged: %s; start anew with --overwrite, or from the adapter in best with --adapter-init", e.Path, e.Why)
}

// verify compares a file with what it was.
func verify(path string, was fsutil.Checksum) error {
	why, err := was.Compare(path)
	if err == nil && why != "" {
		err = &DamagedError{path, why}
	}
	return err
}

// verifyBeside compares a file with what checksums.json in its folder says of it. Runs from before there were checksums
// have none.
func verifyBeside(path string) error {
	sums, err := readSums(filepath.Dir(path))
	if sums == nil || err != nil {
		return err
	}
	sum, ok := sums[filepath.Base(path)]
	if !ok {
		return &DamagedError{filepath.Join(filepath.Dir(path), checksumsJSON), "it says nothing of " + filepath.Base(path)}
	}
	return verify(path, sum)
}

// readSums reads the checksums.json of a folder; nil: there is none.
func readSums(dir string) (sums map[string]fsutil.Checksum, err error) {
	list := filepath.Join(dir, checksumsJSON)
	found, err := hf.ReadInto(list, &sums)
	if err == nil && found && sums == nil {
		err = errors.New("it holds nothing")
	}
	if err != nil {
		return nil, &DamagedError{list, err.Error()}
	}
	return sums, nil
}

// StateSums are the checksums that a checkpoint's state holds of its other files, by name; none where dir is no state, or
// one of a version without checksums.
func StateSums(dir string) (map[string]fsutil.Checksum, error) {
	p, err := ReadProgress(dir)
	if err == nil {
		return p.Files, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return readSums(dir)
}

// The checksum of state.json stands in it, of the file with noSum in its place.
const (
	sumKey = `"sum": "`
	noSum  = "00000000"
)

// writeProgress writes state.json.
func writeProgress(path string, p Progress) error {
	p.Sum = noSum
	raw, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	raw = append(raw, '\n')
	at, ok := sumIn(raw)
	if !ok {
		return fmt.Errorf("write %s: no place for the checksum", path)
	}
	copy(raw[at:], crcOf(raw))
	return fsutil.WriteFile(path, func(w io.Writer) error { _, err := w.Write(raw); return err })
}

// readProgress reads state.json and compares it with its checksum, where it has one.
func readProgress(path string) (Progress, error) {
	var p Progress
	raw, err := hf.ReadJSON(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, fmt.Errorf("nothing to resume from: %w", err)
	}
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err != nil {
		return p, &DamagedError{path, err.Error()}
	}
	at, ok := sumIn(raw)
	if !ok {
		if p.Files != nil || p.Sum != "" {
			return p, &DamagedError{path, "its checksum is gone"}
		}
		return p, nil // of a version without checksums
	}
	want := string(raw[at : at+len(noSum)])
	copy(raw[at:], noSum)
	if got := crcOf(raw); got != want {
		return p, &DamagedError{path, fmt.Sprintf("its checksum is %s and was %s", got, want)}
	}
	return p, nil
}

func crcOf(raw []byte) string {
	s := fsutil.NewSummer()
	_, _ = s.Write(raw)
	return s.Sum().CRC32C
}

// sumIn finds the checksum in a state.json.
func sumIn(raw []byte) (int, bool) {
	at := bytes.LastIndex(raw, []byte(sumKey))
	if at < 0 || at+len(sumKey)+len(noSum) > len(raw) {
		return 0, false
	}
	return at + len(sumKey), true
}

// check refuses what no run of these bounds can have written.
func (p Progress) check(path string, epochs, steps int) error {
	if steps == 0 {
		steps = noBound
	}
	for _, n := range []struct {
		name        string
		value, most int
	}{
		{"epoch", p.Epoch, epochs}, {"step", p.Step, steps}, {"batch", p.Batch, noBound}, {"rows", p.Rows, noBound}, {"correct", p.Correct, p.Rows},
		{"window_rows", p.WindowRows, noBound}, {"window_correct", p.WindowRight, p.WindowRows},
		{"samples", p.Samples, noBound}, {"tokens", p.Tokens, noBound}, {"skipped", p.Skipped, p.Step}, {"evaluated", p.Evaluated, p.Step}, {"stale", p.Stale, noBound},
		{"best_epoch", p.BestEpoch, p.Epoch + 1 /* where the end of an epoch was interrupted */}, {"best_step", p.BestStep, p.Step},
	} {
		if n.value < 0 || n.most != noBound && n.value > n.most {
			return &DamagedError{path, fmt.Sprintf("%s is %d", n.name, n.value)}
		}
	}
	for _, count := range p.Counts {
		if count < 0 || count > p.Step {
			return &DamagedError{path, fmt.Sprintf("a count of Adam's steps is %d, of %d", count, p.Step)}
		}
	}
	for _, n := range []struct {
		name  string
		value float64
	}{{"weight", p.Weight}, {"window_weight", p.WindowW}, {"seconds", p.Seconds}} {
		if n.value < 0 {
			return &DamagedError{path, fmt.Sprintf("%s is %v", n.name, n.value)}
		}
	}
	return nil
}

const noBound = -1

// Monitor follows a metric and says when it is at its best.
type Monitor struct {
	Metric   string // "val_acc", "val_loss", or "val_" and the name of a figure
	Patience int    // evaluations without improvement before stopping; 0: never
}

// Value is the metric's value in an evaluation, higher being better.
func (m Monitor) Value(e Evaluation) float64 {
	if m.Metric == "val_acc" {
		return e.Acc
	}
	for _, f := range e.Figures {
		switch {
		case m.Metric != "val_"+f.Name:
		case f.Less:
			return -f.Value
		default:
			return f.Value
		}
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
