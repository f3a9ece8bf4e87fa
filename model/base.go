package model

import (
	"fmt"

	"gopeft/bindings"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// base is what every architecture keeps: its parameters in definition order with how each starts when no
// checkpoint has it, its hook points, its head's labels and its config.json.
type base struct {
	params    Params
	shapes    [][]int64
	inits     []initKind
	hooks     Hooks
	labels    []string
	headNames []string
	config    map[string]any
	path      string // of the checkpoint
	scope     *bindings.Scope
	source    *hf.Checkpoint // kept open while weights share its mapping
	frozen    *turning       // what has the blocks' frozen weights at hand; nil: they always are
	moved     int            // changes of where the weights lie
	shared    int64          // bytes kept of weights that processes hold together
	divided   bool           // what is trained of them is among them
	head      *Param         // of a language model, [vocab, hidden]; the embedding table when tied, nil where the checkpoint has none
	fresh     []string
	stored    []*files.Entry // by parameter, of a model that is only described
	asked     []hf.Want      // by parameter, the same
	dtype     bindings.DType // of vectors, and of hidden states
}

type initKind int

const (
	normal initKind = iota // N(0, initializer_range²)
	zero
	one
)

func (b *base) declare(name string, kind initKind, shape ...int64) *Param {
	p := &Param{Name: name, moved: &b.moved}
	b.params.Add(p)
	b.shapes = append(b.shapes, shape)
	b.inits = append(b.inits, kind)
	return p
}

// declareMatrix declares a matrix [rows, cols] that only products and look-ups read: it may be held in a dtype of its own.
func (b *base) declareMatrix(name string, rows, cols int64) *Param {
	p := b.declare(name, normal, rows, cols)
	p.matrix = true
	return p
}

// declareNorm declares a vector of a normalisation.
func (b *base) declareNorm(name string, kind initKind, width int64) *Param {
	p := b.declare(name, kind, width)
	p.Norm = true
	return p
}

// declareMap declares the weights of a linear map called name.
func (b *base) declareMap(name string, m Map) *Dense {
	d := &Dense{W: b.declareMatrix(name+".weight", int64(m.Out), int64(m.In))}
	d.W.linear = true
	if m.Bias {
		d.B = b.declare(name+".bias", zero, int64(m.Out))
		d.B.Inert = m.Shiftless
	}
	return d
}

// addBlock adds the n-th block, without its maps, to the hooks.
func (b *base) addBlock(i Info, n int) *Block {
	block := i.block(n)
	b.hooks.Blocks = append(b.hooks.Blocks, block)
	return block
}

// declareModule declares the weights of a block's next map.
func (b *base) declareModule(block *Block, m Map) {
	d := b.declareMap(block.Name+"."+m.Name, m)
	d.W.place = m.place(block.Name, "weight")
	if d.B != nil {
		d.B.place = m.place(block.Name, "bias")
	}
	block.Modules = append(block.Modules, Module{m, d})
}

// AddBiases implements Model for a family whose checkpoints fix which maps have a bias.
func (b *base) AddBiases() error {
	if len(b.withoutBias()) > 0 {
		return fmt.Errorf("a %v checkpoint has no place for the biases it adds", b.config["model_type"])
	}
	return nil
}

// withoutBias gives what adds a bias of zeros to each of the blocks' maps that has none.
func (b *base) withoutBias() (add []func()) {
	for _, block := range b.hooks.Blocks {
		for i := range block.Modules {
			m := &block.Modules[i]
			if m.Bias {
				continue
			}
			add = append(add, func() {
				w := m.Dense.W
				m.Bias = true
				m.Dense.B = b.declare(block.Name+"."+m.Name+".bias", zero, int64(m.Out))
				m.Dense.B.T, m.Dense.B.Inert = b.scope.Zeros([]int64{int64(m.Out)}, b.dtype, w.Device()), m.Shiftless
			})
		}
	}
	return add
}

// Params implements Model.
func (b *base) Params() *Params { return &b.params }

// Hooks implements Model.
func (b *base) Hooks() *Hooks { return &b.hooks }

// Labels implements Model.
func (b *base) Labels() []string { return b.labels }

// HeadNames implements Model.
func (b *base) HeadNames() []string { return b.headNames }

// Path implements Model.
func (b *base) Path() string { return b.path }

// Config implements Model.
func (b *base) Config() map[string]any { return b.config }

// Fresh lists the parameters that no checkpoint had and that were initialised anew.
func (b *base) Fresh() []string { return b.fresh }

// Scope owns the weights; what lives as long as the model may be made in it.
func (b *base) Scope() *bindings.Scope { return b.scope }

// Unchanged implements Model.
func (b *base) Unchanged() error {
	if b.source == nil {
		return nil
	}
	return b.source.Weights.Unchanged()
}

// Close implements Model.
func (b *base) Close() error {
	b.frozen.close()
	b.frozen = nil
	if b.scope != nil {
		b.scope.Close()
	}
	if b.source != nil {
		err := b.source.Close()
		b.source = nil
		return err
	}
	return nil
}

// fill gives every parameter its tensor: the checkpoint's, whose names are read by names, or where it has none a new one.
// With freshHead the head's are new in any case. The checkpoint's tensors for more are returned, owned by s; they are none
// where it has no weights.
func (b *base) fill(s *bindings.Scope, c *opened, names hf.Request, freshHead bool, initRange float64, more ...hf.Want) ([]bindings.Tensor, error) {
	r := names
	b.dtype = dtypeOr(c.DType)
	wants, err := b.wants(freshHead, c.Options)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", c.Path, err)
	}
	if c.gguf != nil { // which holds every matrix as [out, in]
		for i := range wants {
			wants[i].Place.Transposed = false
		}
	}
	r.Wants, r.DType, r.Device, r.Copy = append(wants, more...), c.DType, c.Device, c.Copy
	ts := make([]bindings.Tensor, len(r.Wants))
	if c.Shapes {
		b.stored, err = c.Plan(r)
		b.asked = wants
		return ts[len(b.params.list):], err
	}
	b.scope = s.NewScope()
	r.Mapped = func(want int, e files.Entry) {
		if want < len(b.params.list) {
			b.params.list[want].file = &e
		}
	}
	r.Quantised = func(want int, q *bindings.Quantised) {
		if want < len(b.params.list) {
			b.params.list[want].quant = s.MoveQuantised(b.scope, q)
		}
	}
	if c.Weights != nil {
		if ts, err = c.Load(s, r); err != nil {
			return nil, err
		}
		if b.path = c.Path; !r.Copy {
			b.source = c.Checkpoint
		} else if err := c.Close(); err != nil {
			return nil, fmt.Errorf("model %s: %w", c.Path, err)
		}
	}
	for i, p := range b.params.list {
		if p.T = ts[i]; p.T.Defined() {
			s.MoveTo(b.scope, p.T)
			continue
		}
		b.fresh = append(b.fresh, p.Name)
		switch b.inits[i] {
		case normal:
			p.T = b.scope.Normal(b.shapes[i], 0, initRange, b.dtypeOf(r.Wants[i]), r.Device)
			if kind, yes := r.Wants[i].Quantise.Kind(); yes {
				p.quant = b.scope.Quantise(p.T, kind, true)
				b.scope.Free(p.T)
				p.T = b.scope.Placeholder(b.shapes[i], b.dtypeOf(r.Wants[i]))
			}
		case zero:
			p.T = b.scope.Zeros(b.shapes[i], b.dtype, r.Device)
		case one:
			p.T = b.scope.Full(b.shapes[i], 1, b.dtype, r.Device)
		}
	}
	return ts[len(b.params.list):], nil
}

