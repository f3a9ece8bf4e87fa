package tokenizer

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/model/modeltest/realdata"
)

// recording is what scripts/goldens/tokenizer.py saw HuggingFace's library do.
type recording struct {
	Cases []struct {
		Text             string
		IDs              []int64
		Offsets          []int
		Decoded, Skipped string
	}
	Pairs []struct {
		A, B    string
		Max     int
		Special bool
		Single  recordedEncoding
		Pair    recordedEncoding
	}
}

type recordedEncoding struct {
	IDs, Types    []int64
	Offsets, Mask []int
}

func readGzip(t testing.TB, path string, into any) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(z).Decode(into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// tinyFolder writes a tokenizer trained for the tests into a folder of its own.
func tinyFolder(t testing.TB, name string) string {
	t.Helper()
	var all map[string]string
	readGzip(t, filepath.Join("testdata", "tiny.json.gz"), &all)
	if all[name] == "" {
		t.Fatalf("no tiny tokenizer %q", name)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte(all[name]), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustLoad(t testing.TB, dir string) *Tokenizer {
	t.Helper()
	tok, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// compare reports what differs from a recording, the first few cases in full.
func compare(t *testing.T, tok *Tokenizer, want recording) {
	t.Helper()
	bad := 0
	report := func(format string, args ...any) {
		t.Helper()
		if bad++; bad <= 10 {
			t.Errorf(format, args...)
		}
	}
	for _, c := range want.Cases {
		if tok.tidy { // transformers does that, not the library that was recorded
			c.Decoded, c.Skipped = tidied(c.Decoded), tidied(c.Skipped)
		}
		e, err := tok.Encode(c.Text, Options{AddSpecial: true})
		if err != nil {
			report("Encode(%+q): %v", c.Text, err)
			continue
		}
		if d := cmp.Diff(c.IDs, e.IDs); d != "" {
			report("Encode(%+q): ids -want +got\n%s", c.Text, d)
			continue
		}
		if d := cmp.Diff(c.Offsets, flat(e.Offsets)); d != "" {
			report("Encode(%+q): offsets -want +got\n%s", c.Text, d)
			continue
		}
		ids, err := tok.EncodeIDs(nil, c.Text, Options{AddSpecial: true})
		if d := cmp.Diff(c.IDs, append([]int64{}, ids...)); d != "" || err != nil {
			report("EncodeIDs(%+q): %v -want +got\n%s", c.Text, err, d)
		}
		if got := tok.Decode(c.IDs, false); got != c.Decoded {
			report("Decode(%v, false) of %+q:\n got %+q\nwant %+q", c.IDs, c.Text, got, c.Decoded)
		}
		if got := tok.Decode(c.IDs, true); got != c.Skipped {
			report("Decode(%v, true) of %+q:\n got %+q\nwant %+q", c.IDs, c.Text, got, c.Skipped)
		}
	}
	for _, p := range want.Pairs {
		o := Options{AddSpecial: p.Special, MaxLength: p.Max}
		single, err := tok.Encode(p.A, o)
		if err != nil {
			report("Encode(%+q, %+v): %v", p.A, o, err)
			continue
		}
		pair, err := tok.EncodePair(p.A, p.B, o)
		if err != nil {
			report("EncodePair(%+q, %+q, %+v): %v", p.A, p.B, o, err)
			continue
		}
		for _, x := range []struct {
			what string
			want recordedEncoding
			got  Encoding
		}{{"Encode", p.Single, single}, {"EncodePair", p.Pair, pair}} {
			got := recordedEncoding{IDs: x.got.IDs, Types: x.got.TypeIDs, Offsets: flat(x.got.Offsets), Mask: []int{}}
			for _, special := range x.got.SpecialMask {
				bit := 0
				if special {
					bit = 1
				}
				got.Mask = append(got.Mask, bit)
			}
			if d := cmp.Diff(x.want, got); d != "" {
				report("%s(%+q, %+q, %+v): -want +got\n%s", x.what, p.A, p.B, o, d)
			}
		}
	}
	if bad > 10 {
		t.Errorf("and %d more differences", bad-10)
	}
	t.Logf("%d texts, %d pairs, %d differences", len(want.Cases), len(want.Pairs), bad)
}

func flat(offsets [][2]int) []int {
	out := make([]int, 0, 2*len(offsets))
	for _, o := range offsets {
		out = append(out, o[0], o[1])
	}
	return out
}

func TestTinyTokenizersEqualHuggingFace(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("testdata", "tiny-*.golden.json.gz"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "tiny-"), ".golden.json.gz")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var want recording
			readGzip(t, path, &want)
			compare(t, mustLoad(t, tinyFolder(t, name)), want)
		})
	}
}

