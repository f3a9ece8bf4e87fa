package train_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/data"
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
		g := train.Generator{Tokenizer: tok}
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
			g, err := train.OpenGenerator(s, train.Source{Model: dir}, train.GeneratorOptions{Device: "cpu", Threads: 1})
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
		cfg.Model, cfg.Data, cfg.Train = dir, "", filepath.Join(t.TempDir(), "rows.jsonl")
		cfg.Epochs, cfg.NoTrainEval = 1, true
		if err := os.WriteFile(cfg.Train, []byte(strings.Repeat(`{"prompt": "ask ", "completion": "yes"}`+"\n", 8)), 0o600); err != nil {
			t.Fatal(err)
		}
		said := &notes{}
		if _, err := train.Run(t.Context(), cfg, train.Refuse, said); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(said.text, "end token") != c.wantsNote {
			t.Errorf("%s: notes\n%s", c.name, said.text)
		}
	}
}

// spyHead is a head with a scale of its own that notes how many rows it maps at once.
type spyHead struct {
	inner bindings.Tensor
	scale bindings.Tensor
	rows  []int64
}

func (h *spyHead) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	h.rows = append(h.rows, x.Size(0))
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		return s.Mul(s.Linear(x, h.inner, bindings.Tensor{}), h.scale)
	})
}

func TestLogitsOfATrainedHeadExistInChunks(t *testing.T) {
	const vocab, hidden, width = 1 << 17, 8, 150 // 128 rows of logits make a chunk
	bindingstest.Do(t, func(s *bindings.Scope) error {
		s.Seed(4)
		built, err := model.New(s, []byte(`{"model_type": "llama", "vocab_size": 131072, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
			"num_attention_heads": 2, "initializer_range": 0.5}`), model.Options{})
		if err != nil {
			return err
		}
		m := built.(model.CausalLM)
		head := &spyHead{inner: m.LMWeight(), scale: s.Uniform([]int64{vocab}, 0.5, 1.5, bindings.Float, bindings.CPU)}
		s.SetRequiresGrad(head.scale, true)
		words := m.Hooks().Words.T
		s.SetRequiresGrad(words, true)
		m.Hooks().Unembed = head
		seqs := make([]data.Sequence, 2)
		for i := range seqs {
			for j := range width {
				seqs[i].IDs = append(seqs[i].IDs, int64((j*j*977+i)%vocab))
			}
			seqs[i].Targets = seqs[i].IDs
		}
		b, err := data.CollateCausal(seqs, data.CollateOptions{})
		if err != nil {
			return err
		}
		in := func(s *bindings.Scope) model.Input {
			return model.Input{IDs: s.FromInt64s(b.IDs, int64(b.Rows), int64(b.Width)), Train: true}
		}
		grads := func(loss func(s *bindings.Scope) bindings.Tensor) (out []bindings.Tensor) {
			_ = s.Run(func(c *bindings.Scope) error {
				l := loss(c)
				c.Backward(l)
				out = append(out, c.MoveTo(s, c.Detach(l)))
				return nil
			})
			for _, p := range []bindings.Tensor{head.scale, words} {
				out = append(out, s.Clone(s.Grad(p)))
				s.SetGrad(p, bindings.Tensor{})
			}
			return out
		}
		got := grads(func(s *bindings.Scope) bindings.Tensor { return train.Causal{}.Measure(s, m, b, in(s)).Loss })
		if want := []int64{128, 128, 42, 42, 128, 128}; !cmp.Equal(slices.Sorted(slices.Values(head.rows)), slices.Sorted(slices.Values(want))) {
			t.Errorf("rows of logits made at once: %v, want %v", head.rows, want)
		}
		head.rows = nil
		whole := grads(func(s *bindings.Scope) bindings.Tensor {
			return train.Causal{WholeLogits: true}.Measure(s, m, b, in(s)).Loss
		})
		if want := []int64{2 * (width - 1)}; !slices.Equal(head.rows, want) {
			t.Errorf("rows of logits made at once without chunks: %v, want %v", head.rows, want)
		}
		want := grads(func(s *bindings.Scope) bindings.Tensor {
			logits := m.Logits(s, m.Forward(s, in(s)).Hidden)
			flat := s.Reshape(s.Narrow(logits, 1, 0, width-1), -1, vocab)
			targets := s.FromInt64s(slices.Concat(seqs[0].IDs[1:], seqs[1].IDs[1:]), 2*(width-1))
			return s.CrossEntropy(flat, targets, data.IgnoreTarget, false)
		})
		for i, name := range []string{"loss", "scale's gradient", "embeddings' gradient"} {
			largest := s.MaxAll(s.Abs(want[i])).Item()
			modeltest.Close(t, name, got[i], want[i], 1e-5*max(largest, 1e-3))
			modeltest.Close(t, name+" without chunks", whole[i], want[i], 1e-5*max(largest, 1e-3))
			s.Free(got[i])
			s.Free(whole[i])
			s.Free(want[i])
		}
		s.SetRequiresGrad(words, false)
		return m.Close()
	})
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
	cfg := train.Defaults()
	cfg.Task, cfg.Method, cfg.Model, cfg.Train, cfg.Out = "causal", "lora", dir, rows, filepath.Join(t.TempDir(), "run")
	cfg.Epochs, cfg.BatchSize, cfg.Threads, cfg.AMP, cfg.NoBucket = 1, 4, 1, "none", true
	mustRun(t, cfg, train.Refuse)
}
