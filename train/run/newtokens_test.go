package run_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model/generate"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/infer"
	"gopeft/train/run"
)

// TestNewTokensAreTrained: tokens of a file, two of them within the rows that the model has and two behind, are learned, saved
// with a tokenizer that has them, resumed to the same bits, and generated.
func TestNewTokensAreTrained(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	dir := t.TempDir()
	list, rows := filepath.Join(dir, "tokens.txt"), filepath.Join(dir, "rows.jsonl")
	text := `{"prompt": "one ", "completion": "<p><q><r><s2>"}` + "\n" + `{"prompt": "<s2> two ", "completion": "<r>"}` + "\n"
	for path, text := range map[string]string{list: "<p>\n<q>\r\n<r>\n\n<s2>", rows: strings.Repeat(text, 8)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whole := causalConfig(t, "lora")
	whole.Model.Path, whole.Data.Data, whole.Data.Train = textModel(t, "</s>"), "", rows
	whole.Peft.AddTokens, whole.Peft.Rank, whole.Peft.Targets = []string{list}, 4, []string{"all"}
	whole.Loop.LR, whole.Loop.BatchSize, whole.Loop.Epochs, whole.Output.NoTrainEval = 3e-2, 4, 30, true
	mustRun(t, whole, run.Refuse)
	stopped := whole
	stopped.Output.Out = filepath.Join(t.TempDir(), "stopped")
	interrupt(t, stopped, "train", 5)
	mustRun(t, stopped, run.Resume)
	sameRun(t, comparable(t, stopped.Output.Out), comparable(t, whole.Output.Out))

	best := filepath.Join(whole.Output.Out, "best")
	raw, err := os.ReadFile(filepath.Join(best, "adapter_config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Tokens map[string][]int64 `json:"trainable_token_indices"`
	}
	want := []int64{46, 47, 48, 49}
	if err := json.Unmarshal(raw, &config); err != nil || !slices.Equal(config.Tokens["embed_tokens"], want) || !slices.Equal(config.Tokens["lm_head"], want) {
		t.Errorf("trainable_token_indices are %v (%v)", config.Tokens, err)
	}
	src, err := infer.Resolve("", whole.Output.Out)
	if err != nil {
		t.Fatal(err)
	}
	bindingstest.Do(t, func(s *bindings.Scope) error {
		g, err := infer.OpenGenerator(s, src, infer.GeneratorOptions{Device: "cpu", Threads: 1})
		if err != nil {
			return err
		}
		ids, err := g.Prompt(data.CausalExample{Prompt: "one "}, false)
		if err != nil {
			return err
		}
		got, err := g.Generate(s, [][]int64{ids}, nil, generate.Options{MaxNew: 8, EOS: []int64{2}}, nil)
		if err != nil {
			return err
		}
		if !slices.Equal(got[0].IDs[:min(4, len(got[0].IDs))], want) {
			t.Errorf("generated %v, want %v first", got[0].IDs, want)
		}
		seq, err := g.Encode(data.CausalExample{Prompt: "<s2> two ", Answer: "<r>"}, 0, false)
		if err != nil || seq.IDs[1] != 49 {
			t.Errorf("encoded %v (%v)", seq.IDs, err)
		}
		return g.Close()
	})
	// Another run goes on from it with the same tokens; other ones, or a method without any, are refused.
	next := whole
	next.Model.AdapterInit, next.Peft, next.Loop.Epochs = best, run.Defaults().Peft, 1
	next.Output.Out = filepath.Join(t.TempDir(), "next")
	mustRun(t, next, run.Refuse)
	for what, change := range map[string]func(*run.Config){
		"goes with --method lora": func(c *run.Config) { c.Model.Method, c.Peft.AddTokens = "ia3", []string{"<p>"} },
		"is a token already":      func(c *run.Config) { c.Peft.AddTokens = []string{"a"} },
		"--add-tokens is":         func(c *run.Config) { c.Model.AdapterInit, c.Peft.AddTokens = best, []string{"<new>"} },
	} {
		c := whole
		c.Output.Out = filepath.Join(t.TempDir(), "bad")
		change(&c)
		if _, err := run.Run(context.Background(), c, run.Refuse, train.Quiet{}); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %q", err, what)
		}
	}
}
