package peft

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
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

// Folders of the HuggingFace peft library: adapter_config.json and adapter_model.safetensors or .bin.

// peftTypes maps methods to peft's names for them. The last two are not peft's own: only gopeft reads them.
var peftTypes = []struct{ method, peft string }{
	{"lora", "LORA"}, {"dora", "LORA"}, {"ia3", "IA3"}, {"prompt", "PROMPT_TUNING"}, {"prefix", "PREFIX_TUNING"},
	{"llama-adapter", "ADAPTION_PROMPT"}, {"llama-adapter-v2", "ADAPTION_PROMPT_V2"}, {"bitfit", "BITFIT"},
}

const (
	peftWeights    = "adapter_model.safetensors"
	peftProjection = "prefix_projection.safetensors" // ours: peft keeps the folded prefix only
)

// peftConfig is the part of adapter_config.json that shapes an adapter. Other fields, which every version of
// peft adds to, are not looked at unless they are in unsupported.
type peftConfig struct {
	Type          string   `json:"peft_type"`
	Task          *string  `json:"task_type"`
	Base          *string  `json:"base_model_name_or_path"`
	ModulesToSave []string `json:"modules_to_save"`

	Rank         int                `json:"r"`
	Alpha        float64            `json:"lora_alpha"`
	Dropout      float64            `json:"lora_dropout"`
	RSLoRA       bool               `json:"use_rslora"`
	DoRA         bool               `json:"use_dora"`
	Bias         string             `json:"bias"`
	Targets      patterns           `json:"target_modules"`
	Exclude      patterns           `json:"exclude_modules"`
	Layers       layerList          `json:"layers_to_transform"`
	RankPattern  map[string]int     `json:"rank_pattern"`
	AlphaPattern map[string]float64 `json:"alpha_pattern"`

	FeedForward patterns `json:"feedforward_modules"`

	VirtualTokens int    `json:"num_virtual_tokens"`
	TokenDim      *int   `json:"token_dim"`
	NumLayers     *int   `json:"num_layers"`
	NumHeads      *int   `json:"num_attention_heads"`
	Tokenizer     string `json:"tokenizer_name_or_path"`

	AdapterLength int `json:"adapter_len"`
	AdapterLayers int `json:"adapter_layers"`
}

// patterns is a list of module names, or one regular expression over whole names.
type patterns struct {
	list  []string
	regex string
}

func (p *patterns) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] == '"' {
		return json.Unmarshal(raw, &p.regex)
	}
	return json.Unmarshal(raw, &p.list)
}

func (p patterns) empty() bool { return len(p.list) == 0 && p.regex == "" }

// match compiles the patterns to a test of a module's full name.
func (p patterns) match() (func(name string) bool, error) {
	if p.regex == "all-linear" {
		return func(string) bool { return true }, nil
	}
	if p.regex != "" {
		re, err := regexp.Compile("^(?:" + p.regex + ")$")
		if err != nil {
			return nil, fmt.Errorf("target_modules: %w", err)
		}
		return re.MatchString, nil
	}
	return func(name string) bool {
		return slices.ContainsFunc(p.list, func(t string) bool { return name == t || strings.HasSuffix(name, "."+t) })
	}, nil
}

// layerList is a list of layer numbers, or one.
type layerList []int

func (l *layerList) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] != '[' && raw[0] != 'n' {
		var one int
		err := json.Unmarshal(raw, &one)
		*l = layerList{one}
		return err
	}
	return json.Unmarshal(raw, (*[]int)(l))
}

// unsupported are settings of peft that change the mathematics in ways that are not implemented.
var unsupported = []string{
	"layer_replication", "trainable_token_indices", "target_parameters", "use_qalora", "use_bdlora", "alora_invocation_tokens",
	"lora_bias", "fan_in_fan_out", "arrow_config", "kasa_config", "velora_config", "monteclora_config", "megatron_config",
}

func (c *peftConfig) check(raw []byte) error {
	var all map[string]any
	if err := json.Unmarshal(raw, &all); err != nil {
		return err
	}
	for _, key := range unsupported {
		switch v := all[key].(type) {
		case nil:
		case bool:
			if v {
				return fmt.Errorf("%s is not supported", key)
			}
		case []any:
			if len(v) > 0 {
				return fmt.Errorf("%s is not supported", key)
			}
		case map[string]any:
			if len(v) > 0 {
				return fmt.Errorf("%s is not supported", key)
			}
		default:
			return fmt.Errorf("%s is not supported", key)
		}
	}
	// These initialisations also change the base model's weights, which the folder then does not hold.
	if init, ok := all["init_lora_weights"].(string); ok {
		for _, prefix := range []string{"pissa", "olora", "corda", "loftq", "lora_ga"} {
			if strings.HasPrefix(init, prefix) {
				return fmt.Errorf("init_lora_weights %q changes the base model's weights: export the adapter as plain LoRA first", init)
			}
		}
	}
	if c.Bias != "" && c.Bias != "none" {
		return fmt.Errorf("bias %q is not supported (none)", c.Bias)
	}
	return nil
}

