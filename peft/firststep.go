package peft

import (
	"fmt"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
)

// CheckFirstStep checks the gradients of the first backward pass: every trainable parameter of a method must
// have one, finite and, unless the method starts it at rest, not zero. The error names those that fail.
func CheckFirstStep(s *bindings.Scope, method Method, m model.Model) error {
	var absent, bad, zero []string
	err := s.Run(func(s *bindings.Scope) error {
		for _, p := range method.Trainable(m) {
			g := s.Grad(p.T)
			switch {
			case !g.Defined():
				absent = append(absent, p.Name)
			case s.FirstNonFinite([]bindings.Tensor{g}) >= 0:
				bad = append(bad, p.Name)
			case s.Norm([]bindings.Tensor{g}) == 0 && !method.Silent(p.Name):
				zero = append(zero, p.Name)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var parts []string
	for _, b := range []struct {
		what  string
		names []string
	}{{"no gradient reached", absent}, {"the gradient is not finite for", bad}, {"the gradient is zero for", zero}} {
		if len(b.names) > 0 {
			parts = append(parts, fmt.Sprintf("%s %d of the trainable parameters (%s)", b.what, len(b.names), hf.List(b.names)))
		}
	}
	if len(parts) > 0 {
		return fmt.Errorf("%s: after the first step %s", method.Name(), strings.Join(parts, "; "))
	}
	return nil
}
