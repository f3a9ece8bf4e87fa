package generate

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDefaultsReadWhatTheFilesSay(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       Options
	}{
		{"greedy", `{"eos_token_id": 2, "temperature": 0.6, "top_p": 0.9}`, Options{EOS: []int64{2}}},
		{"sampling", `{"eos_token_id": [2, 7], "do_sample": true, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1}`,
			Options{EOS: []int64{2, 7}, Temperature: 0.6, TopP: 0.9, TopK: 50, RepetitionPenalty: 1.1}},
		{"left out", `{"eos_token_id": 2, "do_sample": true}`, Options{EOS: []int64{2}, Temperature: 1, TopK: 50}},
		{"null", `{"eos_token_id": 2, "do_sample": true, "temperature": null, "top_k": null, "top_p": null, "min_p": null, "repetition_penalty": null}`,
			Options{EOS: []int64{2}, Temperature: 1}},
		{"null for no", `{"eos_token_id": 2, "do_sample": null, "top_k": null}`, Options{EOS: []int64{2}}},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "generation_config.json"), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Defaults(dir)
		if err != nil || !slices.Equal(got.EOS, c.want.EOS) || got.Temperature != c.want.Temperature || got.TopK != c.want.TopK ||
			got.TopP != c.want.TopP || got.MinP != c.want.MinP || got.RepetitionPenalty != c.want.RepetitionPenalty {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, err, c.want)
		}
	}
}

func TestBadWaysToDrawLeaveTheEndTokens(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("config.json", `{"eos_token_id": 5, "temperature": "of the room"}`)
	for text, want := range map[string]struct {
		says     string
		sampling bool
		eos      int64
	}{
		`{"eos_token_id": 2, "do_sample": true, "top_k": -1}`: {"top-k is -1", true, 2},
		`{"do_sample": true, "top_p": 3}`:                     {"top-p is 3", true, 5},
		`{"eos_token_id": 2, "temperature": "hot"}`:           {"temperature", true, 2},
		`{"eos_token_id": "two"}`:                             {"token id", false, -1},
		`{"eos_token_id": 2`:                                  {"generation_config.json", false, -1},
	} {
		write("generation_config.json", text)
		o, err := Defaults(dir)
		if err == nil || !strings.Contains(err.Error(), want.says) || !strings.Contains(err.Error(), "generation_config.json") || errors.Is(err, ErrSampling) != want.sampling {
			t.Errorf("%s: %v, want %q", text, err, want.says)
		}
		if want.sampling && !slices.Equal(o.EOS, []int64{want.eos}) {
			t.Errorf("%s: end tokens %v, want %d", text, o.EOS, want.eos)
		}
	}
}

// FuzzDefaults checks that any generation_config.json is refused or gives options that can be used.
func FuzzDefaults(f *testing.F) {
	for _, text := range []string{
		`{"eos_token_id": [2, 7], "do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": null}`,
		`{"eos_token_id": null, "repetition_penalty": 1.1}`, `{"eos_token_id": 1e3}`, `{"top_k": [], "do_sample": true}`, `[]`, `null`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := parseDefaults(raw, true)
		if err == nil && o.Check() != nil {
			t.Errorf("accepted %+v", o)
		}
		ends, endErr := parseDefaults(raw, false)
		if (err == nil || errors.Is(err, ErrSampling)) != (endErr == nil) || !slices.Equal(o.EOS, ends.EOS) {
			t.Errorf("end tokens %v (%v), with ways to draw %v (%v)", ends.EOS, endErr, o.EOS, err)
		}
	})
}