func openPeft(f *folder, raw []byte) error {
	where := func(err error) error { return fmt.Errorf("%s/adapter_config.json: %w", f.Path, err) }
	var c peftConfig
	if err := json.Unmarshal(raw, &c); err != nil {
		return where(err)
	}
	f.Dialect = DialectPeft
	for _, t := range peftTypes {
		if t.peft == c.Type && f.Method == "" {
			f.Method = t.method
		}
	}
	switch {
	case f.Method == "":
		return where(fmt.Errorf("peft_type %q is not supported", c.Type))
	case f.Method == "lora" && c.DoRA:
		f.Method = "dora"
	}
	if err := c.check(raw); err != nil {
		return where(err)
	}
	if c.Base != nil {
		f.Base = *c.Base
	}
	if c.Tokenizer != "" {
		f.Tokenizer = c.Tokenizer
	}
	archive, err := files.OpenFirst(f.Path, peftWeights, "adapter_model.bin")
	if err != nil {
		return err
	}
	f.close = append(f.close, archive)
	for _, e := range archive.Entries() {
		if rows, ok := headRows(e); ok {
			f.NumLabels = rows
		}
	}
	o := &f.Options
	o.Rank, o.Alpha, o.LoRADropout, o.RSLoRA, o.DoRA = c.Rank, c.Alpha, c.Dropout, c.RSLoRA, c.DoRA
	o.VirtualTokens, o.AdapterLength, o.AdapterLayers = c.VirtualTokens, c.AdapterLength, c.AdapterLayers
	o.Targets = c.Targets.list
	o.PrefixProjection = false // the file holds the folded prefix; see values
	if f.sidecar == nil {
		o.Gate = "layer" // as in peft
	}
	f.prepare = func(m model.Model, o *Options) (technique, error) { return c.technique(f, m, o) }
	f.values = func(s *bindings.Scope, m model.Model, a *adapter, specs []spec) (given, error) {
		return f.peftValues(s, m, a, specs, c, archive)
	}
	return nil
}

// technique makes the method's technique where New's would not do, and completes the options.
func (c *peftConfig) technique(f *folder, m model.Model, o *Options) (technique, error) {
	i := m.Info()
	if c.NumLayers != nil && *c.NumLayers != i.Layers {
		return nil, fmt.Errorf("the adapter was trained on a model with %d layers, this one has %d", *c.NumLayers, i.Layers)
	}
	if f.sidecar == nil { // ours knows the patterns
		o.Unfreeze = c.alsoSaved(m)
	}
	switch f.Method {
	case "prompt":
		if c.TokenDim != nil && *c.TokenDim != i.Hidden {
			return nil, fmt.Errorf("the adapter was trained on a model with hidden size %d, this one has %d", *c.TokenDim, i.Hidden)
		}
	case "prefix":
		if width := i.KVHeads * i.HeadDim; c.TokenDim != nil && *c.TokenDim != width {
			return nil, fmt.Errorf("the adapter was trained on a model with keys and values of %d, this one has %d", *c.TokenDim, width)
		}
		if _, err := os.Stat(filepath.Join(f.Path, peftProjection)); err == nil && f.sidecar != nil {
			o.PrefixProjection = f.sidecar.Options.PrefixProjection
		}
	case "lora", "dora", "ia3":
		if err := c.targets(m, o); err != nil {
			return nil, err
		}
	}
	switch f.Method {
	case "lora", "dora":
		l := &lora{}
		if len(c.RankPattern)+len(c.AlphaPattern) > 0 {
			var err error
			if l.perModule, err = c.perModule(); err != nil {
				return nil, err
			}
		}
		final := *o
		if err := final.complete(f.Method); err != nil {
			return nil, err
		}
		l.o = final
		return l, nil
	case "ia3":
		v := &ia3{inputs: []string{}}
		feed, err := c.FeedForward.match()
		if err != nil {
			return nil, err
		}
		all, err := outlineOf(m).targets(o.Targets)
		if err != nil {
			return nil, err
		}
		for _, t := range all {
			if !c.FeedForward.empty() && feed(t.name) {
				v.inputs = append(v.inputs, t.name)
			}
		}
		final := *o
		if err := final.complete(f.Method); err != nil {
			return nil, err
		}
		v.o = final
		return v, nil
	}
	return nil, nil
}

