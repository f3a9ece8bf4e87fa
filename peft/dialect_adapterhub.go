package peft

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf/files"
)

// adapterHub is a folder of AdapterHub's adapters library: adapter_config.json with adapter.safetensors or
// pytorch_adapter.bin, and head_config.json with model_head.safetensors or pytorch_model_head.bin.
type adapterHub struct{}

func (adapterHub) recognises(f *adapterFiles) bool { return f.config != nil && !hfPeft{}.recognises(f) }

func (adapterHub) keeps(*method, model.Model) bool { return true }

// Folders are written with .bin files, which are what the library looks for unless told otherwise.
const (
	hubWeights = "pytorch_adapter.bin"
	hubHead    = "pytorch_model_head.bin"
	hubExtra   = "gopeft.safetensors" // ours: parameters of the model trained beside the adapter
)

// hubConfig is adapter_config.json.
type hubConfig struct {
	Config     json.RawMessage `json:"config"`
	HiddenSize int             `json:"hidden_size"`
	ModelType  string          `json:"model_type"`
	ModelName  string          `json:"model_name"`
	Name       string          `json:"name"`
}

// hubMethod is the part of the method's settings that shapes it.
type hubMethod struct {
	Architecture string `json:"architecture"`

	MHAdapter        bool            `json:"mh_adapter"`
	OutputAdapter    bool            `json:"output_adapter"`
	OriginalLNBefore bool            `json:"original_ln_before"`
	OriginalLNAfter  *bool           `json:"original_ln_after"`
	LNBefore         bool            `json:"ln_before"`
	LNAfter          bool            `json:"ln_after"`
	Residual         json.RawMessage `json:"residual_before_ln"`
	AdapterResidual  bool            `json:"adapter_residual_before_ln"`
	NonLinearity     string          `json:"non_linearity"`
	Scaling          json.RawMessage `json:"scaling"`
	Parallel         bool            `json:"is_parallel"`
	PHM              bool            `json:"phm_layer"`
	Gating           bool            `json:"use_gating"`
	Invertible       *string         `json:"inv_adapter"`
	LeaveOut         []int           `json:"leave_out"`

	Flat       bool `json:"flat"`
	Length     int  `json:"prefix_length"`
	Bottleneck int  `json:"bottleneck_size"`
}

func (adapterHub) read(f *adapterFiles) error {
	where := func(err error) error { return fmt.Errorf("%s/adapter_config.json: %w", f.Path, err) }
	var c hubConfig
	if err := json.Unmarshal(f.config, &c); err != nil {
		return where(err)
	}
	if len(c.Config) == 0 || string(c.Config) == "null" {
		return where(errors.New("neither peft_type nor config is in it: not an adapter of the peft or adapters libraries"))
	}
	if err := checkAdapterName(c.Name); err != nil {
		return where(err)
	}
	f.Dialect = DialectHub
	f.Options.AdapterName = c.Name
	if f.Base == "" {
		f.Base = c.ModelName
	}
	settings, err := hubSettings(c.Config)
	if err != nil {
		return where(err)
	}
	archive, err := files.OpenFirst(f.Path, "adapter.safetensors", hubWeights)
	if err != nil {
		return err
	}
	f.close = append(f.close, archive)
	h, err := f.openHubHead()
	if err != nil {
		return err
	}
	var b *bottleneck
	if settings.Architecture == "prefix_tuning" {
		f.Method = "prefix"
		f.Options.VirtualTokens, f.Options.PrefixProjection = settings.Length, !settings.Flat
		f.Options.PrefixHidden = settings.Bottleneck
		f.Options.Init = ""
	} else if b, err = f.hubBottleneck(settings, archive); err != nil {
		return where(err)
	}
	f.prepare = func(m model.Model, o *Options) (Tuner, error) {
		i := m.Info()
		if c.HiddenSize != i.Hidden {
			return nil, fmt.Errorf("the adapter was trained on a model with hidden size %d, this one has %d", c.HiddenSize, i.Hidden)
		}
		if h != nil && h.causal {
			if err := f.lmHead(m, h, o); err != nil {
				return nil, err
			}
		}
		final, err := f.complete(*o)
		if b == nil {
			return hubPrefix(m, final, archive), err
		}
		b.o = final
		return b, err
	}
	f.values = func(s *bindings.Scope, m model.Model, a *method, added []NewParam) (storedValues, error) {
		return f.hubValues(s, m, a, added, archive, h)
	}
	return nil
}

