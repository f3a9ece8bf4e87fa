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

// checkpointFile is a checkpoint file of LLaMA-Adapter: of lit-llama and litgpt, one prompt table and one gate per
// layer, no activation on the gate; or of the method's own repository, one table for all layers and gates through
// tanh. Prompts enter through the block's own maps, so they are the same in every layout of rotary positions.
type checkpointFile struct{ dialect Dialect }

func (checkpointFile) recognises(f *adapterFiles) bool { return f.file }

func (checkpointFile) keeps(*method, model.Model) bool { return true }

const (
	officialPrompts = "adapter_query.weight"
	// officialLength is the length of prompts in the checkpoints that LLaMA-Adapter's repository publishes.
	officialLength = 10
)

var (
	litKey       = regexp.MustCompile(`^transformer\.h\.(\d{1,4})\.attn\.(adapter_wte\.weight|gating_factor)$`)
	officialGate = regexp.MustCompile(`^layers\.(\d{1,4})\.attention\.gate$`)
)

// checkpoint is such a file.
type checkpoint struct {
	layers map[int]*checkpointLayer
	order  []int        // the layers' numbers, from the lowest
	table  *files.Entry // all layers' prompts, [length·layers, hidden]; nil where each layer has its own
	hidden int64
	length int64 // of a layer's own prompt
	zeros  int   // layers from the lowest whose gates are all zero
	v2     bool  // it has tensors of the second version
}

// checkpointLayer is what a file holds for one layer.
type checkpointLayer struct {
	prompt, gate *files.Entry
}

// layOut sorts an archive's tensors by layer. Anything but prompts and gates is an error that lists it.
func layOut(archive files.Archive) (*checkpoint, error) {
	c := &checkpoint{layers: map[int]*checkpointLayer{}}
	at := func(digits string) *checkpointLayer {
		i, _ := strconv.Atoi(digits)
		if c.layers[i] == nil {
			c.layers[i] = &checkpointLayer{}
		}
		return c.layers[i]
	}
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
			c.table = &e
		} else if litV2Key.MatchString(e.Name) {
			c.v2 = true
		} else {
			unexpected = append(unexpected, e.Name)
		}
	}
	for i := range c.layers {
		c.order = append(c.order, i)
	}
	slices.Sort(c.order)
	switch n := len(c.order); {
	case n == 0:
		return nil, errors.New("not an adapter: no adapter_config.json beside it, and no keys of lit-llama or LLaMA-Adapter in it")
	case len(unexpected) > 0:
		return nil, fmt.Errorf("%d unexpected keys (%s): only prompts, gates and what LLaMA-Adapter v2 trains are read", len(unexpected), hf.List(unexpected))
	case c.v2 && c.table != nil:
		return nil, fmt.Errorf("it has %s beside tensors of lit-llama and litgpt", officialPrompts)
	case c.order[n-1]-c.order[0] != n-1:
		return nil, fmt.Errorf("prompts are in layers %v, want the top ones without gaps", c.order)
	}
	return c, c.measure()
}

// measure checks the tensors' shapes and counts the gates that are zero.
func (c *checkpoint) measure() error {
	trained := false
	for n, i := range c.order {
		l := c.layers[i]
		prompt := l.prompt
		if c.table != nil {
			prompt = c.table
		}
		if l.gate == nil || prompt == nil || len(prompt.Shape) != 2 || c.table != nil && l.prompt != nil {
			return fmt.Errorf("layer %d: want one prompt and one gate", i)
		}
		if n == 0 {
			c.length, c.hidden = prompt.Shape[0], prompt.Shape[1]
		}
		if prompt.Shape[0] != c.length || prompt.Shape[1] != c.hidden || c.length < 1 {
			return fmt.Errorf("layer %d: the prompt is %v, want %v", i, prompt.Shape, []int64{c.length, c.hidden})
		}
		if trained = trained || !allZero(l.gate); !trained {
			c.zeros++
		}
	}
	return nil
}

// allZero reports that an entry of floating-point numbers holds zeros alone, of either sign.
func allZero(e *files.Entry) bool {
	size := max(e.DType.Size(), 1)
	for i, b := range e.Data {
		if i%size == size-1 {
			b &= 0x7f
		}
		if b != 0 {
			return false
		}
	}
	return true
}

// split finds which layers have prompts, the topmost ones, and the prompts' length; length is the caller's word
// for it, 0 without. A file of LLaMA-Adapter's repository says neither: it holds the prompts in one table and
// the gates of all layers. But gates are trained with their prompts, and stay exactly zero without, so the
// lowest gate that is not zero is that of the lowest prompt. Where the table cannot be cut that way (no gate was
// trained, say) the repository's own length is tried.
func (c *checkpoint) split(length int64) (order []int, _ int64, err error) {
	if c.table == nil {
		return c.order, c.length, nil
	}
	rows, all := c.table.Shape[0], int64(len(c.order))
	trained := all - int64(c.zeros)
	fits := func(layers int64) bool { return layers >= max(trained, 1) && layers <= all && rows%layers == 0 }
	layers := trained
	switch {
	case length > 0:
		if layers = rows / length; rows%length != 0 || !fits(layers) {
			return nil, 0, fmt.Errorf("adapter-length %d does not fit: %s has %d rows, and %d to %d layers have prompts", length, officialPrompts, rows, max(trained, 1), all)
		}
	case c.order[0] > 0 && fits(all): // gates of the layers with prompts alone, as saveCheckpoint writes them
		layers = all
	case fits(trained):
	case rows%officialLength == 0 && fits(rows/officialLength):
		layers = rows / officialLength
	default:
		return nil, 0, fmt.Errorf("%s has %d rows for %d to %d layers, which does not tell the prompts' length: give it as adapter-length",
			officialPrompts, rows, max(trained, 1), all)
	}
	return c.order[all-layers:], rows / layers, nil
}

