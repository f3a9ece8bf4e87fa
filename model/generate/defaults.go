package generate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// Defaults reads what the model at path (a folder or a GGUF file) says about generating from it: the tokens
// that end a text, from generation_config.json, else config.json, else the GGUF metadata, and, where
// generation_config.json asks for sampling, how to.
func Defaults(path string) (Options, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Options{}, err
	}
	if !info.IsDir() {
		return ggufDefaults(path)
	}
	o, err := readDefaults(filepath.Join(path, "generation_config.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return o, err
	}
	if len(o.EOS) > 0 {
		return o, nil
	}
	config, err := readDefaults(filepath.Join(path, "config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		if found, _ := filepath.Glob(filepath.Join(path, "*.gguf")); len(found) == 1 {
			return ggufDefaults(found[0])
		}
	}
	o.EOS = config.EOS
	return o, err
}

// ids is a token id or a list of them.
type ids []int64

func (l *ids) UnmarshalJSON(raw []byte) error {
	var one *int64
	if err := json.Unmarshal(raw, &one); err == nil {
		if one != nil {
			*l = ids{*one}
		}
		return nil
	}
	var many []int64
	if err := json.Unmarshal(raw, &many); err != nil {
		return errors.New("want a token id or a list of them")
	}
	*l = many
	return nil
}

func readDefaults(path string) (Options, error) {
	raw, err := hf.ReadJSON(path)
	if err != nil {
		return Options{}, err
	}
	var c struct {
		EOS         ids      `json:"eos_token_id"`
		Sample      bool     `json:"do_sample"`
		Temperature *float64 `json:"temperature"`
		TopK        *int     `json:"top_k"`
		TopP        *float64 `json:"top_p"`
		MinP        *float64 `json:"min_p"`
		Penalty     *float64 `json:"repetition_penalty"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return Options{}, fmt.Errorf("%s: %w", path, err)
	}
	o := Options{EOS: c.EOS}
	if c.Penalty != nil {
		o.RepetitionPenalty = *c.Penalty
	}
	if c.Sample {
		o.Temperature, o.TopK = 1, 50 // transformers' defaults
		for _, f := range []struct {
			to   *float64
			from *float64
		}{{&o.Temperature, c.Temperature}, {&o.TopP, c.TopP}, {&o.MinP, c.MinP}} {
			if f.from != nil {
				*f.to = *f.from
			}
		}
		if c.TopK != nil {
			o.TopK = *c.TopK
		}
	}
	if err := o.Check(); err != nil {
		return Options{}, fmt.Errorf("%s: %w", path, err)
	}
	return o, nil
}

func ggufDefaults(path string) (Options, error) {
	g, err := files.OpenGGUF(path)
	if err != nil {
		return Options{}, err
	}
	var o Options
	for _, key := range []string{"eos", "eot", "eom"} {
		id, err := g.Int("tokenizer.ggml." + key + "_token_id")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return o, errors.Join(err, g.Close())
		}
		o.EOS = append(o.EOS, id)
	}
	return o, g.Close()
}