// hubSettings reads the method's settings: an object, or the name of one of AdapterHub's standard ones.
func hubSettings(raw json.RawMessage) (hubMethod, error) {
	var name string
	if json.Unmarshal(raw, &name) == nil {
		yes := true
		switch name {
		case "houlsby", "double_seq_bn":
			return hubMethod{MHAdapter: true, OutputAdapter: true, OriginalLNAfter: &yes, NonLinearity: "swish"}, nil
		case "pfeiffer", "seq_bn":
			return hubMethod{OutputAdapter: true, OriginalLNBefore: true, OriginalLNAfter: &yes, NonLinearity: "relu"}, nil
		case "prefix_tuning":
			return hubMethod{Architecture: name, Length: 30, Bottleneck: 512, NonLinearity: "tanh"}, nil
		case "prefix_tuning_flat":
			return hubMethod{Architecture: "prefix_tuning", Flat: true, Length: 30}, nil
		}
		return hubMethod{}, fmt.Errorf("config %q is not supported", name)
	}
	var c hubMethod
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("config: %w", err)
	}
	if c.Architecture != "" && c.Architecture != "prefix_tuning" {
		return c, fmt.Errorf("config: architecture %q is not supported (bottleneck adapters, prefix_tuning)", c.Architecture)
	}
	if c.Architecture == "prefix_tuning" {
		if c.NonLinearity != "tanh" && !c.Flat {
			return c, fmt.Errorf("config: non_linearity %q of a prefix is not supported (tanh)", c.NonLinearity)
		}
		if c.Length < 1 || c.Length > 1<<20 || c.Bottleneck < 0 || c.Bottleneck > 1<<20 {
			return c, fmt.Errorf("config: prefix_length is %d, bottleneck_size %d", c.Length, c.Bottleneck)
		}
	}
	residual := string(c.Residual)
	for _, u := range []struct {
		key string
		set bool
	}{
		{"ln_before", c.LNBefore}, {"ln_after", c.LNAfter}, {"adapter_residual_before_ln", c.AdapterResidual}, {"is_parallel", c.Parallel},
		{"phm_layer", c.PHM}, {"use_gating", c.Gating}, {"inv_adapter", c.Invertible != nil}, {"leave_out", len(c.LeaveOut) > 0},
		{"original_ln_after false", c.OriginalLNAfter != nil && !*c.OriginalLNAfter},
		{"residual_before_ln " + residual, residual != "" && residual != "true"},
	} {
		if u.set {
			return c, fmt.Errorf("config: %s is not supported", u.key)
		}
	}
	return c, nil
}

// hubBottleneck is the tuner of a folder with bottleneck adapters.
func (f *adapterFiles) hubBottleneck(c hubMethod, archive files.Archive) (*bottleneck, error) {
	b := &bottleneck{place: placement{c.MHAdapter, c.OutputAdapter, c.OriginalLNBefore}, scaling: 1}
	switch {
	case c.MHAdapter:
		f.Method = "houlsby"
	case c.OutputAdapter:
		f.Method = "pfeiffer"
	default:
		return nil, errors.New("config: neither mh_adapter nor output_adapter is set")
	}
	if len(c.Scaling) > 0 && string(c.Scaling) != "null" {
		if err := json.Unmarshal(c.Scaling, &b.scaling); err != nil {
			return nil, fmt.Errorf("config: scaling %s is not supported (a number)", c.Scaling)
		}
	}
	if b.scaling == 0 {
		b.scaling = 1
	}
	if _, err := activation(c.NonLinearity); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	f.Options.Activation, f.Options.Bottleneck = strings.ToLower(c.NonLinearity), 0
	for _, e := range archive.Entries() {
		if strings.HasSuffix(e.Name, ".adapter_down.0.weight") && len(e.Shape) == 2 {
			f.Options.Bottleneck = int(e.Shape[0])
			break
		}
	}
	if f.Options.Bottleneck == 0 {
		return nil, fmt.Errorf("no adapter_down.0.weight is in the weights file")
	}
	return b, nil
}

// hubKey is a parameter's name in the file: the adapter's own name goes into the middle.
func hubKey(m model.Model, adapter, name string) string {
	at := hubNames(m)
	for _, site := range [...]struct{ ours, theirs string }{{siteAttn, at.attn}, {siteFFN, at.ffn}} {
		if block, part, ok := strings.Cut(name, "."+site.ours+"."); ok {
			return block + "." + site.theirs + ".adapters." + adapter + "." + part
		}
	}
	return name
}