// targets resolves target_modules against the model: to the patterns as they are where they mean the same in
// every layer, else to full names.
func (c *peftConfig) targets(m model.Model, o *Options) error {
	wanted, err := c.Targets.match()
	if err != nil {
		return err
	}
	excluded, err := c.Exclude.match()
	if err != nil {
		return err
	}
	plan := outlineOf(m)
	all, err := plan.targets([]string{"all"})
	if err != nil {
		return err
	}
	o.Targets = nil
	short := map[string]int{}
	for _, t := range all {
		layer := slices.Index(plan.blocks, t.block)
		if !wanted(t.name) || !c.Exclude.empty() && excluded(t.name) || len(c.Layers) > 0 && !slices.Contains(c.Layers, layer) {
			continue
		}
		o.Targets = append(o.Targets, t.name)
		short[t.name[strings.LastIndex(t.name, ".")+1:]]++
	}
	if len(o.Targets) == 0 {
		return fmt.Errorf("target_modules name no linear map of the model's blocks (%s)", strings.Join(plan.moduleNames(), ", "))
	}
	for _, n := range short {
		if n != len(plan.blocks) {
			return nil
		}
	}
	o.Targets = nil
	for _, name := range plan.moduleNames() {
		if short[name] > 0 {
			o.Targets = append(o.Targets, name)
		}
	}
	return nil
}

// perModule applies rank_pattern and alpha_pattern: regular expressions over the ends of modules' names.
func (c *peftConfig) perModule() (func(string) (int, float64), error) {
	compile := func(pattern string) (*regexp.Regexp, error) {
		re, err := regexp.Compile(`^(?:.*\.)?(?:` + pattern + ")$")
		if err != nil {
			return nil, fmt.Errorf("rank_pattern, alpha_pattern: %w", err)
		}
		return re, nil
	}
	ranks, alphas := map[*regexp.Regexp]int{}, map[*regexp.Regexp]float64{}
	for p, r := range c.RankPattern {
		re, err := compile(p)
		if err != nil {
			return nil, err
		}
		if r < 1 {
			return nil, fmt.Errorf("rank_pattern: %q is %d", p, r)
		}
		ranks[re] = r
	}
	for p, a := range c.AlphaPattern {
		re, err := compile(p)
		if err != nil {
			return nil, err
		}
		alphas[re] = a
	}
	return func(name string) (int, float64) {
		rank, alpha := c.Rank, c.Alpha
		for re, r := range ranks {
			if re.MatchString(name) {
				rank = r
			}
		}
		for re, a := range alphas {
			if re.MatchString(name) {
				alpha = a
			}
		}
		return rank, alpha
	}, nil
}

// promptLearning reports the methods whose heads peft saves under another prefix.
func promptLearning(method string) bool { return method == "prompt" || method == "prefix" }

// peftKeys are the names a parameter of the model may have in a peft file.
func peftKeys(method, name string) []string {
	if promptLearning(method) {
		return []string{"base_model." + name, "base_model.model." + name}
	}
	keys := []string{"base_model.model." + name, "base_model." + name}
	// An adapter trained on the encoder or decoder alone.
	if _, rest, ok := strings.Cut(name, "."); ok && (strings.HasPrefix(name, "distilbert.") || strings.HasPrefix(name, "model.")) {
		keys = append(keys, "base_model.model."+rest)
	}
	return keys
}

