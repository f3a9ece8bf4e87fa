package peft

import (
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
)

func (hfPeft) write(s *bindings.Scope, a *method, dir string, m model.Model, portable bool) error {
	var parts partsAsOne
	if portable {
		parts = a.partsAsOne(m)
	}
	config := a.hfConfig(m, parts)
	theirs := a.foreign(m)
	switch {
	case portable && theirs != nil:
		return theirs
	case !portable && a.Name() == "llama-adapter" && (theirs != nil || a.o.Gate != "layer" || a.o.GateTanh):
		config["peft_type"] = ownAdaption
	}
	return s.Run(func(s *bindings.Scope) error {
		o := a.o
		var gates []bindings.Tensor
		if portable && a.Name() == "llama-adapter" {
			var err error
			if gates, err = a.layerGates(s); err != nil {
				return err
			}
			o.Gate, o.GateTanh = "layer", false
		}
		if err := makeDir(dir); err != nil {
			return err
		}
		var ts []hf.Named
		for _, p := range a.params.All() {
			if a.frozen[p.Name] {
				continue // it is saved with what it is joined to
			}
			key, t := p.Name, a.joined(s, p)
			if !promptLearning(a.Name()) {
				key = hfKeys(a.Name(), p.Name)[0]
			}
			if len(gates) > 0 && strings.HasSuffix(key, "."+adaptionGate) {
				t, gates = gates[0], gates[1:]
			}
			if !parts.has(p.Name) {
				ts = append(ts, hf.Named{Name: key, Tensor: t})
			}
		}
		for _, n := range parts.joined(s, a) {
			n.Name = hfKeys(a.Name(), n.Name)[0]
			ts = append(ts, n)
		}
		if a.Name() == "prefix" {
			turn := 0
			if a.uncounted() { // peft counts a prefix's positions
				turn = a.o.VirtualTokens
			}
			as := func(t bindings.Tensor) (bindings.Tensor, error) {
				t, err := turnPrefix(s, a, t, turn)
				if err != nil {
					return t, err
				}
				return a.grouped(s, t)
			}
			if a.o.PrefixProjection {
				parts, err := joinProjection(s, a, as, projEmbedding, projIn, "transform.2")
				if err != nil {
					return err
				}
				if err := write(s, dir, hfProjection, parts); err != nil {
					return err
				}
			}
			flat, err := as(foldPrefix(s, a, m))
			if err != nil {
				return err
			}
			ts = []hf.Named{{Name: promptName, Tensor: flat}}
		}
		for _, w := range a.weights {
			name := a.hfName(m, w.p)
			if module, ok := strings.CutSuffix(name, ".bias"); ok && config["bias"] != "none" && a.params.Get(module+loraA) != nil {
				name = module + ".base_layer.bias"
			}
			ts = append(ts, hf.Named{Name: hfKeys(a.Name(), name)[0], Tensor: w.t})
		}
		return inTurn(
			func() error { return write(s, dir, hfWeights, ts) },
			func() error { return hf.WriteJSON(filepath.Join(dir, "adapter_config.json"), config) },
			func() error { return a.writeSidecar(dir, o) })
	})
}

