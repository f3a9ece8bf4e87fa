package peft

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// Checkpoint files of LLaMA-Adapter: those of lit-llama and litgpt, one prompt table and one gate per layer, no
// activation on the gate; and those of the method's own repository, one table for all layers and gates through
// tanh. Prompts enter through the block's own maps, so they are the same in every layout of rotary positions.

const officialPrompts = "adapter_query.weight"

var (
	litKey       = regexp.MustCompile(`^transformer\.h\.(\d{1,4})\.attn\.(adapter_wte\.weight|gating_factor)$`)
	officialGate = regexp.MustCompile(`^layers\.(\d{1,4})\.attention\.gate$`)
)

// checkpointLayer is what a file holds for one layer.
type checkpointLayer struct {
	prompt, gate *files.Entry
}

func openCheckpoint(path string) (*folder, error) {
	archive, err := files.Open(path)
	if err != nil {
		return nil, err
	}
	f := &folder{Info: Info{Path: path, Dialect: DialectLitLLaMA, Method: "llama-adapter"}}
	f.close = append(f.close, archive)
	fail := func(format string, args ...any) (*folder, error) {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, fmt.Errorf(format, args...)), f.Close())
	}
	layers := map[int]*checkpointLayer{}
	at := func(digits string) *checkpointLayer {
		i, _ := strconv.Atoi(digits)
		if layers[i] == nil {
			layers[i] = &checkpointLayer{}
		}
		return layers[i]
	}
	var table *files.Entry
	var unexpected []string
	for _, e := range archive.Entries() {
		if m := litKey.FindStringSubmatch(e.Name); m != nil {
			if l := at(m[1]); m[2] == "gating_factor" {
				l.gate = &e
			} else {
				l.prompt = &e
			}
		} else if m := officialGate.FindStringSubmatch(e.Name); m != nil {
			at(m[1]).gate = &e
		} else if e.Name == officialPrompts {
			table = &e
		} else {
			unexpected = append(unexpected, e.Name)
		}
	}
	order := make([]int, 0, len(layers))
	for i := range layers {
		order = append(order, i)
	}
	slices.Sort(order)
	switch {
	case len(layers) == 0:
		return fail("not an adapter: no adapter_config.json beside it, and no keys of lit-llama or LLaMA-Adapter in it")
	case len(unexpected) > 0:
		return fail("%d unexpected keys (%s): only prompts and gates are read", len(unexpected), hf.List(unexpected))
	case order[len(order)-1]-order[0] != len(order)-1:
		return fail("prompts are in layers %v, want the top ones without gaps", order)
	}
	length, hidden := int64(0), int64(0)
	for n, i := range order {
		l := layers[i]
		shape := []int64(nil)
		if l.prompt != nil {
			shape = l.prompt.Shape
		} else if table != nil {
			shape = table.Shape
		}
		if l.gate == nil || len(shape) != 2 || table != nil && (l.prompt != nil || shape[0]%int64(len(order)) != 0) {
			return fail("layer %d: want one prompt and one gate", i)
		}
		if table != nil {
			shape = []int64{shape[0] / int64(len(order)), shape[1]}
		}
		if n == 0 {
			length, hidden = shape[0], shape[1]
		}
		if shape[0] != length || shape[1] != hidden || length < 1 {
			return fail("layer %d: the prompt is %v, want %v", i, shape, []int64{length, hidden})
		}
	}
	f.Options = Options{AdapterLayers: len(order), AdapterLength: int(length), Gate: "head"}
	if table != nil {
		f.Dialect, f.Options.GateTanh = DialectLLaMAFile, true
	}
	f.prepare = func(m model.Model, _ *Options) (technique, error) {
		i := m.Info()
		if int64(i.Hidden) != hidden {
			return nil, fmt.Errorf("the adapter was trained on a model with hidden size %d, this one has %d", hidden, i.Hidden)
		}
		if order[len(order)-1] != i.Layers-1 {
			return nil, fmt.Errorf("the adapter was trained on a model with %d layers, this one has %d", order[len(order)-1]+1, i.Layers)
		}
		return nil, nil
	}
	f.values = func(s *bindings.Scope, m model.Model, _ *adapter, _ []spec) (given, error) {
		g := given{own: map[string]bindings.Tensor{}, model: map[string]bindings.Tensor{}}
		var all bindings.Tensor
		if table != nil {
			var err error
			if all, err = floats(s, *table); err != nil {
				return g, err
			}
		}
		heads := int64(m.Info().Heads)
		for n, i := range order {
			name := attention(m.Hooks().Blocks[i])
			var prompt bindings.Tensor
			if table != nil {
				prompt = s.Narrow(all, 0, int64(n)*length, length)
			} else {
				var err error
				if prompt, err = floats(s, *layers[i].prompt); err != nil {
					return g, err
				}
			}
			gate, err := floats(s, *layers[i].gate)
			if err != nil {
				return g, err
			}
			switch gate.Numel() {
			case heads:
			case 1: // early files: one gate for all heads
				gate = s.Expand(s.Reshape(gate, 1), heads)
			default:
				return g, fmt.Errorf("%s: tensor %s is %v, want %d gates", path, layers[i].gate.Name, layers[i].gate.Shape, heads)
			}
			g.own[name+"."+adaptionPrompt] = s.Reshape(prompt, 1, length, hidden)
			g.own[name+"."+adaptionGate] = s.Reshape(gate, 1, heads, 1, 1)
		}
		return g, nil
	}
	return f, nil
}