func (checkpointFile) read(f *adapterFiles) error {
	archive, err := files.Open(f.Path)
	if err != nil {
		return err
	}
	f.close = append(f.close, archive)
	c, err := layOut(archive)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	f.Dialect, f.Method = DialectLitLLaMA, "llama-adapter"
	f.Options.Gate = "head"
	if c.v2 {
		f.Method = "llama-adapter-v2"
	}
	if c.table != nil {
		f.Dialect, f.Options.GateTanh = DialectLLaMAFile, true
	}
	if order, length, err := c.split(0); err == nil { // else the caller may know the length; see prepare
		f.Options.AdapterLayers, f.Options.AdapterLength = len(order), int(length)
	}
	f.prepare = func(m model.Model, o *Options) (Tuner, error) {
		i, top := m.Info(), c.order[len(c.order)-1]
		if int64(i.Hidden) != c.hidden {
			return nil, fmt.Errorf("the adapter was trained on a model with hidden size %d, this one has %d", c.hidden, i.Hidden)
		}
		if top != i.Layers-1 {
			return nil, fmt.Errorf("the adapter was trained on a model with %d layers, this one has %d", top+1, i.Layers)
		}
		order, length, err := c.split(int64(o.AdapterLength))
		if err != nil {
			return nil, err
		}
		o.AdapterLayers, o.AdapterLength = len(order), int(length)
		if c.v2 {
			return nil, prepareV2(m, archive, o)
		}
		return nil, nil
	}
	f.values = func(s *bindings.Scope, m model.Model, a *method, _ []NewParam) (storedValues, error) {
		g, err := c.values(s, f.Path, m, c.order[len(c.order)-a.o.AdapterLayers:], int64(a.o.AdapterLength))
		if err == nil && c.v2 {
			err = valuesV2(s, f.Path, archive, m, a, g)
		}
		return g, err
	}
	return nil
}

// values reads the prompts, of the given length, and gates of the layers in order.
func (c *checkpoint) values(s *bindings.Scope, path string, m model.Model, order []int, length int64) (storedValues, error) {
	g := newStoredValues()
	var all bindings.Tensor
	if c.table != nil {
		var err error
		if all, err = floats(s, *c.table); err != nil {
			return g, err
		}
	}
	structure, heads := structureOf(m), int64(m.Info().Heads)
	for n, i := range order {
		name := structure.attention(structure.Blocks[i])
		var prompt bindings.Tensor
		if c.table != nil {
			prompt = s.Narrow(all, 0, int64(n)*length, length)
		} else {
			var err error
			if prompt, err = floats(s, *c.layers[i].prompt); err != nil {
				return g, err
			}
		}
		gate, err := floats(s, *c.layers[i].gate)
		if err != nil {
			return g, err
		}
		switch gate.Numel() {
		case heads:
		case 1: // early files: one gate for all heads
			gate = s.Expand(s.Reshape(gate, 1), heads)
		default:
			return g, fmt.Errorf("%s: tensor %s is %v, want %d gates", path, c.layers[i].gate.Name, c.layers[i].gate.Shape, heads)
		}
		g.own[name+"."+adaptionPrompt] = s.Reshape(prompt, 1, length, c.hidden)
		g.own[name+"."+adaptionGate] = s.Reshape(gate, 1, heads, 1, 1)
	}
	return g, nil
}

func (c checkpointFile) write(s *bindings.Scope, a *method, path string, m model.Model, _ bool) error {
	i, official := m.Info(), c.dialect == DialectLLaMAFile
	switch {
	case a.Name() != "llama-adapter":
		return errors.New("such a file holds llama-adapter only")
	case i.Family != "llama" || len(m.Labels()) > 0:
		return errors.New("such a file belongs to a LLaMA language model")
	case a.o.OutputBiasTwice && hasOutputBias(m):
		return errors.New("the adapter is peft's, which adds the bias of the output map twice; there it is added once")
	case len(a.beside(m)) > 0:
		return fmt.Errorf("such a file has no place for the model's own weights that were trained too (%s)", hf.List(a.beside(m)))
	}
	return s.Run(func(s *bindings.Scope) error {
		gates, err := a.gates(s, official)
		if err != nil {
			return err
		}
		var ts []hf.Named
		var prompts []bindings.Tensor
		first := a.ownTuner().(*llamaAdapter).first(i.Layers)
		structure := structureOf(m)
		for n, b := range structure.Blocks[first:] {
			p := s.Select(s.Detach(a.params.Get(structure.attention(b)+"."+adaptionPrompt).T), 0, 0)
			gate := s.Contiguous(s.Reshape(s.Expand(s.Reshape(gates[n], -1), int64(i.Heads)), 1, int64(i.Heads), 1, 1))
			if official {
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
func (a *method) gates(s *bindings.Scope, tanh bool) ([]bindings.Tensor, error) {
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
