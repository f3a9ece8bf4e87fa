package model

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"gopeft/bindings"
)

// Rope is a config's rotary position embedding.
type Rope struct {
	Theta  float64
	Kind   string  // "", "linear", "dynamic", "llama3" or "longrope"
	Factor float64 // of context extension

	LowFreq, HighFreq float64 // llama3
	Original          int     // positions the model was trained with: llama3's, and dynamic's and longrope's limit

	Short, Long []float64 // longrope: divisors of each pair's angle for texts up to Original tokens, and for longer ones
	Amplitude   float64   // longrope: factor of what is turned; 0: 1
}

// ropeJSON is the rope_scaling of a config.json, or its rope_parameters, which hold rope_theta too.
type ropeJSON struct {
	Kind     string   `json:"rope_type"`
	OldKind  string   `json:"type"`
	Theta    *float64 `json:"rope_theta"`
	Factor   float64  `json:"factor"`
	LowFreq  float64  `json:"low_freq_factor"`
	HighFreq float64  `json:"high_freq_factor"`
	Original int      `json:"original_max_position_embeddings"`

	Short     []float64 `json:"short_factor"`
	Long      []float64 `json:"long_factor"`
	Amplitude *float64  `json:"attention_factor"`
	Partial   *float64  `json:"partial_rotary_factor"`
}

// rope is the embedding of a model with theta that was trained with so many positions; j may be nil.
func (j *ropeJSON) rope(theta float64, positions int) Rope {
	r := Rope{Theta: theta, Original: positions}
	if j == nil {
		return r
	}
	if j.Theta != nil {
		r.Theta = *j.Theta
	}
	if r.Kind = j.Kind; r.Kind == "" {
		r.Kind = j.OldKind
	}
	if r.Kind == "default" {
		r.Kind = ""
	}
	r.Factor, r.LowFreq, r.HighFreq = j.Factor, j.LowFreq, j.HighFreq
	if r.Kind == "llama3" || r.Kind == "longrope" {
		r.Original = j.Original
	}
	if r.Kind == "longrope" {
		r.Short, r.Long = j.Short, j.Long
		if j.Amplitude != nil {
			r.Amplitude = *j.Amplitude
		}
	}
	return r
}

// reach is the number of positions the scaled embedding serves, given the config's max_position_embeddings.
func (r Rope) reach(positions int) int {
	if r.Kind == "linear" || r.Kind == "dynamic" {
		return int(float64(positions) * r.Factor)
	}
	return positions
}

// check says what is wrong with the settings.
func (r Rope) check() error {
	switch r.Kind {
	case "":
		r.Factor = 1
	case "longrope":
		r.Factor = 1
		if len(r.Long) == 0 || r.Original < 1 {
			return errors.New("rope_scaling: longrope without long_factor or original_max_position_embeddings")
		}
		for _, f := range append(slices.Clone(r.Short), r.Long...) {
			if !(f > 0) || math.IsInf(f, 0) {
				return fmt.Errorf("rope_scaling: a factor of longrope is %v", f)
			}
		}
		if !(r.Amplitude > 0 && r.Amplitude < 1e6) {
			return fmt.Errorf("rope_scaling: attention_factor is %v", r.Amplitude)
		}
	case "linear", "dynamic":
	case "llama3":
		if !(r.LowFreq > 0) || !(r.HighFreq > r.LowFreq) || r.Original < 1 {
			return fmt.Errorf("rope_scaling: low_freq_factor %v, high_freq_factor %v, original_max_position_embeddings %d do not fit together", r.LowFreq, r.HighFreq, r.Original)
		}
	default:
		return fmt.Errorf("rope_scaling: type %q is not supported (linear, dynamic, llama3, longrope)", r.Kind)
	}
	if !(r.Factor >= 1) || math.IsInf(r.Factor, 0) || r.Factor > 1e6 {
		return fmt.Errorf("rope_scaling: factor is %v, want 1 or more", r.Factor)
	}
	if !(r.Theta > 1) || math.IsInf(r.Theta, 0) {
		return fmt.Errorf("rope_theta is %v, want more than 1", r.Theta)
	}
	return nil
}

// Restretches reports whether the rotation of what was there before is another one once a text that has from tokens has
// grown to so many: keys that a cache holds would be of the former.
func Restretches(m Model, from, to int) bool {
	r, ok := m.(*rotaryDecoder)
	return ok && r.cfg.Rope.Kind == "longrope" && from <= r.cfg.Rope.Original && to > r.cfg.Rope.Original
}