// hfConfig is the adapter's adapter_config.json.
func (a *method) hfConfig(m model.Model, parts partsAsOne) map[string]any {
	i, o := m.Info(), a.o
	if len(parts) > 0 {
		o.Targets = parts.targets(m, o.Targets)
	}
	c := map[string]any{"inference_mode": true, "base_model_name_or_path": nil, "revision": nil, "auto_mapping": nil, "task_type": "CAUSAL_LM"}
	if o.Base != "" {
		c["base_model_name_or_path"] = o.Base
	}
	if len(m.Labels()) > 0 {
		c["task_type"] = taskClassify
	}
	if c["peft_type"] = hfTypes[a.Name()]; c["peft_type"] == "" {
		c["peft_type"] = ownType(a.Name())
	}
	if !i.Decoder && len(m.Labels()) == 0 {
		c["task_type"] = "FEATURE_EXTRACTION"
	}
	if saved := a.savedModules(m); len(saved) > 0 {
		c["modules_to_save"] = saved
	}
	switch a.Name() {
	case "lora", "dora":
		l := a.ownTuner().(*lora)
		saved := func(rank int, alpha float64) (int, float64) { return rank, alpha }
		if o.LoRAInit != "" {
			saved = func(rank int, alpha float64) (int, float64) { return 2 * rank, joinedAlpha(alpha, o.RSLoRA) }
		}
		rank, alpha := saved(o.Rank, o.Alpha)
		c["r"], c["lora_alpha"], c["lora_dropout"], c["use_rslora"], c["use_dora"] = rank, wholeNumber(alpha), o.LoRADropout, o.RSLoRA, o.DoRA
		c["bias"], c["fan_in_fan_out"], c["init_lora_weights"] = a.hfBias(m), transposed(m), true
		modules := hfTargets(m, o.Targets)
		tokens := map[string]any{}
		tables, _ := l.changes(structureOf(m)) // Adds has found them
		for _, t := range tables {
			if t.lora {
				modules = append(modules, t.name)
			}
			if len(t.tokens) > 0 {
				tokens[lastPart(t.name)] = t.tokens
			}
		}
		c["target_modules"] = modules
		if len(o.Layers) > 0 {
			c["layers_to_transform"] = o.Layers
		}
		if len(tokens) > 0 {
			c["trainable_token_indices"] = tokens
		}
		ranks, alphas := map[string]int{}, map[string]any{} // by full names, which old versions of peft do not take as patterns
		if l.perModule != nil || o.LoRAInit != "" {
			targets, _ := o.targets(structureOf(m))
			maps := len(namesOf(targets, nil))
			for i, name := range namesOf(targets, tables) {
				r, a := l.rankAlpha(name)
				if i < maps { // tables begin as always
					r, a = saved(r, a)
				}
				if r != rank {
					ranks[name] = r
				}
				if a != alpha {
					alphas[name] = wholeNumber(a)
				}
			}
		}
		for _, p := range parts {
			n := float64(len(p.parts))
			if ranks[p.name] = len(p.parts) * rank; o.RSLoRA {
				n = math.Sqrt(n)
			}
			alphas[p.name] = wholeNumber(n * alpha)
		}
		c["rank_pattern"], c["alpha_pattern"] = ranks, alphas
	case "oft":
		a.ownTuner().(*oft).hfConfig(m, c)
	case "boft":
		a.ownTuner().(*boft).hfConfig(m, c)
	case "ln-tuning":
		norms := []string{}
		for _, w := range a.weights {
			if name := moduleOf(w.p); a.ownTuner().Trains(m, w.p) && !slices.Contains(norms, name) {
				norms = append(norms, name)
			}
		}
		c["target_modules"] = norms
	case "ia3":
		c["target_modules"], c["feedforward_modules"] = a.ownTuner().(*ia3).hfTargets(m, o.Targets)
		c["fan_in_fan_out"], c["init_ia3_weights"] = transposed(m), true
	case "prompt":
		c["num_virtual_tokens"], c["token_dim"], c["num_layers"], c["num_attention_heads"] = o.VirtualTokens, i.Hidden, i.Layers, i.Heads
		c["num_transformer_submodules"], c["prompt_tuning_init"], c["prompt_tuning_init_text"], c["tokenizer_name_or_path"] = 1, "RANDOM", nil, nil
	case "prefix":
		width := i.KVHeads * i.HeadDim
		c["num_virtual_tokens"], c["token_dim"], c["num_layers"], c["num_attention_heads"] = o.VirtualTokens, width, i.Layers, i.KVHeads
		c["num_transformer_submodules"], c["encoder_hidden_size"], c["prefix_projection"] = 1, width, false
		if o.PrefixProjection && o.PrefixHidden > 0 {
			c["encoder_hidden_size"] = o.PrefixHidden
		}
	case "llama-adapter", "llama-adapter-v2":
		c["adapter_len"], c["adapter_layers"] = o.AdapterLength, i.Layers-a.ownTuner().(*llamaAdapter).first(i.Layers)
		c["target_modules"] = i.Attention
	}
	return c
}

