package peft

import (
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
)

// savePeft writes a peft folder; portable, one that peft itself computes the same from.
func (a *adapter) savePeft(s *bindings.Scope, dir string, m model.Model, portable bool) error {
	config, err := a.peftConfig(m)
	if err != nil {
		return err
	}
	theirs := a.foreign(m)
	switch {
	case portable && theirs != nil:
		return theirs
	case !portable && a.name == "llama-adapter" && (theirs != nil || a.o.Gate != "layer" || a.o.GateTanh):
		config["peft_type"] = ownAdaption
	}
	return s.Run(func(s *bindings.Scope) error {
		o := a.o
		var gates []bindings.Tensor
		if portable && a.name == "llama-adapter" {
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
			key, t := p.Name, p.T
			if !promptLearning(a.name) {
				key = peftKeys(a.name, p.Name)[0]
			}
			if len(gates) > 0 && strings.HasSuffix(key, "."+adaptionGate) {
				t, gates = gates[0], gates[1:]
			}
			ts = append(ts, hf.Named{Name: key, Tensor: t})
		}
		if a.name == "prefix" {
			turn := 0
			if a.uncounted() { // peft counts a prefix's positions
				turn = a.o.VirtualTokens
			}
			if a.o.PrefixProjection {
				parts, err := joinProjection(s, a, turn, projEmbedding, projIn, "transform.2")
				if err != nil {
					return err
				}
				if err := write(s, dir, peftProjection, parts); err != nil {
					return err
				}
			}
			flat, err := foldPrefix(s, a, m, turn)
			if err != nil {
				return err
			}
			ts = []hf.Named{{Name: promptName, Tensor: flat}}
		}
		for _, t := range a.tuned {
			name := t.p.Name
			if module, ok := strings.CutSuffix(name, ".bias"); ok && config["bias"] != "none" && a.params.Get(module+".lora_A.weight") != nil {
				name = module + ".base_layer.bias"
			}
			ts = append(ts, hf.Named{Name: peftKeys(a.name, name)[0], Tensor: t.t})
		}
		return inTurn(
			func() error { return write(s, dir, peftWeights, ts) },
			func() error { return hf.WriteJSON(filepath.Join(dir, "adapter_config.json"), config) },
			func() error { return a.writeSidecar(dir, o) })
	})
}

// joinProjection gives the projection's parts with the last layer in one piece, which turns the keys as turnPrefix
// does.
func joinProjection(s *bindings.Scope, a *adapter, turn int, embedding, in, last string) ([]hf.Named, error) {
	var w, b []bindings.Tensor
	for i := range a.m.Hooks().Blocks {
		w = append(w, a.params.Get(outOf(i)+".weight").T)
		b = append(b, a.params.Get(outOf(i)+".bias").T)
	}
	get := func(name string) bindings.Tensor { return s.Detach(a.params.Get(name).T) }
	columns, err := turnPrefix(s, a.m, s.Transpose(s.Detach(s.Cat(0, w...)), 0, 1), turn)
	if err != nil {
		return nil, err
	}
	bias, err := turnPrefix(s, a.m, s.Detach(s.Cat(0, b...)), turn)
	return []hf.Named{
		{Name: embedding, Tensor: get(projEmbedding)}, {Name: in + ".weight", Tensor: get(projIn + ".weight")}, {Name: in + ".bias", Tensor: get(projIn + ".bias")},
		{Name: last + ".weight", Tensor: s.Transpose(columns, 0, 1)}, {Name: last + ".bias", Tensor: bias},
	}, err
}

// foldPrefix is the prefix [k, 2·L·Hkv·D], where need be what its projection computes, turned as turnPrefix does.
func foldPrefix(s *bindings.Scope, a *adapter, m model.Model, turn int) (bindings.Tensor, error) {
	var out bindings.Tensor
	s.NoGrad(func() {
		if p := a.params.Get(promptName); p != nil {
			out = s.Detach(p.T)
			return
		}
		var parts []bindings.Tensor
		for _, b := range m.Hooks().Blocks {
			parts = append(parts, b.Memory[0].(*prefixMemory).slots(s))
		}
		out = s.Cat(1, parts...)
	})
	return turnPrefix(s, m, out, turn)
}