// TurnKeys gives keys [..., headDim] in fp32 as a rotation by so many positions more leaves them. Where rotations
// depend on a text's length, or the model has none, it is an error.
func TurnKeys(s *bindings.Scope, m Model, keys bindings.Tensor, positions int) (bindings.Tensor, error) {
	l, ok := m.(interface{ rope() (Rope, error) })
	if !ok {
		return bindings.Tensor{}, errors.New("the model does not rotate its keys")
	}
	rope, err := l.rope()
	if err != nil {
		return bindings.Tensor{}, err
	}
	headDim := m.Info().HeadDim
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		at := s.Int64sOn(keys.Device(), []int64{int64(positions)}, 1, 1)
		cos, sin := rotation(s, at, rope.frequencies(headDim, 0), bindings.Float)
		x := s.Reshape(s.To(keys, bindings.Float), 1, -1, 1, int64(headDim))
		return s.Reshape(s.Rotate(x, cos, sin), keys.Shape()...)
	}), nil
}

// frequencies is each pair of dimensions' angle per position, in fp32 steps as transformers computes them,
// for a batch whose longest row has length tokens.
func (r Rope) frequencies(headDim, length int) []float32 {
	theta := r.Theta
	if r.Kind == "dynamic" && length > r.Original {
		// bloc97's NTK-aware scaling with the base grown by the length in use.
		d, ratio := float64(headDim), float64(length)/float64(r.Original)
		theta *= math.Pow(r.Factor*ratio-(r.Factor-1), d/(d-2))
	}
	f := make([]float32, headDim/2)
	for i := range f {
		exponent := float32(2*i) / float32(headDim)
		f[i] = 1 / float32(math.Pow(float64(float32(theta)), float64(exponent)))
		switch r.Kind {
		case "linear":
			f[i] /= float32(r.Factor)
		case "llama3":
			f[i] = r.llama3(f[i])
		case "longrope":
			divisors := r.Short
			if length > r.Original {
				divisors = r.Long
			}
			f[i] = 1 / (float32(divisors[i]) * float32(math.Pow(float64(float32(theta)), float64(exponent))))
		}
	}
	return f
}

// llama3 keeps high frequencies, divides low ones by the factor and blends those between (LLaMA 3.1).
func (r Rope) llama3(f float32) float32 {
	original := float64(r.Original)
	wavelength := 2 * math.Pi / float64(f)
	switch {
	case wavelength < original/r.HighFreq:
		return f
	case wavelength > original/r.LowFreq:
		return f / float32(r.Factor)
	}
	smooth := (original/wavelength - r.LowFreq) / (r.HighFreq - r.LowFreq)
	return float32((1-smooth)*float64(f)/r.Factor + smooth*float64(f))
}

// rotation is the cosines and sines [B, 1, S, headDim] in dtype d for positions [B, S] of any number dtype,
// angles computed in fp32. Both halves of headDim turn by the same angles.
func rotation(s *bindings.Scope, positions bindings.Tensor, frequencies []float32, d bindings.DType) (cos, sin bindings.Tensor) {
	return s.In2(func(s *bindings.Scope) (bindings.Tensor, bindings.Tensor) {
		dev := positions.Device()
		f := s.ToDevice(s.FromFloat32s(frequencies, 1, 1, 1, int64(len(frequencies))), bindings.Float, dev)
		p := s.Reshape(s.To(positions, bindings.Float), positions.Size(0), 1, positions.Size(1), 1)
		angles := s.Mul(p, f)
		angles = s.Cat(-1, angles, angles)
		return s.To(s.Cos(angles), d), s.To(s.Sin(angles), d)
	})
}

// turn is the tables of a rotation; without them nothing turns.
type turn struct{ cos, sin bindings.Tensor }

// both turns the first dimensions of queries and keys, as many as the tables have.
func (t turn) both(s *bindings.Scope, q, k bindings.Tensor) (bindings.Tensor, bindings.Tensor) {
	if !t.cos.Defined() {
		return q, k
	}
	return s.In2(func(s *bindings.Scope) (bindings.Tensor, bindings.Tensor) {
		cos, sin := s.To(t.cos, q.DType()), s.To(t.sin, q.DType())
		dims := cos.Size(-1)
		if dims == q.Size(-1) {
			return s.RotateBoth(q, k, cos, sin)
		}
		first := func(x bindings.Tensor) bindings.Tensor { return s.Narrow(x, -1, 0, dims) }
		a, b := s.RotateBoth(first(q), first(k), cos, sin)
		return s.Cat(-1, a, s.From(q, -1, dims)), s.Cat(-1, b, s.From(k, -1, dims))
	})
}
