package peft

import (
	"fmt"
	"math"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
)

// FirstStepError lists the trainable parameters that a first backward pass does not train.
type FirstStepError struct {
	Absent    []string // no gradient reaches them
	Zero      []string // theirs is zero
	NotFinite []string // theirs is infinite or not a number
}

func (e *FirstStepError) Error() string {
	text := fmt.Sprintf("the first step trains nothing in %d tensors: no gradient in [%s], a zero one in [%s]",
		len(e.Absent)+len(e.Zero)+len(e.NotFinite), hf.List(e.Absent), hf.List(e.Zero))
	if len(e.NotFinite) > 0 {
		text += fmt.Sprintf(", one that is not finite in [%s]", hf.List(e.NotFinite))
	}
	return text
}

// CheckFirstStep checks the gradients of the first backward pass: every trainable parameter must have one, finite and,
// unless silent says that it may be (Method.Silent; nil: none may), not zero. What fails is in a *FirstStepError.
func CheckFirstStep(s *bindings.Scope, params []*model.Param, gradient func(p *model.Param) bindings.Tensor, silent func(name string) bool) error {
	var e FirstStepError
	err := s.Run(func(s *bindings.Scope) error {
		for _, p := range params {
			g := gradient(p)
			if !g.Defined() {
				e.Absent = append(e.Absent, p.Name)
				continue
			}
			switch norm := s.Norm([]bindings.Tensor{g}); {
			case math.IsNaN(norm) || math.IsInf(norm, 0):
				e.NotFinite = append(e.NotFinite, p.Name)
			case norm == 0 && (silent == nil || !silent(p.Name)):
				e.Zero = append(e.Zero, p.Name)
			}
		}
		return nil
	})
	if err == nil && len(e.Absent)+len(e.Zero)+len(e.NotFinite) > 0 {
		return &e
	}
	return err
}