// saveCheckpoint writes the checkpoint file dir of lit-llama or of LLaMA-Adapter's repository.
func (a *adapter) saveCheckpoint(s *bindings.Scope, path string, m model.Model, d Dialect) error {
	i := m.Info()
	switch {
	case d != DialectLitLLaMA && d != DialectLLaMAFile:
		return fmt.Errorf("dialect %q is not known (%s, %s, %s, %s)", d, DialectPeft, DialectHub, DialectLitLLaMA, DialectLLaMAFile)
	case a.name != "llama-adapter":
		return errors.New("such a file holds llama-adapter only")
	case i.Family != "llama" || len(m.Labels()) > 0:
		return errors.New("such a file belongs to a LLaMA language model")
	case len(a.beside(m)) > 0:
		return fmt.Errorf("such a file has no place for the model's own weights that were trained too (%s)", hf.List(a.beside(m)))
	}
	return s.Run(func(s *bindings.Scope) error {
		gates, err := a.gates(s, d == DialectLLaMAFile)
		if err != nil {
			return err
		}
		var ts []hf.Named
		var prompts []bindings.Tensor
		first := core(a.technique).(*adaption).first(i.Layers)
		for n, b := range m.Hooks().Blocks[first:] {
			p := s.Select(s.Detach(a.params.Get(attention(b)+"."+adaptionPrompt).T), 0, 0)
			gate := s.Contiguous(s.Reshape(s.Expand(s.Reshape(gates[n], -1), int64(i.Heads)), 1, int64(i.Heads), 1, 1))
			if d == DialectLLaMAFile {
				prompts = append(prompts, p)
				ts = append(ts, hf.Named{Name: fmt.Sprintf("layers.%d.attention.gate", first+n), Tensor: gate})
				continue
			}
			ts = append(ts, hf.Named{Name: fmt.Sprintf("transformer.h.%d.attn.adapter_wte.weight", first+n), Tensor: p},
				hf.Named{Name: fmt.Sprintf("transformer.h.%d.attn.gating_factor", first+n), Tensor: gate})
		}
		if len(prompts) > 0 {
			ts = append([]hf.Named{{Name: officialPrompts, Tensor: s.Cat(0, prompts...)}}, ts...)
		}
		out, err := hf.Outgoing(s, ts)
		if err != nil {
			return err
		}
		if err := makeDir(filepath.Dir(path)); err != nil {
			return err
		}
		if strings.HasSuffix(path, ".safetensors") {
			return files.WriteSafetensors(path, out, nil)
		}
		return writeTorch(path, out, ownNames(out))
	})
}

// gates are the gates of the layers with prompts, translated to act through tanh or not.
func (a *adapter) gates(s *bindings.Scope, tanh bool) ([]bindings.Tensor, error) {
	var out []bindings.Tensor
	for _, p := range a.params.All() {
		if !strings.HasSuffix(p.Name, "."+adaptionGate) {
			continue
		}
		g := s.Detach(p.T)
		switch {
		case a.o.GateTanh && !tanh:
			g = s.Tanh(g)
		case !a.o.GateTanh && tanh:
			// atanh(g) = ½·ln((1+g)/(1-g)), which only exists between -1 and 1.
			if m := s.MaxAll(s.Abs(g)).Item(); !(m < 1) {
				return nil, fmt.Errorf("a gate of %s is ±%.3g, but there gates act through tanh, which stays below 1", p.Name, m)
			}
			g = s.MulScalar(s.Log(s.Div(s.AddScalar(g, 1), s.AddScalar(s.Neg(g), 1))), 0.5)
		}
		out = append(out, g)
	}
	return out, nil
}
