package peft

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/fsutil"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// Dialect is a layout of adapter files.
type Dialect string

// The dialects.
const (
	DialectPeft        Dialect = "peft"          // a folder of the HuggingFace peft library
	DialectHub         Dialect = "adapterhub"    // a folder of AdapterHub's adapters library
	DialectLitLLaMA    Dialect = "lit-llama"     // a checkpoint file of lit-llama or litgpt
	DialectLLaMAFile   Dialect = "llama-adapter" // a checkpoint file of LLaMA-Adapter's own repository
	DialectModelFolder Dialect = "model"         // a HuggingFace model folder: what full and last save
)

// Info is what an adapter folder says about itself.
type Info struct {
	Path    string
	Dialect Dialect
	Method  string
	Base    string // the base model's name or path, "" if not recorded
	// NumLabels is the width of the classification head among the files, 0 without one. Labels are its names,
	// empty where the files do not record them.
	NumLabels int
	Labels    []string
	Tokenizer string  // name or path, "" if not recorded
	Options   Options // settings as far as the files tell them without the model
}

// HeadLabels are the label names to load a base model with, given the names that the base itself has: the
// recorded ones, the base's when there are as many, else LABEL_0, LABEL_1, …; none without a head.
func (i Info) HeadLabels(base []string) []string {
	switch {
	case len(i.Labels) > 0:
		return i.Labels
	case len(base) == i.NumLabels:
		return base
	}
	labels := make([]string, i.NumLabels)
	for n := range labels {
		labels[n] = fmt.Sprintf("LABEL_%d", n)
	}
	return labels
}

// folder is an adapter on disk, opened.
type folder struct {
	Info
	sidecar *sidecar // nil in folders that others wrote
	// prepare completes the options from the model, and gives the technique when New's does not do.
	prepare func(m model.Model, o *Options) (technique, error)
	// values reads the weights of a method's own parameters and of the model's.
	values func(s *bindings.Scope, m model.Model, a *adapter, specs []spec) (given, error)
	notes  []string // remarks for Method.Notes
	close  []io.Closer
}

// Close closes the files.
func (f *folder) Close() error {
	var errs []error
	for _, c := range f.close {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// sidecar is gopeft.yaml: what the other libraries' files have no place for.
type sidecar struct {
	Method      string       `yaml:"method"`
	Labels      []string     `yaml:"labels,omitempty"`
	Base        string       `yaml:"base,omitempty"`
	Tokenizer   string       `yaml:"tokenizer,omitempty"`
	Fingerprint *fingerprint `yaml:"fingerprint"`
	Options     Options      `yaml:"options"`
}

const sidecarName = "gopeft.yaml"

// maxConfig bounds what is read of a settings file.
const maxConfig = 16 << 20

func readSidecar(dir string) (*sidecar, error) {
	path := filepath.Join(dir, sidecarName)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxConfig))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var c sidecar
	if err := yaml.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("%s: %s", path, strings.Join(strings.Fields(err.Error()), " "))
	}
	return &c, nil
}

func (a *adapter) writeSidecar(dir string, o Options) error {
	o.InitText = "" // of no use to what is trained
	c := sidecar{Method: a.name, Labels: a.labels, Base: o.Base, Tokenizer: o.Tokenizer, Fingerprint: a.base, Options: o}
	return fsutil.WriteFile(filepath.Join(dir, sidecarName), func(w io.Writer) error {
		e := yaml.NewEncoder(w)
		e.SetIndent(2)
		return errors.Join(e.Encode(c), e.Close())
	})
}

// Probe says what kind of adapter is at path, a folder or a checkpoint file, before a model is loaded.
func Probe(path string) (Info, error) {
	f, err := open(path)
	if err != nil {
		return Info{}, err
	}
	return f.Info, f.Close()
}