func (f *folder) peftValues(s *bindings.Scope, m model.Model, a *adapter, specs []spec, c peftConfig, archive files.Archive) (given, error) {
	var names []string
	var wants []want
	g := given{own: map[string]bindings.Tensor{}, model: map[string]bindings.Tensor{}}
	path := archiveName(f.Path, archive)
	projected := f.Method == "prefix" && !hasSpec(specs, promptName)
	for _, sp := range specs {
		keys := []string{sp.name}
		if !promptLearning(f.Method) {
			keys = peftKeys(f.Method, sp.name)
			if strings.HasSuffix(sp.name, ".lora_magnitude_vector") {
				keys = append(keys, keys[0]+".weight")
			}
		}
		if projected {
			continue
		}
		names = append(names, sp.name)
		wants = append(wants, want{keys, sp.shape, false})
	}
	if projected {
		width := 2 * m.Info().Layers * m.Info().KVHeads * m.Info().HeadDim
		names = append(names, promptName)
		wants = append(wants, want{[]string{promptName}, []int64{int64(f.Options.VirtualTokens), int64(width)}, false})
	}
	own := len(names)
	// A causal or feature-extraction adapter has no head; peft leaves it out of adaption prompts too.
	headless := f.NumLabels == 0 && (c.Task == nil || *c.Task != "SEQ_CLS" || f.Method == "llama-adapter")
	if len(m.Labels()) > 0 && !headless {
		n, w := f.headWants(m, false, func(name string) []string { return peftKeys(f.Method, name) })
		names, wants = append(names, n...), append(wants, w...)
	}
	for _, p := range m.Params().All() {
		if !isHead(m, p.Name) && a.trains(m, p.Name) {
			names = append(names, p.Name)
			wants = append(wants, want{peftKeys(f.Method, p.Name), p.T.Shape(), false})
		}
	}
	ts, err := pick(s, path, archive, wants, nil)
	if err != nil {
		return g, err
	}
	for i, name := range names {
		if i < own {
			g.own[name] = ts[i]
		} else {
			g.model[name] = ts[i]
		}
	}
	if projected {
		return g, f.readProjection(s, specs, g)
	}
	return g, nil
}

