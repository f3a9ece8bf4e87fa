package peft

import (
	"fmt"
	"strings"

	"gopeft/bindings"
)

// activations are the element-wise functions between a bottleneck's maps, by their names in adapter files. Some
// have two names there.
var activations = []struct {
	name string
	f    func(*bindings.Scope, bindings.Tensor) bindings.Tensor
}{
	{"swish", (*bindings.Scope).SiLU},
	{"silu", (*bindings.Scope).SiLU},
	{"relu", (*bindings.Scope).ReLU},
	{"gelu", (*bindings.Scope).GELU},
	{"gelu_new", (*bindings.Scope).GELUTanh},
	{"tanh", (*bindings.Scope).Tanh},
}

// activationNames are what activation knows, the default first.
func activationNames(first string) []string {
	names := []string{first}
	for _, a := range activations {
		if a.name != first {
			names = append(names, a.name)
		}
	}
	return names
}

// activation finds an element-wise function by its name in adapter files, which ignores case as there.
func activation(name string) (func(*bindings.Scope, bindings.Tensor) bindings.Tensor, error) {
	for _, a := range activations {
		if a.name == strings.ToLower(name) {
			return a.f, nil
		}
	}
	return nil, fmt.Errorf("activation %q is not supported (%s)", name, strings.Join(activationNames("swish"), ", "))
}