func TestRealTokenizersEqualHuggingFace(t *testing.T) {
	for _, folder := range []string{
		"tokenizers/bert-base-uncased-30522", "tokenizers/llama-2-32k", "tokenizers/llama-3-128k", "tokenizers/mistral-v1-32k",
		"models/distilbert-minilm-l3-v8k-fp16", "models/llama-stories260k",
	} {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			t.Parallel()
			dir := realdata.Shared(t, folder)
			var want recording
			readGzip(t, filepath.Join("testdata", filepath.Base(folder)+".golden.json.gz"), &want)
			compare(t, mustLoad(t, dir), want)
		})
	}
}

// The vocabulary of bert-base-uncased, from the model that the demo fetches.
func TestDemoTokenizerEqualsHuggingFace(t *testing.T) {
	var want recording
	readGzip(t, filepath.Join("testdata", "minilm.golden.json.gz"), &want)
	compare(t, mustLoad(t, realdata.Demo(t, "minilm")), want)
}

// TestRecording compares with a recording made by hand, too large to be committed:
// GOPEFT_TOKENIZER_RECORDING is the file, GOPEFT_TOKENIZER_DIR the folder of its tokenizer or a
// file of GGUF metadata as JSON.
func TestRecording(t *testing.T) {
	path := os.Getenv("GOPEFT_TOKENIZER_RECORDING")
	if path == "" {
		t.Skip("SKIPPED: run by hand, with what scripts/goldens/tokenizer.py recorded in GOPEFT_TOKENIZER_RECORDING")
	}
	var want recording
	readGzip(t, path, &want)
	source := os.Getenv("GOPEFT_TOKENIZER_DIR")
	if !strings.HasSuffix(source, ".json") {
		compare(t, mustLoad(t, source), want)
		return
	}
	data, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	meta := struct {
		Model  string    `json:"tokenizer.ggml.model"`
		Pre    string    `json:"tokenizer.ggml.pre"`
		Tokens []string  `json:"tokenizer.ggml.tokens"`
		Types  []int32   `json:"tokenizer.ggml.token_type"`
		Scores []float32 `json:"tokenizer.ggml.scores"`
		Merges []string  `json:"tokenizer.ggml.merges"`
		BOS    int64     `json:"tokenizer.ggml.bos_token_id"`
		EOS    int64     `json:"tokenizer.ggml.eos_token_id"`
		AddBOS *bool     `json:"tokenizer.ggml.add_bos_token"`
		AddEOS *bool     `json:"tokenizer.ggml.add_eos_token"`
	}{BOS: -1, EOS: -1}
	if err := json.Unmarshal(data, &meta); err != nil {
		t.Fatal(err)
	}
	tok, err := FromGGUF(GGUF{
		Model: meta.Model, Pre: meta.Pre, Tokens: meta.Tokens, Types: meta.Types, Scores: meta.Scores, Merges: meta.Merges,
		BOS: meta.BOS, EOS: meta.EOS, UNK: -1, PAD: -1, SEP: -1, CLS: -1, AddBOS: meta.AddBOS, AddEOS: meta.AddEOS,
	})
	if err != nil {
		t.Fatal(err)
	}
	compare(t, tok, want)
}