// alsoSaved are the names in modules_to_save but for heads, which peft lists whether or not the model has them.
func (c *peftConfig) alsoSaved(m model.Model) []string {
	var out []string
	for _, name := range c.ModulesToSave {
		if name != "score" && name != "classifier" && !slices.Contains(m.HeadNames(), name) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func hasSpec(specs []spec, name string) bool {
	return slices.ContainsFunc(specs, func(sp spec) bool { return sp.name == name })
}

func archiveName(dir string, a files.Archive) string {
	if es := a.Entries(); len(es) > 0 {
		return es[0].File
	}
	return dir
}

// readProjection reads the network that a prefix was trained through.
func (f *folder) readProjection(s *bindings.Scope, specs []spec, g given) error {
	path := filepath.Join(f.Path, peftProjection)
	a, err := files.OpenSafetensors(path)
	if err != nil {
		return err
	}
	f.close = append(f.close, a)
	delete(g.own, promptName)
	return splitProjection(s, path, a, specs, g, "transform.2", func(name string) []string { return []string{name} })
}

// splitProjection reads a projection whose last layer the file holds in one piece.
func splitProjection(s *bindings.Scope, path string, a files.Archive, specs []spec, g given, last string, keys func(string) []string) error {
	var names []string
	var wants []want
	blocks := int64(0)
	var part []int64
	for _, sp := range specs {
		if strings.HasPrefix(sp.name, projOut+".") {
			if strings.HasSuffix(sp.name, ".weight") {
				blocks++
				part = sp.shape
			}
			continue
		}
		names, wants = append(names, sp.name), append(wants, want{keys(sp.name), sp.shape, false})
	}
	wants = append(wants, want{keys(last + ".weight"), []int64{blocks * part[0], part[1]}, false}, want{keys(last + ".bias"), []int64{blocks * part[0]}, false})
	ts, err := pick(s, path, a, wants, nil)
	if err != nil {
		return err
	}
	for i, name := range names {
		g.own[name] = ts[i]
	}
	w, b := ts[len(ts)-2], ts[len(ts)-1]
	for i := range blocks {
		g.own[outOf(int(i))+".weight"] = s.Narrow(w, 0, i*part[0], part[0])
		g.own[outOf(int(i))+".bias"] = s.Narrow(b, 0, i*part[0], part[0])
	}
	return nil
}

// savePeft writes a peft folder; portable, one that peft itself computes the same from.
func (a *adapter) savePeft(s *bindings.Scope, dir string, m model.Model, portable bool) error {
	config, err := a.peftConfig(m)
	if err != nil {
		return err
	}
	if portable {
		if err := a.foreign(m); err != nil {
			return err
		}
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
		if a.name == "prefix" && a.o.PrefixProjection {
			if err := write(s, dir, peftProjection, joinProjection(s, a, projEmbedding, projIn, "transform.2")); err != nil {
				return err
			}
			ts = []hf.Named{{Name: promptName, Tensor: foldPrefix(s, a, m)}}
		}
		for _, t := range a.tuned {
			ts = append(ts, hf.Named{Name: peftKeys(a.name, t.p.Name)[0], Tensor: t.t})
		}
		return inTurn(
			func() error { return write(s, dir, peftWeights, ts) },
			func() error { return hf.WriteJSON(filepath.Join(dir, "adapter_config.json"), config) },
			func() error { return a.writeSidecar(dir, o) })
	})
}

// joinProjection gives the projection's parts with the last layer in one piece.
func joinProjection(s *bindings.Scope, a *adapter, embedding, in, last string) []hf.Named {
	var w, b []bindings.Tensor
	for i := range a.m.Hooks().Blocks {
		w = append(w, a.params.Get(outOf(i)+".weight").T)
		b = append(b, a.params.Get(outOf(i)+".bias").T)
	}
	get := func(name string) bindings.Tensor { return a.params.Get(name).T }
	return []hf.Named{
		{Name: embedding, Tensor: get(projEmbedding)}, {Name: in + ".weight", Tensor: get(projIn + ".weight")}, {Name: in + ".bias", Tensor: get(projIn + ".bias")},
		{Name: last + ".weight", Tensor: s.Cat(0, w...)}, {Name: last + ".bias", Tensor: s.Cat(0, b...)},
	}
}

// foldPrefix is the prefix [k, 2·L·Hkv·D] that a projection computes.
func foldPrefix(s *bindings.Scope, a *adapter, m model.Model) bindings.Tensor {
	var out bindings.Tensor
	s.NoGrad(func() {
		if p := a.params.Get(promptName); p != nil {
			out = p.T
			return
		}
		var parts []bindings.Tensor
		for _, b := range m.Hooks().Blocks {
			parts = append(parts, b.Memory[0].(*prefixMemory).slots(s))
		}
		out = s.Cat(1, parts...)
	})
	return out
}

// peftConfig is the adapter's adapter_config.json.
func (a *adapter) peftConfig(m model.Model) (map[string]any, error) {
	i, o := m.Info(), a.o
	c := map[string]any{"inference_mode": true, "base_model_name_or_path": nil, "revision": nil, "auto_mapping": nil, "task_type": "CAUSAL_LM"}
	if o.Base != "" {
		c["base_model_name_or_path"] = o.Base
	}
	if len(m.Labels()) > 0 {
		c["task_type"] = "SEQ_CLS"
	}
	for _, t := range peftTypes {
		if t.method == a.name {
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
		c["bias"], c["fan_in_fan_out"], c["init_lora_weights"] = "none", false, true
		c["target_modules"] = peftTargets(m, o.Targets)
		ranks, alphas := map[string]int{}, map[string]any{}
		if l.perModule != nil {
			targets, _ := outlineOf(m).targets(o.Targets)
			for _, t := range targets {
				r, alpha := l.perModule(t.name)
				if r != o.Rank {
					ranks[regexp.QuoteMeta(t.name)] = r
				}
				if alpha != o.Alpha {
					alphas[regexp.QuoteMeta(t.name)] = wholeNumber(alpha)
				}
			}
		}
		c["rank_pattern"], c["alpha_pattern"] = ranks, alphas
	case "ia3":
		c["target_modules"], c["fan_in_fan_out"], c["init_ia3_weights"] = peftTargets(m, o.Targets), false, true
		feed := []string{}
		targets, _ := outlineOf(m).targets(o.Targets)
		for _, t := range targets {
			name := t.name
			if full := peftTargets(m, o.Targets); !slices.Contains(full, name) {
				name = name[strings.LastIndex(name, ".")+1:]
			}
			if core(a.technique).(*ia3).scalesInput(t) && !slices.Contains(feed, name) {
				feed = append(feed, name)
			}
		}
		c["feedforward_modules"] = feed
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
// peft leaves heads of adaption prompts alone and would not know where to put them.
func (a *adapter) savedModules(m model.Model) []string {
	var out []string
	if a.name != "llama-adapter" {
		out = slices.Clone(m.HeadNames())
	}
	for _, t := range a.tuned {
		module := t.p.Name[:strings.LastIndex(t.p.Name, ".")]
		if matchesAny(a.o.Unfreeze, t.p.Name) && !slices.Contains(out, module) {
			out = append(out, module)
		}
	}
	return out
}

func lastPart(name string) string { return name[strings.LastIndex(name, ".")+1:] }

// peftTargets writes targets as peft matches them: by the ends of names.
func peftTargets(m model.Model, targets []string) []string {
	var out []string
	plan := outlineOf(m)
	for _, t := range targets {
		names := []string{t}
		if found, err := plan.targets([]string{t}); err == nil && len(found) > 1 {
			names = nil
			for _, f := range found {
				names = append(names, lastPart(f.name))
			}
		}
		for _, n := range names {
			if !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out
}

// wholeNumber keeps 16.0 from being written as anything but 16: peft types lora_alpha as an integer.
func wholeNumber(v float64) any {
	if n, err := strconv.Atoi(strconv.FormatFloat(v, 'f', -1, 64)); err == nil {
		return n
	}
	return v
}
