package infer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"gopeft/model"
	"gopeft/model/fsutil"
	"gopeft/model/hub"
	"gopeft/model/tokenizer"
	"gopeft/peft"
	"gopeft/train"
	"gopeft/train/classic"
	"gopeft/train/data"
	"gopeft/train/prompted"
)

// Source is what a path given as --model or --adapter stands for.
type Source struct {
	Model      string         // folder of the (base) model
	Adapter    string         // adapter folder, "" if none
	Name       string         // what Adapter was called when it was given; "": it was not named
	Adapters   []NamedAdapter // several adapters in place of Adapter, for rows to choose from
	Classifier string         // file of a features run's, "" if none
	Pool       string         // how that run pooled
	Prompt     string         // file of the prompt by which a run asked the model as it is, "" if none
	MaxLength  int            // how that run cut texts
	Run        *Trained       // of the run whose result it is; nil for what is no run's
	Methods    peft.Catalog   // what the adapters' methods are looked for in; nil: gopeft's own
}

// Resolve tells what model and adapter name: a model folder, an adapter folder (its base is model, or what it
// names), or the folder of a run, whose best checkpoint is meant.
func Resolve(model, adapter string) (Source, error) {
	if adapter == "" && model == "" {
		return Source{}, train.Usage("--model is missing: give a model folder, or the folder of a run")
	}
	if adapter == "" {
		if fsutil.Exists(filepath.Join(model, "adapter_config.json")) {
			return Resolve("", model)
		}
		if fsutil.Exists(filepath.Join(model, "config.yaml")) {
			return resolveRun(model)
		}
		return Source{Model: model}, nil
	}
	if model != "" && !fsutil.Exists(filepath.Join(model, "config.json")) && fsutil.Exists(filepath.Join(model, "config.yaml")) {
		run, err := resolveRun(model)
		if err != nil {
			return Source{}, err
		}
		return Source{}, train.Usage("--model %s is a run: with --adapter give its base model, %s", model, run.Model)
	}
	if fsutil.Exists(filepath.Join(adapter, "best")) {
		run, err := resolveRun(adapter)
		if err != nil || model == "" {
			return run, err
		}
		if run.Adapter == "" {
			return Source{}, train.Usage("--adapter %s is a run that trained a whole model: give it as --model", adapter)
		}
		run.Model = model
		return run, nil
	}
	if model == "" {
		info, err := peft.Probe(adapter)
		if err != nil {
			return Source{}, err
		}
		if model = info.Base; model == "" {
			return Source{}, train.Usage("%s does not name its base model: give it with --model", adapter)
		}
	}
	return Source{Model: model, Adapter: adapter}, nil
}

// Trained is what a run's settings say about using its result.
type Trained struct {
	Folder string `yaml:"-"` // of the run
	Task   string `yaml:"task"`
	Model  string `yaml:"model"`
	Pool   string `yaml:"pool"`
	// Quantize is the bits that the base was held in; "": the run is from before there was the setting.
	Quantize string        `yaml:"quantize"`
	Data     data.Settings `yaml:",inline"`
}

func resolveRun(dir string) (Source, error) {
	settings := filepath.Join(dir, "config.yaml")
	raw, err := fsutil.ReadSmall(settings, fsutil.MaxSettings)
	if err != nil {
		return Source{}, err
	}
	run := Trained{Folder: dir, Task: "classify", Pool: "cls", Data: data.Settings{MaskPrompt: true}}
	if err := yaml.Unmarshal(raw, &run); err != nil {
		return Source{}, fmt.Errorf("%s: %w", settings, err)
	}
	src := Source{Model: run.Model, MaxLength: run.Data.MaxLength, Run: &run}
	best := filepath.Join(dir, "best")
	switch path := classic.FileIn(dir); {
	case path != "":
		src.Classifier, src.Pool = path, run.Pool
	case fsutil.Exists(filepath.Join(dir, prompted.FileName)):
		src.Prompt = filepath.Join(dir, prompted.FileName)
	case fsutil.Exists(filepath.Join(best, "config.json")):
		src.Model = best
	case fsutil.Exists(filepath.Join(best, "adapter_config.json")):
		src.Adapter = best
	default:
		return Source{}, fmt.Errorf("%s: the run has no best checkpoint yet", dir)
	}
	return src, nil
}

