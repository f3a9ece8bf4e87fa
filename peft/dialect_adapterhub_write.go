package peft

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
)

func (adapterHub) write(s *bindings.Scope, a *method, dir string, m model.Model, portable bool) error {
	i := m.Info()
	config, err := a.hubConfig(i)
	if err != nil {
		return err
	}
	// A language model's head has a file of its own, as a classifier's has.
	inHeadFile := func(name string) bool { return isHead(m, name) || len(m.Labels()) == 0 && name == hubLMHead }
	if names := slices.DeleteFunc(a.beside(m), inHeadFile); portable && len(names) > 0 {
		return fmt.Errorf("its files have no place for the model's own weights that were trained too (%s)", hf.List(names))
	}
	if err := makeDir(dir); err != nil {
		return err
	}
	kind, names := modelType(m), hubNames(m)
	if _, known := hubModels[kind]; portable && !known {
		return fmt.Errorf("it has no models of type %s", kind)
	}
	class := names.classifier
	if len(m.Labels()) == 0 {
		class = names.plain
	}
	about := func(more map[string]any) map[string]any {
		c := map[string]any{"hidden_size": i.Hidden, "model_type": kind, "model_class": class, "model_name": a.o.Base, "version": hubVersion}
		for k, v := range more {
			c[k] = v
		}
		return c
	}
	turn := 0 // of keys, for the library does not count a prefix's positions
	if i.Decoder && !a.uncounted() {
		turn = -a.o.VirtualTokens
	}
	return s.Run(func(s *bindings.Scope) error {
		name := a.o.AdapterName
		var ts, extra, head []hf.Named
		var aliases []alias
		switch {
		case a.Name() == "prefix":
			as := func(t bindings.Tensor) (bindings.Tensor, error) { return turnPrefix(s, a, t, turn) }
			part := func(n hf.Named) {
				for _, key := range prefixKeys(m, name, n.Name) { // the blocks share one
					aliases = append(aliases, alias{key, len(ts)})
				}
				ts = append(ts, n)
			}
			if a.o.PrefixProjection {
				parts, err := joinProjection(s, a, as, "wte.weight", "control_trans.0", "control_trans.2")
				if err != nil {
					return err
				}
				for _, n := range parts { // the library embeds in the hidden size
					if n.Name == "wte.weight" || n.Name == "control_trans.0.weight" {
						n.Tensor = widened(s, n.Tensor, i.Hidden)
					}
					part(n)
				}
				break
			}
			flat, err := as(foldPrefix(s, a, m))
			if err != nil {
				return err
			}
			part(hf.Named{Name: "control_trans", Tensor: s.Reshape(flat, -1)})
		default:
			for _, p := range a.params.All() {
				if strings.HasPrefix(p.Name, "heads.") {
					head = append(head, hf.Named{Name: p.Name, Tensor: p.T})
					continue
				}
				ts = append(ts, hf.Named{Name: hubKey(m, name, p.Name), Tensor: p.T})
			}
		}
		for _, w := range a.weights {
			n := hf.Named{Name: w.p.Name, Tensor: w.t}
			if inHeadFile(w.p.Name) {
				head = append(head, n)
			} else {
				extra = append(extra, n)
			}
		}
		steps := []func() error{
			func() error { return saveTorch(s, filepath.Join(dir, hubWeights), ts, aliases) },
			func() error {
				return hf.WriteJSON(filepath.Join(dir, "adapter_config.json"), about(map[string]any{"config": config, "name": name}))
			},
		}
		if len(extra) > 0 {
			steps = append(steps, func() error { return write(s, dir, hubExtra, extra) })
		}
		if len(head) > 0 {
			steps = append(steps,
				func() error { return saveTorch(s, filepath.Join(dir, hubHead), head, nil) },
				func() error {
					return hf.WriteJSON(filepath.Join(dir, "head_config.json"), about(a.hubHead(names.flexible)))
				})
		}
		return inTurn(append(steps, func() error { return a.writeSidecar(dir, a.o) })...)
	})
}

// hubModel is what the library calls parts of a model: its classes, the head being loaded only into one of the same name;
// the modules of a block that adapters and prefixes are put into; and the place of a prefix.
type hubModel struct{ classifier, plain, flexible, attn, ffn, prefix, place string }

// hubModels are by model_type.
var hubModels = map[string]hubModel{
	"distilbert":  encoderInHub("DistilBert", siteAttn, siteFFN, "attention", "self"),
	"bert":        encoderInHub("Bert", "attention.output", "output", "attention.self", "self_prefix"),
	"roberta":     encoderInHub("Roberta", "attention.output", "output", "attention.self", "self_prefix"),
	"xlm-roberta": encoderInHub("XLMRoberta", "attention.output", "output", "attention.self", "self_prefix"),
	"llama":       decoderInHub("Llama"),
	"mistral":     decoderInHub("Mistral"),
	"gpt2":        {"GPT2ForSequenceClassification", "GPT2LMHeadModel", "GPT2AdapterModel", siteAttn, siteFFN, "attn", "self_prefix"},
}

