package run_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/infer"
	"gopeft/train/run"
)

// letters are the tokens of textModel's tokenizer: its place in the string, after three special ones, is a letter's id.
const letters = "abcdefghijklmnopqrstuvwxyz0123456789 .:#>-\n"

// editJSON changes a JSON file.
func editJSON(t *testing.T, path string, edit func(map[string]any)) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	v := map[string]any{}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	edit(v)
	writeJSON(t, path, v)
}

func writeJSON(t *testing.T, path string, v any) {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// textModel is a copy of a tiny LLaMA with a tokenizer of single letters that puts <s> first and, unless eos is "",
// names it the end token. It has a chat template.
func textModel(t *testing.T, eos string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"config.json", "generation_config.json", "model.safetensors"} {
		raw, err := os.ReadFile(filepath.Join(modeltest.Testdata(t, "llama/gqa"), name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	type m = map[string]any
	vocab := m{"<unk>": 0, "<s>": 1, "</s>": 2}
	for i, r := range letters {
		vocab[string(r)] = 3 + i
	}
	var added []m
	for i, content := range []string{"<unk>", "<s>", "</s>"} {
		added = append(added, m{"id": i, "content": content, "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
	}
	writeJSON(t, filepath.Join(dir, "tokenizer.json"), m{
		"version": "1.0", "added_tokens": added,
		"post_processor": m{"type": "TemplateProcessing",
			"single":         []m{{"SpecialToken": m{"id": "<s>", "type_id": 0}}, {"Sequence": m{"id": "A", "type_id": 0}}},
			"pair":           []m{{"Sequence": m{"id": "A", "type_id": 0}}, {"Sequence": m{"id": "B", "type_id": 0}}},
			"special_tokens": m{"<s>": m{"id": "<s>", "ids": []int{1}, "tokens": []string{"<s>"}}}},
		"model": m{"type": "BPE", "vocab": vocab, "merges": []string{}, "unk_token": "<unk>"},
	})
	// A class of LLaMA's own would have an end token though none is named.
	config := m{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "unk_token": "<unk>",
		"chat_template": "{% for m in messages %}{{ m.role[:1] }}:{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}"}
	if eos != "" {
		config["eos_token"] = eos
	}
	writeJSON(t, filepath.Join(dir, "tokenizer_config.json"), config)
	return dir
}

// spell is a sequence with its tokens as letters, those that are learned in upper case ("E" an end token).
func spell(seq data.Sequence) string {
	var b strings.Builder
	for i, id := range seq.IDs {
		text := map[int64]string{0: "?", 1: "<", 2: "e"}[id]
		if id > 2 {
			text = letters[id-3 : id-2]
		}
		if t := seq.Targets[i]; t != data.IgnoreTarget {
			if text = strings.ToUpper(text); t != id {
				text = "!"
			}
		}
		b.WriteString(text)
	}
	return b.String()
}

func TestCausalEncoderTargets(t *testing.T) {
	tok, err := train.OpenTokenizer(textModel(t, "</s>"))
	if err != nil {
		t.Fatal(err)
	}
	chat := func(messages []data.Message, n int, open bool) (string, error) {
		var b strings.Builder
		for _, m := range messages[:n] {
			b.WriteString(m.Role[:1] + m.Content)
			if m.Role == "assistant" {
				b.WriteString("</s>")
			}
		}
		if open {
			b.WriteString("a")
		}
		return b.String(), nil
	}
	pair := data.CausalExample{Prompt: "ask ", Answer: "yes"}
	turns := []data.Message{{Role: "system", Content: "x"}, {Role: "user", Content: "one"}, {Role: "assistant", Content: "two"},
		{Role: "user", Content: "three"}, {Role: "assistant", Content: "four"}, {Role: "user", Content: "bye"}}
	for _, c := range []struct {
		name string
		e    train.CausalEncoder
		x    data.CausalExample
		want string
	}{
		{"answer alone", train.CausalEncoder{}, pair, "<ask YESE"},
		{"prompt too", train.CausalEncoder{TrainPrompt: true}, pair, "<ASK YESE"},
		{"plain text", train.CausalEncoder{}, data.CausalExample{Answer: "yes"}, "<YESE"},
		{"cut", train.CausalEncoder{MaxLength: 7}, pair, "<ask YE"},
		{"cut within the prompt", train.CausalEncoder{MaxLength: 4}, pair, "<ask"},
		{"spelled end token", train.CausalEncoder{}, data.CausalExample{Prompt: "ask ", Answer: "yes</s>"}, "<ask YESE"},
		{"empty answer", train.CausalEncoder{}, data.CausalExample{Prompt: "ask"}, "<askE"},
		{"chat", train.CausalEncoder{Chat: chat}, data.CausalExample{Messages: turns}, "sxuoneaTWOEuthreeaFOURE"},
		{"whole chat", train.CausalEncoder{Chat: chat, TrainPrompt: true}, data.CausalExample{Messages: turns}, "sXUONEATWOEUTHREEAFOURE"},
		{"cut chat", train.CausalEncoder{Chat: chat, MaxLength: 10}, data.CausalExample{Messages: turns}, "sxuoneaTWO"},
		{"ids", train.CausalEncoder{}, data.CausalExample{IDs: []int64{3, 4, 5}}, "aBC"},
		{"ids with targets", train.CausalEncoder{}, data.CausalExample{IDs: []int64{3, 4, 5}, Targets: []int64{-100, -100, 5}}, "abC"},
	} {
		c.e.Tokenizer = tok
		seq, err := c.e.Encode(c.x)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := spell(seq); !strings.EqualFold(got, c.want) || got[1:] != c.want[1:] {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if len(seq.Targets) != len(seq.IDs) {
			t.Errorf("%s: %d targets for %d tokens", c.name, len(seq.Targets), len(seq.IDs))
		}
	}
	alpaca, err := train.CausalEncoder{Tokenizer: tok}.Encode(data.CausalExample{Prompt: data.AlpacaPrompt("add", "1 2"), Answer: "3"})
	if err != nil {
		t.Fatal(err)
	}
	if got := spell(alpaca); !strings.HasSuffix(got, ":3E") || alpaca.NumTargets() != 2 {
		t.Errorf("Alpaca's prompt: %q with %d targets", got, alpaca.NumTargets())
	}
	for want, c := range map[string]struct {
		e train.CausalEncoder
		x data.CausalExample
	}{
		"chat template":               {train.CausalEncoder{Tokenizer: tok}, data.CausalExample{Messages: turns}},
		"no message of the assistant": {train.CausalEncoder{Tokenizer: tok, Chat: chat}, data.CausalExample{Messages: turns[:2]}},
		"vocabulary has 20":           {train.CausalEncoder{Tokenizer: tok, Vocab: 20}, data.CausalExample{Answer: "zebra"}},
	} {
		if _, err := c.e.Encode(c.x); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// A text whose tokens are not all wanted has the first of them.
func TestLongestLeavesOutTheRest(t *testing.T) {
	tok, err := train.OpenTokenizer(textModel(t, "</s>"))
	if err != nil {
		t.Fatal(err)
	}
	for name, encode := range map[string]func(train.CausalEncoder, string) ([]int64, error){"text": train.CausalEncoder.TextIDs, "chat": train.CausalEncoder.ChatIDs} {
		for _, text := range []string{"ab", "abc", "abcdefg"} {
			all, err := encode(train.CausalEncoder{Tokenizer: tok}, text)
			few, failed := encode(train.CausalEncoder{Tokenizer: tok, Longest: 3}, text)
			if err := errors.Join(err, failed); err != nil {
				t.Fatal(err)
			}
			if want := all[:min(len(all), len(all)-len(text)+3)]; !slices.Equal(few, want) {
				t.Errorf("%s %q: %v, want %v", name, text, few, want)
			}
		}
	}
}

// What the tokenizer's template puts behind a text goes, an end token that the text ends with stays.
func TestPromptsKeepTheEndTokensTheySpell(t *testing.T) {
	type m = map[string]any
	begins := m{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
	ends := m{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "add_eos_token": true}
	same := m{"tokenizer_class": "LlamaTokenizer", "bos_token": "</s>", "eos_token": "</s>", "add_bos_token": false}
	around := m{"tokenizer_class": "LlamaTokenizer", "bos_token": "</s>", "eos_token": "</s>", "add_eos_token": true}
	for _, c := range []struct {
		config         m
		prompt, want   string
		answer, learnt string
	}{
		{begins, "hi", "<hi", "yes", "<hiYESE"},
		{begins, "hi</s>", "<hie", "yes", "<hieYESE"},
		{begins, "hi", "<hi", "yes</s>", "<hiYESE"},
		{ends, "hi", "<hi", "yes", "<hiYESE"},
		{ends, "hi</s>", "<hie", "yes</s>", "<hieYESE"},
		{same, "</s>", "e", "yes", "eYESE"},
		{same, "hi", "hi", "yes", "hiYESE"},
		{same, "hi</s>", "hie", "yes", "hieYESE"},
		{around, "hi", "ehi", "yes", "ehiYESE"},
		{around, "hi</s>", "ehie", "yes", "ehieYESE"},
	} {
		dir := textModel(t, "</s>")
		writeJSON(t, filepath.Join(dir, "tokenizer_config.json"), c.config)
		tok, err := train.OpenTokenizer(dir)
		if err != nil {
			t.Fatal(err)
		}
		g := infer.Generator{Tokenizer: tok}
		ids, err := g.Prompt(data.CausalExample{Prompt: c.prompt}, false)
		prompt := data.Sequence{IDs: ids, Targets: slices.Repeat([]int64{data.IgnoreTarget}, len(ids))}
		if got := spell(prompt); got != c.want || err != nil {
			t.Errorf("%v: the prompt %q is %q, %v, want %q", c.config, c.prompt, got, err, c.want)
		}
		seq, err := train.CausalEncoder{Tokenizer: tok}.Encode(data.CausalExample{Prompt: c.prompt, Answer: c.answer})
		if got := spell(seq); got != c.learnt || err != nil {
			t.Errorf("%v: %q and %q are %q, %v, want %q", c.config, c.prompt, c.answer, got, err, c.learnt)
		}
	}
}

func TestAnswersEndWhereTheTokenizerNamesNoEnd(t *testing.T) {
	for _, c := range []struct {
		name      string
		edit      func(dir string)
		want      string
		wantsNote bool
	}{
		{"generation_config.json", func(string) {}, "<ask YESE", false},
		{"config.json", func(dir string) {
			editJSON(t, filepath.Join(dir, "generation_config.json"), func(c map[string]any) { delete(c, "eos_token_id") })
		}, "<ask YESE", false},
		{"a list", func(dir string) {
			editJSON(t, filepath.Join(dir, "generation_config.json"), func(c map[string]any) { c["eos_token_id"] = []int{2, 9} })
		}, "<ask YESE", false},
		{"nowhere", func(dir string) {
			for _, name := range []string{"generation_config.json", "config.json"} {
				editJSON(t, filepath.Join(dir, name), func(c map[string]any) { c["eos_token_id"] = nil })
			}
		}, "<ask YES", true},
	} {
		dir := textModel(t, "")
		c.edit(dir)
		bindingstest.Do(t, func(s *bindings.Scope) error {
			g, err := infer.OpenGenerator(s, infer.Source{Model: dir}, infer.GeneratorOptions{Device: "cpu", Threads: 1})
			if err != nil {
				return err
			}
			seq, err := g.Encode(data.CausalExample{Prompt: "ask ", Answer: "yes"}, 0, false)
			if got := spell(seq); err != nil || got != c.want {
				t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
			}
			return g.Close()
		})
		cfg := causalConfig(t, "lora")
		cfg.Model.Path, cfg.Data.Data, cfg.Data.Train = dir, "", filepath.Join(t.TempDir(), "rows.jsonl")
		cfg.Loop.Epochs, cfg.Output.NoTrainEval = 1, true
		if err := os.WriteFile(cfg.Data.Train, []byte(strings.Repeat(`{"prompt": "ask ", "completion": "yes"}`+"\n", 8)), 0o600); err != nil {
			t.Fatal(err)
		}
		said := &notes{}
		if _, err := run.Run(t.Context(), cfg, run.Refuse, said); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(said.text, "end token") != c.wantsNote {
			t.Errorf("%s: notes\n%s", c.name, said.text)
		}
	}
}

// A padding token that only the configuration names has an id behind the last embedding: rows are filled up with another.
func TestPaddingStaysWithinTheEmbeddings(t *testing.T) {
	dir := textModel(t, "</s>")
	path := filepath.Join(dir, "tokenizer_config.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(raw, &config); err != nil {
		t.Fatal(err)
	}
	config["bos_token"], config["sep_token"], config["pad_token"] = "[BOS]", "[SEP]", "[PAD]" // the model has room for two more tokens
	writeJSON(t, path, config)
	rows := filepath.Join(t.TempDir(), "rows.jsonl")
	text := `{"prompt": "ab", "completion": "cdef"}` + "\n" + `{"prompt": "a", "completion": "b"}` + "\n"
	if err := os.WriteFile(rows, []byte(strings.Repeat(text, 8)), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := run.Defaults()
	cfg.Model.Task, cfg.Model.Method, cfg.Model.Path, cfg.Data.Train, cfg.Output.Out = "causal", "lora", dir, rows, filepath.Join(t.TempDir(), "run")
	cfg.Loop.Epochs, cfg.Loop.BatchSize, cfg.Machine.Threads, cfg.Machine.AMP, cfg.Loop.NoBucket = 1, 4, 1, "none", true
	mustRun(t, cfg, run.Refuse)
}
