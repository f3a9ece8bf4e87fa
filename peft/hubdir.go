package peft

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// Folders of AdapterHub's adapters library: adapter_config.json with adapter.safetensors or
// pytorch_adapter.bin, and head_config.json with model_head.safetensors or pytorch_model_head.bin.

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

// hubHeadConfig is head_config.json.
type hubHeadConfig struct {
	Config *struct {
		Type       string `json:"head_type"`
		Layers     int    `json:"layers"`
		Activation string `json:"activation_function"`
		UsePooler  bool   `json:"use_pooler"`
	} `json:"config"`
	Name     *string        `json:"name"`
	Label2ID map[string]int `json:"label2id"`
}

func openHub(f *folder, raw []byte) error {
	where := func(err error) error { return fmt.Errorf("%s/adapter_config.json: %w", f.Path, err) }
	var c hubConfig
	if err := json.Unmarshal(raw, &c); err != nil {
		return where(err)
	}
	if len(c.Config) == 0 || string(c.Config) == "null" {
		return where(errors.New("neither peft_type nor config is in it: not an adapter of the peft or adapters libraries"))
	}
	if c.Name == "" || strings.Contains(c.Name, ".") {
		return where(fmt.Errorf("name is %q", c.Name))
	}
	f.Dialect = DialectHub
	f.Options.AdapterName = c.Name
	if f.Base == "" {
		f.Base = c.ModelName
	}
	method, err := hubSettings(c.Config)
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
	var tech technique
	if method.Architecture == "prefix_tuning" {
		f.Method = "prefix"
		f.Options.VirtualTokens, f.Options.PrefixProjection = method.Length, !method.Flat
		f.Options.PrefixHidden = method.Bottleneck
		f.Options.Init = ""
	} else if tech, err = f.hubBottleneck(method, archive); err != nil {
		return where(err)
	}
	f.prepare = func(m model.Model, o *Options) (technique, error) {
		if c.HiddenSize != m.Info().Hidden {
			return nil, fmt.Errorf("the adapter was trained on a model with hidden size %d, this one has %d", c.HiddenSize, m.Info().Hidden)
		}
		if f.Method == "prefix" && m.Info().KVHeads*m.Info().HeadDim != m.Info().Hidden {
			return nil, errors.New("AdapterHub's prefixes need as many key/value heads as heads")
		}
		if b, ok := tech.(*bottleneck); ok {
			b.o = *o
			if err := b.o.complete(f.Method); err != nil {
				return nil, err
			}
		}
		return tech, nil
	}
	f.values = func(s *bindings.Scope, m model.Model, a *adapter, specs []spec) (given, error) {
		return f.hubValues(s, m, a, specs, archive, h)
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

// hubBottleneck is the technique of a folder with bottleneck adapters.
func (f *folder) hubBottleneck(c hubMethod, archive files.Archive) (technique, error) {
	b := &bottleneck{where: &placement{c.MHAdapter, c.OutputAdapter, c.OriginalLNBefore}}
	switch {
	case c.MHAdapter:
		f.Method = "houlsby"
	case c.OutputAdapter:
		f.Method, b.pfeiffer = "pfeiffer", true
	default:
		return nil, errors.New("config: neither mh_adapter nor output_adapter is set")
	}
	if len(c.Scaling) > 0 && string(c.Scaling) != "null" {
		if err := json.Unmarshal(c.Scaling, &b.scaling); err != nil {
			return nil, fmt.Errorf("config: scaling %s is not supported (a number)", c.Scaling)
		}
	}
	if _, err := activation(c.NonLinearity); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	f.Options.Activation, f.Options.Bottleneck = c.NonLinearity, 0
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

// hubHeadFile is an opened head.
type hubHeadFile struct {
	archive  files.Archive
	flexible string // name of a flexible head ("heads.{name}.…"), "" for a static one
	layers   int
	act      string
}

func (f *folder) openHubHead() (*hubHeadFile, error) {
	path := filepath.Join(f.Path, "head_config.json")
	raw, err := hf.ReadJSON(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c hubHeadConfig
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	h := &hubHeadFile{}
	n := 0
	if c.Config != nil {
		switch {
		case c.Config.Type != "classification":
			return nil, fmt.Errorf("%s: head_type %q is not supported (classification)", path, c.Config.Type)
		case c.Config.UsePooler:
			return nil, fmt.Errorf("%s: use_pooler is not supported", path)
		case c.Config.Layers != 1 && c.Config.Layers != 2:
			return nil, fmt.Errorf("%s: %d layers are not supported (1, 2)", path, c.Config.Layers)
		case c.Name == nil:
			return nil, fmt.Errorf("%s: name is missing", path)
		}
		if _, err := activation(c.Config.Activation); err != nil && c.Config.Layers > 1 {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		h.flexible, h.layers, h.act = *c.Name, c.Config.Layers, c.Config.Activation
	}
	if h.archive, err = files.OpenFirst(f.Path, "model_head.safetensors", hubHead); err != nil {
		return nil, err
	}
	f.close = append(f.close, h.archive)
	for _, e := range h.archive.Entries() {
		if rows, ok := headRows(e); ok {
			n = rows
		}
		if h.flexible != "" && e.Name == h.key(h.layers)+".weight" && len(e.Shape) == 2 && e.Shape[1] > 0 {
			n = int(e.Shape[0])
		}
	}
	if n == 0 {
		return nil, fmt.Errorf("%s: no classification head is in its weights file", path)
	}
	f.NumLabels = n
	if f.sidecar == nil && len(c.Label2ID) == n {
		labels := make([]string, n)
		for name, id := range c.Label2ID {
			if id < 0 || id >= n || labels[id] != "" {
				return nil, fmt.Errorf("%s: label2id does not number %d labels", path, n)
			}
			labels[id] = name
		}
		f.Labels = labels
	}
	return h, nil
}

// key is the prefix of a flexible head's n-th layer: between linear maps lie activation and dropout.
func (h *hubHeadFile) key(layer int) string { return fmt.Sprintf("heads.%s.%d", h.flexible, 3*layer-2) }

// hubKey is a parameter's name in the file: the adapter's own name goes into the middle.
func hubKey(adapter, name string) string {
	for _, site := range []string{siteAttn, siteFFN} {
		if i := strings.Index(name, "."+site+"."); i >= 0 {
			i += len(site) + 2
			return name[:i] + "adapters." + adapter + "." + name[i:]
		}
	}
	return name
}

// prefixKeys are the names of a part of a prefix: one for every block, and the pool they share.
func prefixKeys(m model.Model, adapter, part string) []string {
	var keys []string
	for _, b := range m.Hooks().Blocks {
		keys = append(keys, fmt.Sprintf("%s.prefix_tuning.pool.prefix_tunings.%s.self.%s", attention(b), adapter, part))
	}
	top, _, _ := strings.Cut(m.Hooks().Blocks[0].Name, ".")
	return append(keys, fmt.Sprintf("%s.prefix_tuning.prefix_tunings.%s.self.%s", top, adapter, part))
}

func (f *folder) hubValues(s *bindings.Scope, m model.Model, a *adapter, specs []spec, archive files.Archive, h *hubHeadFile) (given, error) {
	g := given{own: map[string]bindings.Tensor{}, model: map[string]bindings.Tensor{}}
	adapterName, path := f.Options.AdapterName, archiveName(f.Path, archive)
	switch {
	case f.Method == "prefix" && f.Options.PrefixProjection:
		rename := map[string]string{projEmbedding: "wte.weight", projIn + ".weight": "control_trans.0.weight", projIn + ".bias": "control_trans.0.bias"}
		err := splitProjection(s, path, archive, specs, g, "control_trans.2", func(name string) []string {
			if hub, ok := rename[name]; ok {
				name = hub
			}
			return prefixKeys(m, adapterName, name)
		})
		if err != nil {
			return g, err
		}
	case f.Method == "prefix":
		shape := specs[0].shape
		ts, err := pick(s, path, archive, []want{{prefixKeys(m, adapterName, "control_trans"), []int64{shape[0] * shape[1]}, false}}, nil)
		if err != nil {
			return g, err
		}
		g.own[promptName] = s.Reshape(ts[0], shape...)
	default:
		wants := make([]want, len(specs))
		for i, sp := range specs {
			wants[i] = want{[]string{hubKey(adapterName, sp.name)}, sp.shape, false}
		}
		ts, err := pick(s, path, archive, wants, nil)
		if err != nil {
			return g, err
		}
		for i, sp := range specs {
			g.own[sp.name] = ts[i]
		}
	}
	if err := f.hubExtra(s, m, a, g); err != nil {
		return g, err
	}
	if h == nil || len(m.Labels()) == 0 {
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
func (f *folder) hubExtra(s *bindings.Scope, m model.Model, a *adapter, g given) error {
	var names []string
	var wants []want
	for _, p := range m.Params().All() {
		if !isHead(m, p.Name) && a.trains(m, p.Name) {
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

// saveHub writes an AdapterHub folder.
func (a *adapter) saveHub(s *bindings.Scope, dir string, m model.Model) error {
	i := m.Info()
	config, err := a.hubConfig(i)
	if err != nil {
		return err
	}
	if err := makeDir(dir); err != nil {
		return err
	}
	class := map[string]string{"distilbert": "DistilBertForSequenceClassification", "llama": "LlamaForSequenceClassification"}[i.Family]
	if len(m.Labels()) == 0 {
		class = map[string]string{"distilbert": "DistilBertModel", "llama": "LlamaForCausalLM"}[i.Family]
	}
	about := func(more map[string]any) map[string]any {
		c := map[string]any{"hidden_size": i.Hidden, "model_type": i.Family, "model_class": class, "model_name": a.o.Base, "version": hubVersion}
		for k, v := range more {
			c[k] = v
		}
		return c
	}
	return s.Run(func(s *bindings.Scope) error {
		name := a.o.AdapterName
		var ts, extra, head []hf.Named
		var aliases []alias
		switch {
		case a.name == "prefix":
			part := func(n hf.Named) {
				for _, key := range prefixKeys(m, name, n.Name) { // the blocks share one
					aliases = append(aliases, alias{key, len(ts)})
				}
				ts = append(ts, n)
			}
			if a.o.PrefixProjection {
				for _, n := range joinProjection(s, a, "wte.weight", "control_trans.0", "control_trans.2") {
					part(n)
				}
			} else {
				part(hf.Named{Name: "control_trans", Tensor: s.Reshape(s.Detach(a.params.Get(promptName).T), -1)})
			}
		default:
			for _, p := range a.params.All() {
				if strings.HasPrefix(p.Name, "heads.") {
					head = append(head, hf.Named{Name: p.Name, Tensor: p.T})
					continue
				}
				ts = append(ts, hf.Named{Name: hubKey(name, p.Name), Tensor: p.T})
			}
		}
		for _, t := range a.tuned {
			n := hf.Named{Name: t.p.Name, Tensor: t.t}
			if isHead(m, t.p.Name) {
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
				func() error { return hf.WriteJSON(filepath.Join(dir, "head_config.json"), about(a.hubHead())) })
		}
		return inTurn(append(steps, func() error { return a.writeSidecar(dir, a.o) })...)
	})
}

// hubHead is what head_config.json says of the head.
func (a *adapter) hubHead() map[string]any {
	ids := map[string]int{}
	for id, label := range a.labels {
		ids[label] = id
	}
	c := map[string]any{"config": nil, "name": nil, "num_labels": len(a.labels), "label2id": ids}
	if w, ok := a.technique.(*withHead); ok {
		c["name"], c["model_class"] = w.head.flexible, "DistilBertAdapterModel"
		c["config"] = map[string]any{
			"head_type": "classification", "num_labels": len(a.labels), "layers": w.head.layers, "activation_function": w.head.act,
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
func (a *adapter) hubConfig(i model.Info) (map[string]any, error) {
	if b, ok := core(a.technique).(*bottleneck); ok {
		p := b.place()
		scaling := b.scaling
		if scaling == 0 {
			scaling = 1
		}
		width := float64(b.width(i.Hidden))
		factor := float64(i.Hidden) / width
		if math.Floor(float64(i.Hidden)/factor) != width || factor != math.Trunc(factor) {
			factor = float64(i.Hidden) / (width + 0.5) // any factor whose floored quotient is the width
		}
		return map[string]any{
			"mh_adapter": p.attn, "output_adapter": p.ffn, "original_ln_before": p.readJoin, "original_ln_after": true,
			"ln_before": false, "ln_after": false, "residual_before_ln": true, "adapter_residual_before_ln": false,
			"non_linearity": a.o.Activation, "reduction_factor": jsonFloat(factor), "scaling": jsonFloat(scaling), "is_parallel": false, "phm_layer": false,
			"use_gating": false, "inv_adapter": nil, "inv_adapter_reduction_factor": nil, "leave_out": []int{}, "cross_adapter": false,
			"init_weights": "bert", "dropout": jsonFloat(0), "stochastic_depth": jsonFloat(0),
		}, nil
	}
	if a.name != "prefix" {
		return nil, fmt.Errorf("it holds houlsby, pfeiffer and prefix; save %s as %s", a.name, DialectPeft)
	}
	if i.KVHeads*i.HeadDim != i.Hidden {
		return nil, errors.New("its prefixes need as many key/value heads as heads")
	}
	hidden := a.o.PrefixHidden
	if hidden == 0 {
		hidden = i.Hidden
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
