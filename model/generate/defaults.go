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

// ErrSampling marks an error in what a generation_config.json says about drawing tokens. Who only scores a model, or
// looks for its end tokens, can go on in spite of it.
var ErrSampling = errors.New("settings for drawing tokens")

// Defaults reads what the model at path (a folder or a GGUF file) says about generating from it: the tokens
// that end a text, from generation_config.json, else config.json, else the GGUF metadata, and, where
// generation_config.json asks for sampling, how to. With an error that is ErrSampling the end tokens are good.
func Defaults(path string) (Options, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Options{}, err
	}
	if !info.IsDir() {
		return ggufDefaults(path)
	}
	o, failed := readDefaults(filepath.Join(path, "generation_config.json"), true)
	if failed != nil && !errors.Is(failed, fs.ErrNotExist) && !errors.Is(failed, ErrSampling) {
		return o, failed
	}
	if errors.Is(failed, fs.ErrNotExist) {
		failed = nil
	}
	if len(o.EOS) > 0 {
		return o, failed
	}
	config, err := readDefaults(filepath.Join(path, "config.json"), false)
	if errors.Is(err, fs.ErrNotExist) {
		if found, _ := filepath.Glob(filepath.Join(path, "*.gguf")); len(found) == 1 {
			return ggufDefaults(found[0])
		}
	}
	o.EOS = config.EOS
	if err == nil {
		err = failed
	}
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

// readDefaults reads a file's end tokens and, with sampling, how to draw.
func readDefaults(path string, sampling bool) (Options, error) {
	raw, err := hf.ReadJSON(path)
	if err != nil {
		return Options{}, err
	}
	o, err := parseDefaults(raw, sampling)
	if err != nil {
		return o, fmt.Errorf("%s: %w", path, err)
	}
	return o, nil
}

func parseDefaults(raw []byte, sampling bool) (Options, error) {
	var c struct {
		EOS ids `json:"eos_token_id"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return Options{}, err
	}
	o := Options{EOS: c.EOS}
	if !sampling {
		return o, nil
	}
	drawn, err := parseSampling(raw)
	if err != nil {
		return o, fmt.Errorf("%w: %w", ErrSampling, err)
	}
	drawn.EOS = o.EOS
	return drawn, nil
}

// parseSampling reads how to draw. As in transformers, a setting that is left out has a default, and one that is
// null is off.
func parseSampling(raw []byte) (Options, error) {
	c := struct {
		Sample      bool              `json:"do_sample"`
		Temperature optional[float64] `json:"temperature"`
		TopK        optional[int]     `json:"top_k"`
		TopP        optional[float64] `json:"top_p"`
		MinP        optional[float64] `json:"min_p"`
		Penalty     optional[float64] `json:"repetition_penalty"`
	}{Temperature: optional[float64]{value: 1}, TopK: optional[int]{value: 50}}
	if err := json.Unmarshal(raw, &c); err != nil {
		return Options{}, err
	}
	o := Options{RepetitionPenalty: c.Penalty.value}
	if c.Sample {
		o.Temperature, o.TopK, o.TopP, o.MinP = c.Temperature.value, c.TopK.value, c.TopP.value, c.MinP.value
		if c.Temperature.null {
			o.Temperature = 1
		}
	}
	return o, o.Check()
}

// optional is a value that may be null, which then stands for 0.
type optional[T any] struct {
	value T
	null  bool
}

func (v *optional[T]) UnmarshalJSON(raw []byte) error {
	*v = optional[T]{null: string(raw) == "null"}
	return json.Unmarshal(raw, &v.value)
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
