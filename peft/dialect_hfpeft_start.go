package peft

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"gopeft/bindings"
)

// Folders whose LoRA began with a part of the weights that the base gives up. What gopeft writes of such a LoRA is a plain
// one of twice the rank, which peft computes with the base as it is; gopeft.yaml tells that it can be taken apart again. In
// peft's own folders only the trained half is, unless peft has converted them; peft takes the other half anew from the base's
// weights, and so is it done here.

// startsOf are ways to begin that change the base, by the beginning of init_lora_weights, and why no folder says how.
var startsOf = []struct{ prefix, why string }{
	{startPissaN, "begins at random, so that no two times are the same"},
	{startPissa, ""},
	{startOLoRA, ""},
	{"corda", "takes it from data"},
	{"lora_ga", "takes it from data"},
	{"loftq", "rounds the base to few bits"},
}

// start reads init_lora_weights: a way to begin that changes the base, "" for another one.
func (c *hfConfig) start() (string, error) {
	name, _ := c.Init.(string)
	for _, x := range startsOf {
		switch {
		case !strings.HasPrefix(strings.ToLower(name), x.prefix):
		case x.why == "":
			return x.prefix, nil
		default:
			return "", fmt.Errorf("init_lora_weights %q changes the base model's weights, which the folder does not hold, and %s: export the adapter as plain LoRA first", name, x.why)
		}
	}
	return "", nil
}

// readStart tells how LoRA began: by gopeft.yaml where the file has it joined, else by the configuration.
func (c *hfConfig) readStart(f *adapterFiles) (err error) {
	if f.Options.LoRAInit, err = c.start(); err != nil || f.sidecar == nil || f.sidecar.Options.LoRAInit == "" {
		return err
	}
	o := f.sidecar.Options
	if alpha := joinedAlpha(o.Alpha, o.RSLoRA); c.Rank != 2*o.Rank || c.RSLoRA != o.RSLoRA || math.Abs(c.Alpha-alpha) > 1e-9*alpha {
		return fmt.Errorf("r is %d and lora_alpha %g, for the rank of %d and alpha of %g in %s they are %d and %g", c.Rank, c.Alpha, o.Rank, o.Alpha, sidecarName, 2*o.Rank, alpha)
	}
	c.Rank, c.Alpha, c.joined, f.Options.LoRAInit = o.Rank, o.Alpha, true, o.LoRAInit
	return checkStart(o.LoRAInit)
}

// patterned completes the options by rank_pattern and alpha_pattern, and gives the ranks and alphas by map.
func (c *hfConfig) patterned(f *adapterFiles, l *lora, targets []Target, o *Options) error {
	if f.sidecar == nil {
		var failed [2]error
		o.RankPattern, failed[0] = c.RankPattern.asOptions("rank_pattern", namesOf(targets, l.tables))
		o.AlphaPattern, failed[1] = c.AlphaPattern.asOptions("alpha_pattern", namesOf(targets, l.tables))
		if err := errors.Join(failed[:]...); err != nil {
			return err
		}
	}
	var err error
	if l.o, err = f.complete(*o); err != nil {
		return err
	}
	if c.joined || len(c.RankPattern)+len(c.AlphaPattern) == 0 {
		l.perModule, err = l.o.perModule()
	} else {
		l.perModule, err = c.perModule()
	}
	return err
}

// split is a joined factor's shape in the file, and how it is taken apart.
func (c *hfConfig) split(n NewParam) (shape []int64, dim int, first string) {
	if c.joined {
		if name, ok := strings.CutSuffix(n.Name, loraA); ok {
			return []int64{2 * n.Shape[0], n.Shape[1]}, 0, name + startA
		}
		if name, ok := strings.CutSuffix(n.Name, loraB); ok {
			return []int64{n.Shape[0], 2 * n.Shape[1]}, 1, name + startB
		}
	}
	return n.Shape, 0, ""
}

// take puts a tensor of the file among a method's own.
func (c *hfConfig) take(s *bindings.Scope, n NewParam, t bindings.Tensor, own map[string]bindings.Tensor) {
	_, dim, first := c.split(n)
	if first != "" {
		r := n.Shape[dim]
		own[first] = s.Narrow(t, dim, r, r)
		t = s.Narrow(t, dim, 0, r)
	}
	own[n.Name] = t
}
