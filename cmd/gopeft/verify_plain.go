package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf/files"
	"gopeft/model/tokenizer"
	"gopeft/peft"
	"gopeft/train"
	"gopeft/train/infer"
	"gopeft/train/run/provenance"
)

// verifyPlain says what can be seen of a model, an adapter or a file of weights of which nothing was recorded: that its
// files hold together, and that an adapter's base is the one it was trained over.
func verifyPlain(c *cli.Context, path string, r *provenance.Report) error {
	note := func(format string, args ...any) { r.Notes = append(r.Notes, fmt.Sprintf(format, args...)) }
	note("%s has no %s: nothing was recorded of it", path, provenance.FileName)
	if exists(filepath.Join(path, "adapter_config.json")) || exists(filepath.Join(path, "config.yaml")) {
		src, err := infer.ResolveAdapters(c.Context, c.String("model"), []string{path}, newUI(c))
		if c.String("model") == "" {
			src, err = infer.ResolveAdapters(c.Context, path, nil, newUI(c))
		}
		if err != nil {
			return err
		}
		if src.Adapter != "" {
			return bindings.Do(c.Context, func(s *bindings.Scope) error { return verifyAdapter(s, src, r, note) })
		}
		path = src.Model // of a run
	}
	return bindings.Do(c.Context, func(s *bindings.Scope) error { return verifyModel(s, path, note) })
}

// verifyAdapter loads an adapter onto its base.
func verifyAdapter(s *bindings.Scope, src infer.Source, r *provenance.Report, note func(string, ...any)) (err error) {
	info, err := peft.Probe(src.Adapter)
	if err != nil {
		return err
	}
	facts, err := model.ReadFacts(src.Model)
	if err != nil {
		return err
	}
	dtype, err := model.FileDType(src.Model) // weights stay in their file
	if err != nil {
		return err
	}
	m, err := model.Load(s, src.Model, model.Options{As: info.Family, Classify: info.NumLabels > 0, Labels: info.HeadLabels(facts.Labels), Base: dtype})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	same, known, err := peft.Builtin().SameBase(s, src.Adapter, m)
	if err != nil {
		return err
	}
	if known && !same {
		r.Findings = append(r.Findings, provenance.Finding{Kind: provenance.Changed, Name: "base model", Path: src.Model, Why: "it is not the one that the adapter was trained over"})
		return nil
	}
	method, err := peft.Load(s, src.Adapter, m)
	if err != nil {
		return err
	}
	defer method.Close()
	params := method.Params().All()
	if p := model.FirstNonFinite(s, params); p != nil {
		return fmt.Errorf("%s: tensor %s holds values that are not finite", src.Adapter, p.Name)
	}
	note("%s: a %s adapter of %d tensors, all there and finite, for %s", src.Adapter, info.Method, len(params), src.Model)
	if known {
		note("its base agrees with what the adapter has noted: a sample of the weights")
	} else {
		note("the adapter has noted nothing of its base's weights")
	}
	for _, text := range method.Notes() {
		note("%s", text)
	}
	return nil
}

// verifyModel reads the headers of a model's files, or of one file of weights, and its tokenizer.
func verifyModel(s *bindings.Scope, path string, note func(string, ...any)) error {
	a, err := files.OpenModel(path)
	if err != nil {
		return err
	}
	bytes, entries := 0, a.Entries()
	for _, e := range entries {
		bytes += len(e.Data)
	}
	if err := a.Close(); err != nil {
		return err
	}
	note("%s: %d tensors in %d bytes, which agree with the headers of their files", path, len(entries), bytes)
	if filepath.Ext(path) != ".gguf" && !exists(filepath.Join(path, "config.json")) {
		note("a file of weights alone")
		return nil
	}
	d, err := model.Describe(s, path, model.Options{})
	if err != nil {
		return err
	}
	note("a %s model: all of its %d tensors are there in their shapes", d.Info.Family, len(d.Params))
	none := (*tokenizer.NoneError)(nil)
	switch _, err := train.OpenTokenizer(path); {
	case errors.As(err, &none):
		note("it has no tokenizer")
	case err != nil:
		return err
	default:
		note("its tokenizer can be read")
	}
	return nil
}
