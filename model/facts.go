package model

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// Facts is what a model says about itself before its weights are read.
type Facts struct {
	Room   int      // positions it has, as Info's MaxPositions
	Vocab  int      // token ids it knows
	Labels []string // of its classification head: its own names, or LABEL_0, …
	Pad    int64    // the padding token; 0 if it names none
	Writes bool     // its files are a language model's, with a head that predicts tokens
}

// ReadFacts reads the config.json of a model's folder, or a GGUF file's metadata.
func ReadFacts(path string) (Facts, error) {
	raw, err := readConfig(path)
	if err != nil {
		return Facts{}, err
	}
	where := func(err error) error { return fmt.Errorf("%s: config: %w", path, err) }
	var c struct {
		Pad     *int64   `json:"pad_token_id"`
		Classes []string `json:"architectures"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return Facts{}, where(err)
	}
	loader, err := familyOfType(hf.ModelType(raw))
	if err != nil { // a tokenizer may lie beside a config.json that no family loads: its sizes are read as the first family's
		loader = families()[0]
	}
	positions, vocab, err := loader.size(raw)
	if err != nil {
		return Facts{}, where(err)
	}
	f := Facts{Room: positions, Vocab: vocab}
	f.Writes = strings.HasSuffix(path, ".gguf") || slices.ContainsFunc(c.Classes, func(name string) bool {
		return strings.HasSuffix(name, "ForCausalLM") || strings.HasSuffix(name, "LMHeadModel")
	})
	if c.Pad != nil && *c.Pad > 0 {
		f.Pad = *c.Pad
	}
	if f.Labels, err = configLabels(raw); err != nil {
		return Facts{}, where(err)
	}
	return f, nil
}

func readConfig(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil || info.IsDir() {
		return hf.ReadConfig(path)
	}
	g, err := files.OpenGGUF(path)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	_, raw, err := readGGUF(g)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return raw, nil
}
