package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"

	"gopeft/model/fsutil"
)

// Number is a figure that may be missing: NaN and the infinities are null in
// JSON, null is NaN in Go.
type Number float64

// MarshalJSON implements json.Marshaler.
func (n Number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(n)) || math.IsInf(float64(n), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *Number) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		*n = Missing()
		return nil
	}
	return json.Unmarshal(text, (*float64)(n))
}

// Missing is a Number that was not measured.
func Missing() Number { return Number(math.NaN()) }

// Splits is a figure for each part of the data.
type Splits struct {
	Train Number `json:"train"`
	Val   Number `json:"val"`
	Test  Number `json:"test"`
}

// measured is whether there is a figure for any part.
func (s Splits) measured() bool {
	return isFinite(float64(s.Train)) || isFinite(float64(s.Val)) || isFinite(float64(s.Test))
}

// MissingSplits has no figure for any part.
func MissingSplits() Splits { return Splits{Missing(), Missing(), Missing()} }

// Params counts parameters.
type Params struct {
	Trainable int64 `json:"trainable"`
	Frozen    int64 `json:"frozen"`
	Total     int64 `json:"total"`
}

// Summary is summary.json: the final figures of a run.
type Summary struct {
	Method      string            `json:"method"`
	Model       string            `json:"model"`
	Params      Params            `json:"params"`
	Accuracy    Splits            `json:"accuracy"`
	Loss        Splits            `json:"loss"`
	Scores      map[string]Splits `json:"scores,omitempty"` // of regression and multi-label, by name
	Seconds     Number            `json:"seconds"`
	SamplesPerS Number            `json:"samples_per_s"`
	PeakRSSMB   Number            `json:"peak_rss_mb"`
	PeakCUDAMB  Number            `json:"peak_cuda_mb"`
	BestEpoch   int               `json:"best_epoch"`
	BestStep    int               `json:"best_step,omitempty"`   // where steps were evaluated inside epochs
	Fingerprint string            `json:"fingerprint,omitempty"` // of the settings and the data
	// Spread is the standard deviation of the accuracies, where they are the mean of several draws of examples; else nil.
	Spread *Splits `json:"accuracy_spread,omitempty"`
}

// Result is the summary's line in a comparison.
func (s Summary) Result() Result {
	r := Result{
		Method: s.Method, TrainAcc: float64(s.Accuracy.Train), ValAcc: float64(s.Accuracy.Val), TestAcc: float64(s.Accuracy.Test),
		Trainable: s.Params.Trainable, Total: s.Params.Total,
		Seconds: float64(s.Seconds), SamplesPerS: float64(s.SamplesPerS), PeakRSSMB: float64(s.PeakRSSMB), Spread: s.Spread,
	}
	if !s.Accuracy.measured() && s.Loss.measured() {
		r.Loss = &s.Loss
	}
	return r
}

// WriteSummary writes summary.json atomically.
func WriteSummary(path string, s Summary) error {
	return fsutil.WriteFile(path, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(s)
	})
}

// ReadSummary reads summary.json.
func ReadSummary(path string) (Summary, error) {
	content, err := fsutil.ReadSmall(path, fsutil.MaxSettings)
	if err != nil {
		return Summary{}, err
	}
	s := Summary{Accuracy: MissingSplits(), Loss: MissingSplits(),
		Seconds: Missing(), SamplesPerS: Missing(), PeakRSSMB: Missing(), PeakCUDAMB: Missing()}
	if err := json.Unmarshal(content, &s); err != nil {
		return Summary{}, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}
