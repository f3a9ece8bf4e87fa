package peft

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf/files"
)

// promptLearning reports the methods whose heads peft saves under another prefix.
func promptLearning(method string) bool { return method == "prompt" || method == "prefix" }

// hfKeys are the names a parameter of the model may have in a peft file.
func hfKeys(method, name string) []string {
	if promptLearning(method) {
		return []string{"base_model." + name, "base_model.model." + name}
	}
	keys := []string{"base_model.model." + name, "base_model." + name}
	// An adapter trained on the encoder or decoder alone.
	if top, rest, ok := strings.Cut(name, "."); ok && slices.ContainsFunc(model.Architectures(), func(i model.Info) bool { return i.Top() == top }) {
		keys = append(keys, "base_model.model."+rest)
	}
	return keys
}

func (f *adapterFiles) hfValues(s *bindings.Scope, m model.Model, a *method, added []NewParam, c hfConfig, archive files.Archive) (storedValues, error) {
	var names []string
	var wants []want
	var read []NewParam // of added, what the file has
	g := newStoredValues()
	path := archiveName(f.Path, archive)
	projected := f.Method == "prefix" && !hasSpec(added, promptName)
	var fold func(s *bindings.Scope, ts []bindings.Tensor, own map[string]bindings.Tensor)
	if c.folds() {
		wants, fold = c.foldedWants(m, a)
		names, added = make([]string, len(wants)), nil
	}
	parts := wholeWants(m, added)
	for _, n := range added {
		keys := []string{n.Name}
		if !promptLearning(f.Method) {
			keys = hfKeys(f.Method, n.Name)
			if strings.HasSuffix(n.Name, loraM) {
				keys = append(keys, keys[0]+".weight")
			}
		}
		if projected || n.Frozen {
			continue
		}
		shape, _, _ := c.split(n)
		part, isPart := parts[n.Name]
		if whole := hfKeys(f.Method, part.Of); isPart && (f.sidecar == nil || hasAny(archive, whole)) {
			keys, shape = whole, []int64{int64(part.Out), 1}
		} else {
			delete(parts, n.Name)
		}
		read = append(read, n)
		names = append(names, n.Name)
		wants = append(wants, want{keys, shape, false})
	}
	if projected {
		width := 2 * m.Info().Layers * m.Info().KVHeads * m.Info().HeadDim
		names = append(names, promptName)
		wants = append(wants, want{[]string{promptName}, []int64{int64(f.Options.VirtualTokens), int64(width)}, false})
	}
	own := len(names)
	// A causal or feature-extraction adapter has no head; peft leaves it out of adaption prompts too.
	headless := f.NumLabels == 0 && (c.Task == nil || *c.Task != taskClassify || f.Method == "llama-adapter")
	if len(m.Labels()) > 0 && !headless {
		n, w := f.headWants(m, false, func(name string) []string { return hfKeys(f.Method, name) })
		names, wants = append(names, n...), append(wants, w...)
	}
	for _, p := range m.Params().All() {
		if !isHead(m, p.Name) && a.trains(m, p) {
			names = append(names, p.Name)
			wants = append(wants, c.trained(a, m, p))
		}
	}
	var copies map[string]table
	if l, ok := a.ownTuner().(*lora); ok {
		copies = baseCopies(l.tables)
	}
	ts, err := pick(s, path, archive, wants, func(key string) bool {
		_, copied := copies[key]
		return copied || c.headCopy(key)
	})
	if err == nil {
		err = checkCopies(s, m, archive, copies)
	}
	if err != nil {
		return g, err
	}
	if len(m.Labels()) == 0 && !headless {
		return g, fmt.Errorf("%s: task_type is %s, but no classification head (classifier.weight or score.weight) is in the file", path, taskClassify)
	}
	if fold != nil {
		fold(s, ts[:own], g.own)
	}
	absent := 0
	for i, name := range names {
		if i < own {
			part, isPart := parts[name]
			switch {
			case fold != nil:
			case projected:
				g.own[name] = ts[i]
			case isPart:
				g.own[name] = s.Clone(s.Narrow(ts[i], 0, int64(part.First), read[i].Shape[0]))
			default:
				c.take(s, read[i], ts[i], g.own)
			}
			continue
		}
		g.model[name] = ts[i]
		if !ts[i].Defined() {
			absent++
		}
	}
	if absent > 0 { // lora_only in peft 0.11, which looks for them under a wrong name
		f.notes = append(f.notes, fmt.Sprintf("%s: bias is %q, but %d biases are not in the file: the base model's are used", f.Path, c.Bias, absent))
	}
	if projected {
		return g, f.readProjection(s, added, g)
	}
	return g, nil
}