// peftConfig is the adapter's adapter_config.json.
func (a *adapter) peftConfig(m model.Model) (map[string]any, error) {
	i, o := m.Info(), a.o
	c := map[string]any{"inference_mode": true, "base_model_name_or_path": nil, "revision": nil, "auto_mapping": nil, "task_type": "CAUSAL_LM"}
	if o.Base != "" {
		c["base_model_name_or_path"] = o.Base
	}
	if len(m.Labels()) > 0 {
		c["task_type"] = taskClassify
	}
	for _, t := range peftTypes {
		if t.method == a.name && c["peft_type"] == nil {
			c["peft_type"] = t.peft
		}
	}
	if c["peft_type"] == nil {
		return nil, errors.New("peft has no such method")
	}
	if i.Family == "distilbert" && len(m.Labels()) == 0 {
		c["task_type"] = "FEATURE_EXTRACTION"
	}
	if saved := a.savedModules(m); len(saved) > 0 {
		c["modules_to_save"] = saved
	}
	switch a.name {
	case "lora", "dora":
		l := core(a.technique).(*lora)
		c["r"], c["lora_alpha"], c["lora_dropout"], c["use_rslora"], c["use_dora"] = o.Rank, wholeNumber(o.Alpha), o.LoRADropout, o.RSLoRA, o.DoRA
		c["bias"], c["fan_in_fan_out"], c["init_lora_weights"] = a.peftBias(m), false, true
		c["target_modules"] = peftTargets(m, o.Targets)
		ranks, alphas := map[string]int{}, map[string]any{} // by full names, which old versions of peft do not take as patterns
		if l.perModule != nil {
			targets, _ := outlineOf(m).targets(o.Targets)
			for _, t := range targets {
				r, alpha := l.perModule(t.name)
				if r != o.Rank {
					ranks[t.name] = r
				}
				if alpha != o.Alpha {
					alphas[t.name] = wholeNumber(alpha)
				}
			}
		}
		c["rank_pattern"], c["alpha_pattern"] = ranks, alphas
	case "ia3":
		c["target_modules"], c["feedforward_modules"] = core(a.technique).(*ia3).peftTargets(m)
		c["fan_in_fan_out"], c["init_ia3_weights"] = false, true
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
		c["adapter_len"], c["adapter_layers"] = o.AdapterLength, i.Layers-core(a.technique).(*adaption).first(i.Layers)
		c["target_modules"] = lastPart(attention(m.Hooks().Blocks[0]))
	}
	return c, nil
}

// savedModules are the model's modules with parameters that the method trained, heads by their short names.
// peft leaves heads of adaption prompts alone and would not know where to put them. Biases beside LoRA go by bias.
// For virtual tokens peft knows heads without being told, and in old versions (0.11) there is no telling it.
func (a *adapter) savedModules(m model.Model) []string {
	var out []string
	if a.name != "llama-adapter" {
		out = slices.Clone(m.HeadNames())
	}
	if (a.name == "lora" || a.name == "dora") && a.peftBias(m) != "none" {
		return out
	}
	for _, t := range a.tuned {
		module := t.p.Name[:strings.LastIndex(t.p.Name, ".")]
		if matchesAny(a.o.Unfreeze, t.p.Name) && !slices.Contains(out, module) {
			out = append(out, module)
		}
	}
	if promptLearning(a.name) && len(out) == len(m.HeadNames()) {
		return nil
	}
	return out
}

func lastPart(name string) string { return name[strings.LastIndex(name, ".")+1:] }

// peftTargets writes targets as peft matches them, by the ends of names: slots and "all" become the last parts
// of their maps' names.
func peftTargets(m model.Model, targets []string) []string {
	var out []string
	plan := outlineOf(m)
	for _, t := range targets {
		found, _ := plan.targets([]string{t}) // Attach has found them
		for _, f := range found {
			name := lastPart(f.name)
			if f.name == t || strings.HasSuffix(f.name, "."+t) {
				name = t
			}
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// peftTargets are the targets as peft matches them, and those of them whose input is scaled. peft wants the
// latter among the former, so one that names maps of both kinds gives way to their full names.
func (v *ia3) peftTargets(m model.Model) (all, feedForward []string) {
	plan := outlineOf(m)
	all, feedForward = []string{}, []string{}
	for _, name := range peftTargets(m, v.o.Targets) {
		found, _ := plan.targets([]string{name})
		mixed := slices.ContainsFunc(found, func(t target) bool { return v.scalesInput(t) != v.scalesInput(found[0]) })
		for _, t := range found {
			if mixed {
				name = t.name
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