func open(path string) (*folder, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("adapter %s: no such folder or file", path)
	}
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return openCheckpoint(path)
	}
	raw, err := hf.ReadJSON(filepath.Join(path, "adapter_config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return openModelFolder(path)
	}
	if err != nil {
		return nil, err
	}
	var kind struct {
		PeftType *string `json:"peft_type"`
	}
	if err := json.Unmarshal(raw, &kind); err != nil {
		return nil, fmt.Errorf("%s/adapter_config.json: %w", path, err)
	}
	side, err := readSidecar(path)
	if err != nil {
		return nil, err
	}
	f := &folder{Info: Info{Path: path}, sidecar: side}
	if side != nil {
		f.Labels, f.Base, f.Tokenizer, f.Options = side.Labels, side.Base, side.Tokenizer, side.Options
	}
	if kind.PeftType != nil {
		err = openPeft(f, raw)
	} else {
		err = openHub(f, raw)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if side != nil && side.Method != "" && side.Method != f.Method {
		return nil, errors.Join(fmt.Errorf("%s: %s is of method %s, adapter_config.json of %s", path, sidecarName, side.Method, f.Method), f.Close())
	}
	if f.NumLabels == 0 {
		f.NumLabels = len(f.Labels) // a head was saved: loading says which of its keys are missing
	}
	if side != nil && len(f.Labels) != f.NumLabels {
		return nil, errors.Join(fmt.Errorf("%s: %s names %d labels, but the head has %d", path, sidecarName, len(f.Labels), f.NumLabels), f.Close())
	}
	f.Options.Base, f.Options.Tokenizer = f.Base, f.Tokenizer
	return f, nil
}

// Load reads the adapter at path, a folder or a checkpoint file, and attaches it to m. A model folder gives a
// "full" method whose weights are copied into m's.
func Load(s *bindings.Scope, path string, m model.Model) (Method, error) {
	return LoadWith(s, path, m, LoadOptions{})
}

// LoadOptions change how Load reads an adapter.
type LoadOptions struct {
	// PeftCompat classifies behind a soft prompt from the position the peft library pools.
	PeftCompat bool
	// AdapterLength is the prompts' length in a checkpoint file of LLaMA-Adapter's repository, which does not
	// record it; 0 has the file's shapes and gates tell.
	AdapterLength int
}

// LoadWith is Load with options.
func LoadWith(s *bindings.Scope, path string, m model.Model, o LoadOptions) (Method, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	f.Options.PeftCompat = f.Options.PeftCompat || o.PeftCompat
	if f.Dialect == DialectLLaMAFile && o.AdapterLength > 0 {
		f.Options.AdapterLength = o.AdapterLength
	}
	a, err := f.load(s, m)
	return orNil(a), errors.Join(err, f.Close())
}

// orNil keeps a nil *adapter from becoming a Method that is not nil.
func orNil(a *adapter) Method {
	if a == nil {
		return nil
	}
	return a
}

func (f *folder) load(s *bindings.Scope, m model.Model) (*adapter, error) {
	now := fingerprintOf(s, m)
	if f.sidecar != nil && f.sidecar.Fingerprint != nil {
		if err := f.sidecar.Fingerprint.shape(now); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	if f.NumLabels > 0 && len(m.Labels()) == 0 {
		return nil, fmt.Errorf("%s: the adapter classifies (%d labels), but the model was loaded without a classification head", f.Path, f.NumLabels)
	}
	o := f.Options
	tech, err := f.prepare(m, &o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	a, err := newAdapter(f.Method, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	if tech != nil {
		a.technique = tech
	}
	err = s.Run(func(s *bindings.Scope) error {
		specs, err := a.specs(outlineOf(m))
		if err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		g, err := f.values(s, m, a, specs)
		if err != nil {
			return err
		}
		g.labels = f.HeadLabels(m.Labels())
		if err := a.attach(s, m, g); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	a.notes = f.notes
	if f.sidecar != nil && f.sidecar.Fingerprint != nil {
		if !f.sidecar.Fingerprint.sameWeights(now) {
			a.notes = append(a.notes, fmt.Sprintf("%s was trained on a base model with other weights (%s)", f.Path, orUnknown(f.Base)))
		}
	} else if name := otherBase(f.Base, m); name != "" {
		a.notes = append(a.notes, fmt.Sprintf("%s was trained on the base model %s; this one is %s", f.Path, f.Base, name))
	}
	return a, nil
}

func orUnknown(name string) string {
	if name == "" {
		return "its name is not recorded"
	}
	return name
}

// headWants asks for the model's head with as many labels as the adapter has.
func (f *folder) headWants(m model.Model, optional bool, keys func(name string) []string) (names []string, wants []want) {
	for _, p := range m.Params().All() {
		if !isHead(m, p.Name) {
			continue
		}
		shape := p.T.Shape()
		if f.NumLabels > 0 && shape[0] == int64(len(m.Labels())) && isOutput(m, p.Name) {
			shape[0] = int64(f.NumLabels)
		}
		names = append(names, p.Name)
		wants = append(wants, want{keys(p.Name), shape, optional})
	}
	return names, wants
}

// isOutput reports whether a parameter belongs to the head's last module.
func isOutput(m model.Model, name string) bool {
	heads := m.HeadNames()
	return strings.HasPrefix(name, heads[len(heads)-1]+".")
}

// Save implements Method.
func (a *adapter) Save(s *bindings.Scope, dir string, m model.Model) error {
	return a.saveAs(s, dir, m, a.dialect(m), false)
}

// dialect is the layout that carries the method best.
func (a *adapter) dialect(m model.Model) Dialect {
	switch a.name {
	case "full", "last":
		return DialectModelFolder
	case "houlsby", "pfeiffer":
		return DialectHub
	case "prefix":
		if m.Info().Family == "distilbert" || a.uncounted() {
			return DialectHub
		}
	}
	return DialectPeft
}

// saveAs is Save in a layout of choice; one that cannot hold the method is an error saying why. portable asks
// for what the layout's own library computes the same from; else our extensions of it are used.
func (a *adapter) saveAs(s *bindings.Scope, dir string, m model.Model, d Dialect, portable bool) error {
	if a.m != m || a.restore == nil {
		return fmt.Errorf("save %s: the method is not attached to the model", a.name)
	}
	if from := m.Info().LoadedFrom; portable && from != "" && d != DialectModelFolder {
		return fmt.Errorf("save %s as %s: the base is a %s checkpoint that was loaded as %s, whose modules have other names than that library gives it",
			a.name, d, from, m.Info().Family)
	}
	var err error
	switch d {
	case DialectModelFolder:
		err = a.saveModel(s, dir, m)
	case DialectPeft:
		err = a.savePeft(s, dir, m, portable)
	case DialectHub:
		err = a.saveHub(s, dir, m, portable)
	default:
		err = a.saveCheckpoint(s, dir, m, d)
	}
	if err != nil {
		return fmt.Errorf("save %s as %s: %w", a.name, d, err)
	}
	return nil
}

// inTurn runs steps until one fails.
func inTurn(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func makeDir(dir string) error { return os.MkdirAll(dir, 0o777) }

// saveModel writes the model's weights, those trained among them, as a model folder.
func (a *adapter) saveModel(s *bindings.Scope, dir string, m model.Model) error {
	if len(a.params.All()) > 0 {
		return errors.New("the method's parameters are not the model's own: merge it first")
	}
	if err := makeDir(dir); err != nil {
		return err
	}
	return model.Save(s, dir, m)
}

// openModelFolder opens what full and last save.
func openModelFolder(path string) (*folder, error) {
	c, err := hf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("adapter %s: adapter_config.json is missing, and it is no model folder either: %w", path, err)
	}
	f := &folder{Info: Info{Path: path, Dialect: DialectModelFolder, Method: "full"}, close: []io.Closer{c}}
	for _, e := range c.Weights.Entries() {
		if rows, ok := headRows(e); ok {
			f.NumLabels = rows
		}
	}
	if f.NumLabels > 0 {
		facts, err := model.ReadFacts(path)
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		if len(facts.Labels) == f.NumLabels {
			f.Labels = facts.Labels
		}
	}
	f.prepare = func(model.Model, *Options) (technique, error) { return nil, nil }
	f.values = func(s *bindings.Scope, m model.Model, _ *adapter, _ []spec) (given, error) {
		var wants []want
		params := m.Params().All()
		for _, p := range params {
			wants = append(wants, want{keys: []string{p.Name}, shape: p.T.Shape()})
		}
		ts, err := pick(s, path, c.Weights, wants, nil)
		if err != nil {
			return given{}, err
		}
		g := given{model: map[string]bindings.Tensor{}}
		for i, p := range params {
			g.model[p.Name] = ts[i]
		}
		return g, nil
	}
	return f, nil
}

// headRows is the number of labels if an entry is a classification head's weight.
func headRows(e files.Entry) (int, bool) {
	for _, name := range []string{"classifier.weight", "score.weight"} {
		if (e.Name == name || strings.HasSuffix(e.Name, "."+name)) && len(e.Shape) == 2 && e.Shape[1] > 0 {
			return int(e.Shape[0]), true
		}
	}
	return 0, false
}