func dtypeOr(d bindings.DType) bindings.DType {
	if d == 0 {
		return bindings.Float
	}
	return d
}

// wants asks for every parameter; those of a new head may be absent or are not looked for.
func (b *base) wants(fresh bool, o Options) ([]hf.Want, error) {
	ws := make([]hf.Want, len(b.params.list))
	for i, p := range b.params.list {
		ws[i] = hf.Want{Name: p.Name, Shape: b.shapes[i], Place: p.place, Host: o.Aside && b.leaves(p)}
		if p.matrix {
			ws[i].DType, ws[i].Quantise = o.Base, p.quantised(o)
		}
		for _, head := range b.headNames {
			if ok, _ := Matches(head, p.Name); ok {
				ws[i].New, ws[i].Fresh, ws[i].DType, ws[i].Quantise = true, fresh, 0, hf.Plain
			}
		}
		for _, pattern := range o.Trained {
			ok, err := Matches(pattern, p.Name)
			if err != nil {
				return nil, err
			}
			if ok {
				ws[i].DType, ws[i].Quantise, ws[i].Host = 0, hf.Plain, false
			}
		}
	}
	return ws, nil
}

// dtypeOf is the dtype that a parameter is asked for in.
func (b *base) dtypeOf(w hf.Want) bindings.DType {
	if w.DType != 0 {
		return w.DType
	}
	return b.dtype
}

// DType implements Model.
func (b *base) DType() bindings.DType { return b.dtype }

// embedTokens gives the embeddings of tokens, in the dtype of hidden states.
func (b *base) embedTokens(s *bindings.Scope, ids bindings.Tensor) bindings.Tensor {
	words := b.hooks.Words
	own := func(s *bindings.Scope, ids bindings.Tensor) bindings.Tensor {
		if words.Trainable {
			return s.Embedding(words.Value(), ids)
		}
		return words.Rows(s, ids, b.dtype)
	}
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		if e := b.hooks.Embed; e != nil {
			return s.To(e.Embed(s, ids, own), b.dtype)
		}
		return own(s, ids)
	})
}

// setLabels writes label names into the config, as transformers reads them.
func (b *base) setLabels(labels []string) {
	id2label, label2id := map[string]any{}, map[string]any{}
	for i, l := range labels {
		id2label[fmt.Sprint(i)] = l
		label2id[l] = i
	}
	b.config["id2label"], b.config["label2id"] = id2label, label2id
	delete(b.config, "num_labels")
}