// base is what to hold the frozen base in, where products are computed in precision p.
func (s Source) base(dtype, quantize string, p train.Precision) (train.Base, error) {
	if quantize == "" && s.Run != nil && (s.Adapter != "" || s.Classifier != "" || s.Prompt != "") {
		quantize = s.Run.Quantize
	}
	file, err := model.FileDType(s.Model)
	if err != nil {
		return train.Base{}, err
	}
	return train.ChooseBase(dtype, quantize, file, p)
}

// tokenizer is the model's, or one beside the adapter that has new tokens.
func (s Source) tokenizer() (*tokenizer.Tokenizer, error) {
	tok, err := train.OpenTokenizer(s.Model)
	path := s.firstAdapter()
	if path == "" {
		return tok, err
	}
	if info, failed := s.Methods.Probe(path); failed != nil || !info.TrainsTokens {
		return tok, err // loading the adapter tells what is wrong with it
	}
	none := (*tokenizer.NoneError)(nil)
	switch own, failed := train.OpenTokenizer(path); {
	case errors.As(failed, &none):
	case failed != nil:
		return nil, failed
	case err != nil || own.VocabSize() > tok.VocabSize():
		return own, nil
	}
	return tok, err
}

// NamedAdapter is one of several adapters on a base model.
type NamedAdapter struct{ Name, Path string }

// ResolveAdapters is Resolve for any number of adapters on one base model, and for names on the hub. An adapter
// is a path, or name=path; a path alone is named by its folder. With two and more, the base is model, or what all
// of them name.
func ResolveAdapters(ctx context.Context, base string, adapters []string, ui train.UI) (src Source, err error) {
	if base, err = hub.Find(ctx, base, ui); err != nil {
		return src, err
	}
	named := make([]NamedAdapter, len(adapters))
	for i, text := range adapters {
		if named[i], err = resolveAdapter(ctx, text, ui); err != nil {
			return src, err
		}
	}
	switch len(named) {
	case 0:
		src, err = Resolve(base, "")
	case 1:
		src, err = Resolve(base, named[0].Path)
		if name := named[0].Name; src.Adapter != "" && strings.HasPrefix(adapters[0], name+"=") {
			src.Name = name
		}
	default:
		src, err = resolveSeveral(base, named)
	}
	if err != nil {
		return src, err
	}
	if src.Model, err = hub.Find(ctx, src.Model, ui); err != nil { // of an adapter, or a run
		return src, fmt.Errorf("the base model: %w; say where it is with --model", err)
	}
	return src, nil
}

func resolveSeveral(base string, adapters []NamedAdapter) (all Source, err error) {
	for _, a := range adapters {
		src, err := Resolve(base, a.Path)
		if err != nil {
			return all, err
		}
		if src.Adapter == "" {
			return all, train.Usage("--adapter %s is no adapter; several can be loaded on one base model only if each is one", a.Path)
		}
		if all.Model != "" && src.Model != all.Model {
			return all, train.Usage("--adapter %s is for the base model %s, %s for %s: say with --model which to use", all.Adapters[0].Path, all.Model, a.Path, src.Model)
		}
		if slices.ContainsFunc(all.Adapters, func(b NamedAdapter) bool { return b.Name == a.Name }) {
			return all, train.Usage("two adapters are called %s: give them names, as in --adapter NAME=%s", a.Name, a.Path)
		}
		all.Model, all.MaxLength = src.Model, shorter(all.MaxLength, src.MaxLength)
		all.Adapters = append(all.Adapters, NamedAdapter{a.Name, src.Adapter})
	}
	return all, nil
}

// shorter is the smaller of two lengths, 0 being none.
func shorter(a, b int) int {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// nameAdapter splits name=path; a path that exists as it is wins.
func nameAdapter(text string) NamedAdapter {
	if name, path, ok := strings.Cut(text, "="); ok && name != "" && !fsutil.Exists(text) {
		return NamedAdapter{name, path}
	}
	clean := filepath.Clean(text)
	name := filepath.Base(clean)
	if name == "best" || name == "last" { // of a run: the run's name says more
		if abs, err := filepath.Abs(clean); err == nil {
			name = filepath.Base(filepath.Dir(abs))
		}
	}
	return NamedAdapter{name, text}
}

// resolveAdapter finds an adapter, on the hub too, its name kept.
func resolveAdapter(ctx context.Context, text string, ui train.UI) (NamedAdapter, error) {
	a := nameAdapter(text)
	path, err := hub.Find(ctx, a.Path, ui)
	if err != nil {
		return a, fmt.Errorf("--adapter: %w", err)
	}
	a.Path = path
	return a, nil
}
