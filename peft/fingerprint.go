package peft

import (
	"fmt"
	"math"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// fingerprint identifies a base model whatever dtype it is loaded in: its shape, and a sample of its weights.
type fingerprint struct {
	Family  string    `json:"family"`
	Vocab   int       `json:"vocab"`
	Hidden  int       `json:"hidden"`
	Layers  int       `json:"layers"`
	Heads   int       `json:"heads"`
	KVHeads int       `json:"kv_heads"`
	FFN     int       `json:"ffn"`
	Sample  []float64 `json:"sample"` // of the middle row of the embeddings and of every block's query map
	// Quantised lists which of them were held quantised: their weights are a little off.
	Quantised []int `json:"quantised,omitempty"`
}

const samplesPerRow = 4

func fingerprintOf(s *bindings.Scope, m model.Model) *fingerprint {
	i := m.Info()
	f := &fingerprint{Family: i.Family, Vocab: i.Vocab, Hidden: i.Hidden, Layers: i.Layers, Heads: i.Heads, KVHeads: i.KVHeads, FFN: i.FFN}
	weights := []*model.Param{m.Hooks().Words}
	for _, b := range m.Hooks().Blocks {
		if q, ok := b.Module(model.Q); ok {
			weights = append(weights, q.Dense.W)
		}
	}
	for n, w := range weights {
		if w.Quantised() {
			f.Quantised = append(f.Quantised, n)
		}
		_ = s.Run(func(s *bindings.Scope) error {
			middle := s.Detach(w.Rows(s, s.Int64sOn(w.Device(), []int64{w.T.Size(0) / 2}, 1), bindings.Double))
			row := s.Narrow(s.Select(middle, 0, 0), 0, 0, min(samplesPerRow, w.T.Size(1)))
			for _, v := range row.Float64s() {
				f.Sample = append(f.Sample, float64(float32(v)))
			}
			return nil
		})
	}
	return f
}

// shape compares what makes an adapter impossible on another model.
func (f *fingerprint) shape(o *fingerprint) error {
	for _, d := range []struct {
		what      string
		want, got any
	}{
		{"architecture", f.Family, o.Family}, {"hidden size", f.Hidden, o.Hidden}, {"number of layers", f.Layers, o.Layers},
		{"number of heads", f.Heads, o.Heads}, {"number of key/value heads", f.KVHeads, o.KVHeads}, {"feed-forward size", f.FFN, o.FFN},
	} {
		if d.want != d.got {
			return fmt.Errorf("the adapter was trained on a model with %s %v, this one has %v", d.what, d.want, d.got)
		}
	}
	return nil
}

// sameWeights reports whether the samples agree to the rounding of bf16, those of quantised weights left out.
func (f *fingerprint) sameWeights(o *fingerprint) bool {
	if len(f.Sample) != len(o.Sample) {
		return false
	}
	scale := 0.0
	for _, v := range f.Sample {
		scale = max(scale, math.Abs(v))
	}
	for i, v := range f.Sample {
		if n := i / samplesPerRow; slices.Contains(f.Quantised, n) || slices.Contains(o.Quantised, n) {
			continue
		}
		if !(math.Abs(v-o.Sample[i]) <= 0.008*math.Abs(v)+1e-3*scale) {
			return false
		}
	}
	return true
}

// SameBase compares m with what the adapter at path has noted of the base it was trained over: known is false where it
// has noted nothing.
func (c Catalog) SameBase(s *bindings.Scope, path string, m model.Model) (same, known bool, err error) {
	f, err := c.open(path)
	if err != nil {
		return false, false, err
	}
	defer f.Close()
	if f.sidecar == nil || f.sidecar.Fingerprint == nil {
		return false, false, nil
	}
	was, now := f.sidecar.Fingerprint, fingerprintOf(s, m)
	return was.shape(now) == nil && was.sameWeights(now), true, nil
}

// otherBase compares the base model's name that others' files record with what m is called, by the folder it was
// loaded from or by its config, and gives m's name if they differ. Where either has no name there is nothing to
// say.
func otherBase(recorded string, m model.Model) string {
	var names []string
	if of, _ := m.Config()["_name_or_path"].(string); shortName(of) != "" {
		names = append(names, of)
	}
	if shortName(m.Path()) != "" {
		names = append(names, m.Path())
	}
	want := shortName(recorded)
	same := func(name string) bool { return shortName(name) == want }
	if want == "" || len(names) == 0 || slices.ContainsFunc(names, same) {
		return ""
	}
	return names[len(names)-1]
}

// shortName is what a model's name on the hub and its folder's path have in common: the last part, in lower case,
// and the repository's name for a folder of the hub's cache.
func shortName(name string) string {
	name = strings.TrimRight(filepath.ToSlash(name), "/")
	for part := range strings.SplitSeq(name, "/") {
		if repo, ok := strings.CutPrefix(part, "models--"); ok {
			name = repo[strings.LastIndex(repo, "--")+1:]
		}
	}
	name = strings.Trim(path.Base(name), "-.")
	return strings.ToLower(strings.TrimSuffix(name, ".gguf"))
}