// savedModules are the model's modules with parameters that the method trained, heads by their short names.
// peft leaves heads of adaption prompts alone and would not know where to put them. Biases beside LoRA go by bias.
// For virtual tokens peft knows heads without being told, and in old versions (0.11) there is no telling it.
func (a *method) savedModules(m model.Model) []string {
	var out []string
	if a.Name() != "llama-adapter" {
		out = slices.Clone(m.HeadNames())
	}
	if (a.Name() == "lora" || a.Name() == "dora") && a.hfBias(m) != "none" {
		return out
	}
	for _, t := range a.weights {
		module := moduleOf(t.p)
		if matchesAny(a.o.Unfreeze, t.p.Name) && !slices.Contains(out, module) {
			out = append(out, module)
		}
	}
	if l, ok := a.ownTuner().(*lora); ok {
		for _, t := range l.tables {
			if t.whole {
				out = append(out, t.name)
			}
		}
	}
	if promptLearning(a.Name()) && len(out) == len(m.HeadNames()) {
		return nil
	}
	return out
}

// hfTargets writes targets as peft matches them, by the ends of names: slots and "all" become the last parts
// of their maps' names, or more of them where other maps end so.
func hfTargets(m model.Model, targets []string) []string {
	var out []string
	plan := structureOf(m)
	all, _ := plan.Targets(targets...) // Attach has found them
	module := func(t Target) string { name, _, _ := t.span(); return name }
	chosen := map[string]bool{}
	for _, t := range all {
		chosen[module(t)] = true
	}
	maps := plan.AllTargets()
	others := func(end string) bool { // whether it names more than is adapted, of the blocks or elsewhere
		for _, p := range m.Params().All() {
			name, weight := strings.CutSuffix(p.Name, ".weight")
			if weight && endsIn(name, end) && !slices.ContainsFunc(maps, func(t Target) bool { return t.Name == name }) {
				return true
			}
		}
		return slices.ContainsFunc(maps, func(t Target) bool {
			return endsIn(t.Name, end) && !chosen[t.Name] && !chosen[t.Stored()] || endsIn(t.Stored(), end) && !chosen[t.Stored()]
		})
	}
	for _, t := range targets {
		found, _ := plan.Targets(t)
		for _, f := range found {
			full := module(f)
			name := lastPart(full)
			if endsIn(full, t) {
				name = t
			}
			for name != full && others(name) {
				name = longer(full, name)
			}
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// hfTargets are the targets as peft matches them, and those of them whose input is scaled. peft wants the
// latter among the former, so one that names maps of both kinds gives way to their full names, as all do where only
// some layers are changed.
func (v *ia3) hfTargets(m model.Model, targets []string) (all, feedForward []string) {
	plan := structureOf(m)
	all, feedForward = []string{}, []string{}
	for _, name := range hfTargets(m, targets) {
		found, _ := TargetOptions{Targets: []string{name}, Layers: v.o.Layers}.targets(plan)
		mixed := len(v.o.Layers) > 0 || slices.ContainsFunc(found, func(t Target) bool { return v.scalesInput(t) != v.scalesInput(found[0]) })
		for _, t := range found {
			if mixed {
				name, _, _ = t.span()
			}
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
			if v.scalesInput(t) && !slices.Contains(feedForward, name) {
				feedForward = append(feedForward, name)
			}
		}
	}
	return all, feedForward
}

// wholeNumber keeps 16.0 from being written as anything but 16: peft types lora_alpha as an integer.
func wholeNumber(v float64) any {
	if n, err := strconv.Atoi(strconv.FormatFloat(v, 'f', -1, 64)); err == nil {
		return n
	}
	return v
}
