package peft

import (
	"strings"

	"gopeft/model"
)

// full trains the model's own weights in place: all of them, or those that patterns name.
type full struct {
	plain
	o Options
}

func (f *full) tunes(_ model.Model, name string) bool {
	return len(f.o.Unfreeze) == 0 || matchesAny(f.o.Unfreeze, name)
}

// silent: keys' biases drop out of the softmax, which does not see a shift common to all of them.
func (f *full) silent(name string) bool { return silentBias(name) }

func silentBias(name string) bool { return strings.HasSuffix(name, ".k_lin.bias") }

func (f *full) lr() float64 { return 5e-5 }

func (f *full) describe() string {
	if len(f.o.Unfreeze) == 0 {
		return "every weight of the model, from the checkpoint's values"
	}
	return "the model's weights matching " + strings.Join(f.o.Unfreeze, " ") + ", from the checkpoint's values"
}

// last trains copies of the model's last layers: the classification head or, in a language model, the final
// norm and the output embeddings.
type last struct {
	plain
	o Options
}

func (l *last) tunes(m model.Model, name string) bool {
	c, causal := m.(model.CausalLM)
	if !causal || !c.LMWeight().Defined() {
		return false // a classifier's head is trained by every method
	}
	return c.LMWeight().Same(m.Params().Get(name).Value()) || isNorm(name) && !isBlockNorm(m, name)
}

func (l *last) silent(name string) bool { return silentBias(name) }
func (l *last) lr() float64             { return 1e-3 }

func (l *last) describe() string {
	return strings.Join(append([]string{"the head, or final norm and output embeddings, the rest frozen"}, l.o.Unfreeze...), " and ")
}

func matchesAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if ok, _ := model.Matches(p, name); ok {
			return true
		}
	}
	return false
}