func encoderInHub(class, attn, ffn, prefix, place string) hubModel {
	return hubModel{class + "ForSequenceClassification", class + "Model", class + "AdapterModel", attn, ffn, prefix, place}
}

func decoderInHub(class string) hubModel {
	return hubModel{class + "ForSequenceClassification", class + "ForCausalLM", class + "AdapterModel", siteAttn, siteFFN, "self_attn", "self_prefix"}
}

// hubNames are the names for m: of its model_type or else, of a folder that is for gopeft, of its family, or such as they
// might be.
func hubNames(m model.Model) hubModel {
	if names, known := hubModels[modelType(m)]; known {
		return names
	}
	names, known := hubModels[m.Info().Family]
	if !known {
		names = hubModel{attn: siteAttn, ffn: siteFFN, prefix: m.Info().Attention, place: "self_prefix"}
	}
	return names
}

// hubHead is what head_config.json says of the head; a flexible one belongs to a class of its own.
func (a *method) hubHead(flexible string) map[string]any {
	ids := map[string]int{}
	for id, label := range a.labels {
		ids[label] = id
	}
	c := map[string]any{"config": nil, "name": nil, "num_labels": len(a.labels), "label2id": ids}
	if w, ok := a.tuner.(*headTuner); ok {
		c["name"], c["model_class"] = w.head.flexible, flexible
		kind := "classification"
		if a.problem == model.AnyLabels {
			kind = hubMultiLabel
		}
		c["config"] = map[string]any{
			"head_type": kind, "num_labels": len(a.labels), "layers": w.head.layers, "activation_function": w.head.act,
			"label2id": ids, "use_pooler": false, "bias": true, "dropout_prob": nil,
		}
	}
	return c
}

// saveTorch writes a .bin file, under the tensors' own names unless others are given.
func saveTorch(s *bindings.Scope, path string, ts []hf.Named, names []alias) error {
	out, err := hf.Outgoing(s, ts)
	if err != nil {
		return err
	}
	if names == nil {
		names = ownNames(out)
	}
	return writeTorch(path, out, names)
}

// hubVersion tells the adapters library which version's conventions a folder follows.
const hubVersion = "adapters.1.0.0"

// hubConfig is the method's settings as adapters writes them.
func (a *method) hubConfig(i model.Info) (map[string]any, error) {
	if b, ok := a.ownTuner().(*bottleneck); ok {
		p := b.place
		width := float64(b.width(i.Hidden))
		factor := float64(i.Hidden) / width
		if math.Floor(float64(i.Hidden)/factor) != width || factor != math.Trunc(factor) {
			factor = float64(i.Hidden) / (width + 0.5) // any factor whose floored quotient is the width
		}
		return map[string]any{
			"mh_adapter": p.attn, "output_adapter": p.ffn, "original_ln_before": p.readJoin, "original_ln_after": true,
			"ln_before": false, "ln_after": false, "residual_before_ln": true, "adapter_residual_before_ln": false,
			"non_linearity": a.o.Activation, "reduction_factor": jsonFloat(factor), "scaling": jsonFloat(b.scaling), "is_parallel": false, "phm_layer": false,
			"use_gating": false, "inv_adapter": nil, "inv_adapter_reduction_factor": nil, "leave_out": []int{}, "cross_adapter": false,
			"init_weights": "bert", "dropout": jsonFloat(0), "stochastic_depth": jsonFloat(0),
		}, nil
	}
	if a.Name() != "prefix" {
		return nil, fmt.Errorf("it holds houlsby, pfeiffer and prefix; save %s as %s", a.Name(), DialectPeft)
	}
	if i.Heads*i.HeadDim != i.Hidden {
		return nil, fmt.Errorf("its prefixes need heads of %d/%d, these are of %d", i.Hidden, i.Heads, i.HeadDim)
	}
	hidden := a.o.PrefixHidden
	if hidden == 0 {
		hidden = a.ownTuner().(*prefix).heads(i) * i.HeadDim
	}
	return map[string]any{
		"architecture": "prefix_tuning", "prefix_length": a.o.VirtualTokens, "flat": !a.o.PrefixProjection, "bottleneck_size": hidden,
		"non_linearity": "tanh", "dropout": jsonFloat(0), "encoder_prefix": true, "cross_prefix": true, "leave_out": []int{},
		"use_gating": false, "shared_gating": true,
	}, nil
}

// jsonFloat keeps a fraction's point in JSON: adapters tells 1.0 from 1.
type jsonFloat float64

// MarshalJSON implements json.Marshaler.
func (v jsonFloat) MarshalJSON() ([]byte, error) {
	text := strconv.FormatFloat(float64(v), 'g', -1, 64)
	if !strings.ContainsAny(text, ".e") {
		text += ".0"
	}
	return []byte(text), nil
}