// prefixKeys are the names of a part of a prefix: one for every block, and the pool they share.
func prefixKeys(m model.Model, adapter, part string) []string {
	at := hubNames(m)
	var keys []string
	for _, b := range m.Hooks().Blocks {
		keys = append(keys, fmt.Sprintf("%s.%s.prefix_tuning.pool.prefix_tunings.%s.%s.%s", b.Name, at.prefix, adapter, at.place, part))
	}
	return append(keys, fmt.Sprintf("%s.prefix_tuning.prefix_tunings.%s.%s.%s", m.Info().Top(), adapter, at.place, part))
}

// hubPrefix is the tuner of a folder with a prefix. The library does not count its positions. Up to version 0.2 its keys
// and values have as many heads as the queries, later as many as the model's: what the file holds tells.
func hubPrefix(m model.Model, o Options, archive files.Archive) *prefix {
	i := m.Info()
	p := &prefix{o: o, uncounted: i.Decoder}
	part, each := "control_trans.2.weight", int64(2*i.Layers*i.HeadDim) // numbers of one head
	if o.PrefixProjection {
		p.input = i.Hidden
	} else {
		part, each = "control_trans", each*int64(o.VirtualTokens)
	}
	e, ok := archive.Lookup(prefixKeys(m, o.AdapterName, part)[0])
	p.spread = ok && i.Heads != i.KVHeads && len(e.Shape) > 0 && e.Shape[0] == each*int64(i.Heads)
	return p
}

func (f *adapterFiles) hubValues(s *bindings.Scope, m model.Model, a *method, added []NewParam, archive files.Archive, h *hubHeadFile) (storedValues, error) {
	g := newStoredValues()
	adapterName, path := f.Options.AdapterName, archiveName(f.Path, archive)
	switch {
	case f.Method == "prefix" && f.Options.PrefixProjection:
		rename := map[string]string{projEmbedding: "wte.weight", projIn + ".weight": "control_trans.0.weight", projIn + ".bias": "control_trans.0.bias"}
		err := splitProjection(s, path, archive, added, g, "control_trans.2", func(name string) []string {
			if hub, ok := rename[name]; ok {
				name = hub
			}
			return prefixKeys(m, adapterName, name)
		})
		if err != nil {
			return g, err
		}
	case f.Method == "prefix":
		shape := added[0].Shape
		ts, err := pick(s, path, archive, []want{{prefixKeys(m, adapterName, "control_trans"), []int64{shape[0] * shape[1]}, false}}, nil)
		if err != nil {
			return g, err
		}
		g.own[promptName] = s.Reshape(ts[0], shape...)
	default:
		wants := make([]want, len(added))
		for i, n := range added {
			wants[i] = want{[]string{hubKey(m, adapterName, n.Name)}, n.Shape, false}
		}
		ts, err := pick(s, path, archive, wants, nil)
		if err != nil {
			return g, err
		}
		for i, n := range added {
			g.own[n.Name] = ts[i]
		}
	}
	if h != nil && h.causal {
		if err := f.trainedHead(s, m, a, h, g); err != nil {
			return g, err
		}
	}
	if err := f.hubExtra(s, m, a, g); err != nil {
		return g, err
	}
	if h == nil || h.causal || len(m.Labels()) == 0 {
		return g, nil
	}
	if h.flexible != "" {
		return g, f.flexibleHead(s, m, a, h, g)
	}
	names, wants := f.headWants(m, false, func(name string) []string { return []string{name} })
	ts, err := pick(s, archiveName(f.Path, h.archive), h.archive, wants, nil)
	if err != nil {
		return g, err
	}
	for i, name := range names {
		g.model[name] = ts[i]
	}
	return g, nil
}

// hubExtra reads the parameters of the model that were trained beside the adapter.
func (f *adapterFiles) hubExtra(s *bindings.Scope, m model.Model, a *method, g storedValues) error {
	var names []string
	var wants []want
	for _, p := range m.Params().All() {
		if !isHead(m, p.Name) && a.trains(m, p) && !g.model[p.Name].Defined() {
			names = append(names, p.Name)
			wants = append(wants, want{[]string{p.Name}, p.T.Shape(), false})
		}
	}
	if len(names) == 0 {
		return nil
	}
	path := filepath.Join(f.Path, hubExtra)
	archive, err := files.OpenSafetensors(path)
	if err != nil {
		return err
	}
	f.close = append(f.close, archive)
	ts, err := pick(s, path, archive, wants, nil)
	for i, name := range names {
		if err == nil {
			g.model[name] = ts[i]
		}
	}
	return err
}
