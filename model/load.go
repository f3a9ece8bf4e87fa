package model

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// Options say what Load makes of a checkpoint.
type Options struct {
	// Classify gives the model a sequence-classification head. Labels are its label names; when empty they
	// come from the checkpoint. A head is taken from the checkpoint when its labels are the same, otherwise
	// it starts anew (Fresh says so).
	Classify bool
	Labels   []string
	DType    bindings.DType // of the weights, and of what is computed outside matrix products; fp32 unless set
	Device   bindings.Device
	// Base is the dtype that matrices are held in while they are frozen: the token embeddings, the blocks' linear maps and
	// the language-model head. 0 stands for DType. Vectors, positions and a classification head have DType in any case.
	Base bindings.DType
	// Quantise is how few bits frozen matrices are held in; hf.Plain stands for Base. Tables are kept as the file has them.
	Quantise hf.Quantisation
	// Trained are patterns, as Params.Unfreeze takes them, of parameters that are to be trained in place: they have DType.
	Trained []string
	// Dropout overrides the checkpoint's own rates (hidden, attention and classifier) when not nil.
	Dropout *float64
	// Aside is for a model whose Shard method is called, or Stream for a GPU: what they take stays on the CPU until then.
	Aside bool
	// As names the family to read the checkpoint as, where there is more than one that can: "distilbert" reads a BERT as a
	// DistilBERT, without its pooler. It says nothing to other checkpoints.
	As string
	// Copy puts the weights into memory of their own, in place of using them where their file is mapped.
	Copy bool
}

// Load opens the checkpoint at path (a HuggingFace folder or a GGUF file) and builds its model. The weights
// live in a scope of the model's own; Close frees them.
func Load(s *bindings.Scope, path string, o Options) (Model, error) {
	c, err := hf.Open(path)
	if err != nil {
		return nil, err
	}
	m, err := build(s, c, o)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return m, nil
}

// New builds a model with random weights from a config.json's content.
func New(s *bindings.Scope, config []byte, o Options) (Model, error) {
	return build(s, &hf.Checkpoint{Path: "config", Config: config}, o)
}

// opened is a checkpoint that a family is to load, and what is to be made of it.
type opened struct {
	*hf.Checkpoint
	Options
	where string      // the file that Config comes from, for messages
	gguf  *files.GGUF // nil: a folder
}

// build has a family load the checkpoint. A GGUF file's metadata stand for its config.json.
func build(s *bindings.Scope, c *hf.Checkpoint, o Options) (Model, error) {
	x := &opened{Checkpoint: c, Options: o, where: c.Path + "/config.json"}
	if g, ok := c.Weights.(*files.GGUF); ok {
		x.where, x.gguf = c.Path, g
		f, config, err := readGGUF(g)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Path, err)
		}
		c.Config = config
		return f.load(s, x)
	}
	f, err := familyOfType(hf.ModelType(c.Config), o.As)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", c.Path, err)
	}
	m, err := f.load(s, x)
	if err == nil && len(m.Labels()) > 0 {
		SetProblem(m, configProblem(c.Config))
	}
	return m, err
}

// readGGUF finds the family that loads a GGUF file, and the config.json that the file was made from.
func readGGUF(g *files.GGUF) (family, []byte, error) {
	f, architecture, err := familyOfGGUF(g)
	if err != nil {
		return f, nil, err
	}
	config, err := f.ggufConfig(g, architecture)
	return f, config, err
}

// headLabels decides a classification head's labels and whether the checkpoint's head cannot serve.
func headLabels(raw []byte, o Options) (labels []string, fresh bool, err error) {
	if !o.Classify {
		return nil, false, nil
	}
	own, err := configLabels(raw)
	if err != nil {
		return nil, false, err
	}
	if len(o.Labels) == 0 {
		return own, false, nil
	}
	return o.Labels, !slices.Equal(own, o.Labels), nil
}