// alsoSaved are the names in modules_to_save but for heads, which peft lists whether or not the model has them.
func (c *hfConfig) alsoSaved(m model.Model) []string {
	var out []string
	for _, name := range c.ModulesToSave {
		if name != "score" && name != "classifier" && !slices.Contains(m.HeadNames(), name) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// trained asks for a parameter of the model that was trained beside the adapter. Biases that were trained for
// the sake of bias may be those of a map inside LoRA's, or absent.
func (c *hfConfig) trained(a *method, m model.Model, p *model.Param) want {
	method := a.Name()
	w := want{hfKeys(method, a.hfName(m, p)), p.T.Shape(), false}
	if module, ok := strings.CutSuffix(p.Name, ".bias"); ok && (c.Bias == biasAll || c.Bias == biasLoRA) {
		w.keys = append(w.keys, hfKeys(method, module+".base_layer.bias")...)
		w.optional = true
	}
	return w
}

// headCopy reports keys of a head's biases that peft saves beside the head itself: the base's and its own once more.
func (c *hfConfig) headCopy(key string) bool {
	copied := strings.Contains(key, ".original_module.") || strings.Contains(key, ".modules_to_save.")
	return c.Bias == biasAll && copied && strings.HasSuffix(key, ".bias")
}

// hfName is the name of a parameter of the model, without its prefix, where the method trains it.
func (a *method) hfName(m model.Model, p *model.Param) string {
	if l, ok := a.ownTuner().(*lnTuning); ok && l.Trains(m, p) {
		return moduleOf(p) + ".ln_tuning_layers." + lastPart(p.Name)
	}
	return p.Name
}

func hasSpec(added []NewParam, name string) bool { return specOf(added, name).Name != "" }

// specOf finds a parameter by its name; one that is not there has none.
func specOf(added []NewParam, name string) NewParam {
	for _, n := range added {
		if n.Name == name {
			return n
		}
	}
	return NewParam{}
}

// hasAny reports whether an archive holds one of the keys.
func hasAny(a files.Archive, keys []string) bool {
	return slices.ContainsFunc(keys, func(key string) bool { _, ok := a.Lookup(key); return ok })
}

func archiveName(dir string, a files.Archive) string {
	if es := a.Entries(); len(es) > 0 {
		return es[0].File
	}
	return dir
}

// projectedPrefix is the tuner of a prefix with its projection, whose embedding may have come from another library.
func (f *adapterFiles) projectedPrefix(path string, o Options) (Tuner, error) {
	a, err := files.OpenSafetensors(path)
	if err != nil {
		return nil, err
	}
	p := &prefix{}
	if e, ok := a.Lookup(projEmbedding); ok && len(e.Shape) == 2 {
		p.input = int(min(e.Shape[1], 1<<20))
	}
	p.o, err = f.complete(o)
	return p, errors.Join(err, a.Close())
}

// readProjection reads the network that a prefix was trained through.
func (f *adapterFiles) readProjection(s *bindings.Scope, added []NewParam, g storedValues) error {
	path := filepath.Join(f.Path, hfProjection)
	a, err := files.OpenSafetensors(path)
	if err != nil {
		return err
	}
	f.close = append(f.close, a)
	delete(g.own, promptName)
	return splitProjection(s, path, a, added, g, "transform.2", func(name string) []string { return []string{name} })
}
