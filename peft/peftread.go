package peft

import (
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
	headless := f.NumLabels == 0 && (c.Task == nil || *c.Task != taskClassify || f.Method == "llama-adapter")
	if len(m.Labels()) > 0 && !headless {
		n, w := f.headWants(m, false, func(name string) []string { return peftKeys(f.Method, name) })
		names, wants = append(names, n...), append(wants, w...)
	}
	for _, p := range m.Params().All() {
		if !isHead(m, p.Name) && a.trains(m, p.Name) {
			names = append(names, p.Name)
			wants = append(wants, c.trained(f.Method, p))
		}
	}
	ts, err := pick(s, path, archive, wants, c.headCopy)
	if err != nil {
		return g, err
	}
	if len(m.Labels()) == 0 && !headless {
		return g, fmt.Errorf("%s: task_type is %s, but no classification head (classifier.weight or score.weight) is in the file", path, taskClassify)
	}
	absent := 0
	for i, name := range names {
		if i < own {
			g.own[name] = ts[i]
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

// trained asks for a parameter of the model that was trained beside the adapter. Biases that were trained for
// the sake of bias may be those of a map inside LoRA's, or absent.
func (c *peftConfig) trained(method string, p *model.Param) want {
	w := want{peftKeys(method, p.Name), p.T.Shape(), false}
	if module, ok := strings.CutSuffix(p.Name, ".bias"); ok && (c.Bias == biasAll || c.Bias == biasLoRA) {
		w.keys = append(w.keys, peftKeys(method, module+".base_layer.bias")...)
		w.optional = true
	}
	return w
}

// headCopy reports keys of a head's biases that peft saves beside the head itself: the base's and its own once more.
func (c *peftConfig) headCopy(key string) bool {
	return c.Bias == biasAll && (strings.HasSuffix(key, ".original_module.bias") || strings.HasSuffix(key, ".modules_to_save.bias"))
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
