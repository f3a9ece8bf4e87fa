// Package traintest holds what tests of training share.
package traintest

import "gopeft/peft"

// MethodCase is a method with settings that fit the tiny models.
type MethodCase struct {
	Name, Method string
	Options      peft.Options
}

// MethodCases are all methods.
func MethodCases() []MethodCase {
	o := peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 3}, BottleneckOptions: peft.BottleneckOptions{Bottleneck: 4}, LLaMAAdapterOptions: peft.LLaMAAdapterOptions{AdapterLength: 4}, LoRAOptions: peft.LoRAOptions{Rank: 4}}
	var out []MethodCase
	for _, name := range peft.Methods() {
		out = append(out, MethodCase{name, name, o})
	}
	begun := o
	begun.LoRAInit, begun.RankPattern, begun.Layers = "pissa_niter_2", []string{"(q_.*|query)=3"}, []int{0}
	out = append(out, MethodCase{"lora-begun", "lora", begun})
	o.PrefixProjection, o.PrefixHidden = true, 6
	return append(out, MethodCase{"prefix-projection", "prefix", o})
}