// configLabels reads id2label, or num_labels, or transformers' default of two.
func configLabels(raw []byte) ([]string, error) {
	var c struct {
		ID2Label  map[string]string `json:"id2label"`
		NumLabels *int              `json:"num_labels"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("id2label: %w", err)
	}
	n := len(c.ID2Label)
	if n == 0 {
		n = 2
		if c.NumLabels != nil {
			n = *c.NumLabels
		}
	}
	if n < 1 || n > 1_000_000 {
		return nil, fmt.Errorf("num_labels is %d", n)
	}
	labels := make([]string, n)
	for i := range labels {
		labels[i] = fmt.Sprintf("LABEL_%d", i)
		if len(c.ID2Label) > 0 {
			name, ok := c.ID2Label[fmt.Sprint(i)]
			if !ok {
				return nil, fmt.Errorf("id2label has %d entries but none for %d", n, i)
			}
			labels[i] = name
		}
	}
	return labels, nil
}

// dims checks that sizes of a config are positive and sane, naming the field.
type dim struct {
	field string
	value int
}

func checkDims(dims ...dim) error {
	for _, d := range dims {
		if d.value < 1 || d.value > 1<<24 {
			return fmt.Errorf("%s is %d, want a positive size", d.field, d.value)
		}
	}
	return nil
}

func configMap(raw []byte) (map[string]any, error) {
	decoder := json.NewDecoder(strings.NewReader(string(raw)))
	decoder.UseNumber()
	m := map[string]any{}
	err := decoder.Decode(&m)
	delete(m, "quantization_config") // a model is saved with plain weights, or hf.SaveQuantised writes its own
	return m, err
}

// Save writes the model as a HuggingFace folder's config.json and weights: quantised ones as bitsandbytes does, which has
// no place for those of other libraries.
func Save(s *bindings.Scope, folder string, m Model) error {
	if Quantised(m) {
		return SaveQuantised(s, folder, m, 0)
	}
	return hf.SaveModel(s, folder, m.Config(), outgoing(m, 0, 0))
}

// SaveAs is Save with every weight cast to d, one at a time as it is written, quantised ones dequantised.
func SaveAs(s *bindings.Scope, folder string, m Model, d bindings.DType) error {
	config := maps.Clone(m.Config())
	config["torch_dtype"] = torchDType(d)
	return hf.SaveModel(s, folder, config, outgoing(m, d, d))
}

// SaveQuantised is Save of a quantised model with the weights that are not quantised cast to d; 0 leaves them as they are.
func SaveQuantised(s *bindings.Scope, folder string, m Model, d bindings.DType) error {
	config := maps.Clone(m.Config())
	if d != 0 {
		config["torch_dtype"] = torchDType(d)
	}
	return hf.SaveQuantised(s, folder, config, outgoing(m, d, 0))
}

// torchDType is how a config.json calls a floating-point dtype; 0 stands for fp32.
func torchDType(d bindings.DType) string {
	switch d {
	case bindings.Half:
		return "float16"
	case bindings.BFloat16:
		return "bfloat16"
	}
	return "float32"
}

// outgoing is the model's weights, to be written in dtype d and quantised ones in that of quantised; 0 is their own.
func outgoing(m Model, d, quantised bindings.DType) (ts []hf.Named) {
	all := m.Params().All()
	for _, p := range all {
		n := p.Named(p.Name)
		n.As = d
		if p.quant != nil {
			n.Quantised, n.As = p.quant, quantised
		}
		if p.low.Defined() {
			n.Written = p.release // it is the copy that is computed with
		}
		if p.place.Name == "" {
			ts = append(ts, n)
		} else if p.place.First == 0 {
			ts = append(ts, joined(n, all, p.place))
		}
	}
	return ts
}

// joined is n, of the first of the parts that one stored tensor has, as that tensor.
func joined(n hf.Named, all []*Param, place hf.Place) hf.Named {
	var parts []*Param
	for _, p := range all {
		if p.place.Name == place.Name {
			parts = append(parts, p)
		}
	}
	slices.SortFunc(parts, func(a, b *Param) int { return cmp.Compare(a.place.First, b.place.First) })
	if n.As != 0 {
		n.Quantised = nil // Make gives it whole
	}
	n.Name, n.Shape = place.Name, place.Shape(n.Tensor.Shape())
	as := n.As
	if as == 0 {
		as = n.Tensor.DType()
	}
	n.Make = func(s *bindings.Scope) (bindings.Tensor, error) {
		var ts []bindings.Tensor
		for _, p := range parts {
			if p.whole == nil {
				ts = append(ts, p.Stored(s, as))
				continue
			}
			t, err := p.whole(s)
			if err != nil {
				return t, err
			}
			ts = append(ts, s.To(t, as))
		}
		return place.Whole(s, ts), nil
	}
	n.Written = func() {
		for _, p := range parts {
			if p.low.Defined() {
				p.release()
			}
		}
	}
	return n
}

// ReadStored gives the weights of an opened checkpoint of a model like m, in fp32 on the CPU, in the order of m's.
func ReadStored(s *bindings.Scope, m Model, c *hf.Checkpoint) ([]bindings.Tensor, error) {
	r := hf.Request{Copy: true}
	for _, p := range m.Params().All() {
		r.Wants = append(r.Wants, hf.Want{Name: p.Name, Shape: p.T.Shape(), Place: p.place})
	}
	return c.Load(s, r)
}
