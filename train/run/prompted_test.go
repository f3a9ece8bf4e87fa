package run_test

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/infer"
	"gopeft/train/prompted"
	"gopeft/train/run"
)

// askedModel is a tiny language model of 512 positions with a tokenizer.
func askedModel(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for to, from := range map[string]string{"tokenizer.json": "prompted/tokenizer.json", "config.json": "llama/rope-llama3/config.json", "model.safetensors": "llama/rope-llama3/model.safetensors"} {
		raw, err := os.ReadFile(modeltest.Testdata(t, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// reviews is a file of labelled texts.
func reviews(t *testing.T, n int) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("sentence,mood\n")
	for i := range n {
		fmt.Fprintf(&b, "a %s of %s,%s\n", []string{"fine movie", "dull story", "best and good one"}[i%3], strings.Repeat("so ", 1+i%5), []string{"good", "bad"}[i*i%7%2])
	}
	path := filepath.Join(t.TempDir(), "reviews.csv")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func askedConfig(t *testing.T, method string) run.Config {
	t.Helper()
	cfg := run.Defaults()
	cfg.Model.Method, cfg.Model.Path, cfg.Data.Data = method, askedModel(t), reviews(t, 60)
	cfg.Data.Split, cfg.Loop.BatchSize, cfg.Loop.Epochs, cfg.Machine.Threads, cfg.Machine.AMP = []float64{0.6, 0.2, 0.2}, 8, 1, 1, "none"
	cfg.Data.TextColumn, cfg.Data.LabelColumn = "sentence", "mood"
	cfg.Output.Out = filepath.Join(t.TempDir(), "run")
	if method == prompted.InContext {
		cfg.Data.Template, cfg.Prompt.Shots = `review: {sentence}\nmood: {mood}`, 4
	}
	return cfg
}

// A run that asks trains nothing, and what it leaves classifies as it did.
func TestRunsThatAskLeaveAPrompt(t *testing.T) {
	for _, method := range prompted.Methods() {
		t.Run(method, func(t *testing.T) {
			cfg := askedConfig(t, method)
			cfg.Prompt.Draws = 1
			sum := mustRun(t, cfg, run.Refuse)
			if sum.Params.Trainable != 0 || sum.Params.Total == 0 || sum.Spread != nil || !math.IsNaN(float64(sum.Accuracy.Train)) || math.IsNaN(float64(sum.Accuracy.Val)) || !(sum.Loss.Test > 0) || !(sum.SamplesPerS > 0) {
				t.Errorf("%+v", sum)
			}
			again := cfg
			again.Output.Out = filepath.Join(t.TempDir(), "again")
			if got := mustRun(t, again, run.Refuse); got.Loss.Test != sum.Loss.Test || got.Loss.Val != sum.Loss.Val || got.Fingerprint != sum.Fingerprint {
				t.Errorf("again: %+v, first %+v", got, sum)
			}
			splits, err := data.LoadSplits(context.Background(), cfg.Data.Sources(cfg.Machine.Seed), cfg.Data.LoadOptions(nil, cfg.Machine.Seed))
			if err != nil {
				t.Fatal(err)
			}
			bindingstest.Do(t, func(s *bindings.Scope) error {
				src, err := infer.Resolve(cfg.Output.Out, "")
				if err != nil {
					return err
				}
				p, err := infer.OpenPredictor(s, src, infer.PredictorOptions{Device: "cpu", Threads: 1, Batch: 8})
				if err != nil {
					return err
				}
				predictions, err := p.PredictRows(t.Context(), s, infer.Rows{Examples: splits.Test.Examples}, nil)
				if err != nil {
					return err
				}
				loss, correct := 0.0, 0
				for i, x := range splits.Test.Examples {
					loss -= math.Log(float64(predictions[i].Probs[x.Label])) / float64(splits.Test.Len())
					if predictions[i].Label == x.Label {
						correct++
					}
				}
				if acc := float64(correct) / float64(splits.Test.Len()); math.Abs(acc-float64(sum.Accuracy.Test)) > 1e-9 || math.Abs(loss-float64(sum.Loss.Test)) > 1e-5 {
					t.Errorf("accuracy %v and loss %v, the run has %v and %v", acc, loss, sum.Accuracy.Test, sum.Loss.Test)
				}
				return p.Close()
			})
		})
	}
}

// Several draws differ; their mean and spread are told, and another seed draws others.
func TestDrawsHaveASpread(t *testing.T) {
	cfg := askedConfig(t, prompted.InContext)
	sum := mustRun(t, cfg, run.Refuse)
	cfg.Prompt.Draws, cfg.Output.Out = 1, filepath.Join(t.TempDir(), "one")
	one := mustRun(t, cfg, run.Refuse)
	if sum.Spread == nil || one.Spread != nil || sum.Loss.Test == one.Loss.Test {
		t.Errorf("three draws %+v, one %+v", sum, one)
	}
	cfg.Machine.Seed, cfg.Output.Out = 7, filepath.Join(t.TempDir(), "seed")
	if other := mustRun(t, cfg, run.Refuse); other.Loss.Test == one.Loss.Test {
		t.Error("another seed changes nothing")
	}
	cfg.Prompt.Shots, cfg.Prompt.Draws, cfg.Output.Out = 0, 3, filepath.Join(t.TempDir(), "none")
	if none := mustRun(t, cfg, run.Refuse); none.Spread != nil || none.Loss.Test == one.Loss.Test {
		t.Errorf("without examples: %+v", none)
	}
}

// The template with the best accuracy on the validation part is the one that the test part is scored with.
func TestTheBestTemplateIsChosen(t *testing.T) {
	cfg := askedConfig(t, prompted.HardPrompt)
	lines := []string{`{text} {label}`, `review: {text}\nmood: {label}`, `is it {labels}? {text} is {label}`}
	cfg.Prompt.Templates = filepath.Join(t.TempDir(), "templates.txt")
	write := func(lines ...string) {
		if err := os.WriteFile(cfg.Prompt.Templates, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(lines...)
	sum := mustRun(t, cfg, run.Refuse)
	f, err := os.Open(filepath.Join(cfg.Output.Out, "templates.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := csv.NewReader(f).ReadAll()
	if err != nil || len(table) != 4 {
		t.Fatalf("%v, %v", table, err)
	}
	best, chosen := [2]float64{-1, 0}, ""
	for i, row := range table[1:] {
		acc, _ := strconv.ParseFloat(row[1], 64)
		loss, _ := strconv.ParseFloat(row[2], 64)
		if acc > best[0] || acc == best[0] && loss < best[1] {
			best, chosen = [2]float64{acc, loss}, row[0]
		}
		if row[0] != lines[i] {
			t.Errorf("template %d is %s, want %s", i+1, row[0], lines[i])
		}
	}
	p, err := prompted.Load(filepath.Join(cfg.Output.Out, prompted.FileName))
	if err != nil || p.Template.String() != chosen || math.Abs(float64(sum.Accuracy.Val)-best[0]) > 1e-6 {
		t.Errorf("%v, %v; chosen is %s with %v, the run has %v", p, err, chosen, best, sum.Accuracy.Val)
	}
	write(chosen) // alone it scores the same
	cfg.Output.Out = filepath.Join(t.TempDir(), "alone")
	if alone := mustRun(t, cfg, run.Refuse); alone.Accuracy.Test != sum.Accuracy.Test || alone.Loss.Test != sum.Loss.Test || alone.Fingerprint == sum.Fingerprint {
		t.Errorf("alone %+v, among others %+v", alone, sum)
	}
}

// All that can be done with a language model stands in one table, and a comparison that goes on keeps what asked.
func TestCompareAsksToo(t *testing.T) {
	t.Setenv("GOPEFT_HOME", t.TempDir())
	methods, _ := run.AllMethods("classify", true)
	for _, want := range []string{"logreg", "in-context", "hard-prompt", "last", "full", "prompt", "lora"} {
		if !strings.Contains(" "+strings.Join(methods, " ")+" ", " "+want+" ") {
			t.Errorf("%s is not among all methods: %v", want, methods)
		}
	}
	for _, c := range []struct {
		task   string
		writes bool
		want   string
	}{{"classify", false, ""}, {"causal", true, "in-context"}} {
		methods, _ := run.AllMethods(c.task, c.writes)
		got := ""
		for _, m := range methods {
			if prompted.Is(m) {
				got += m
			}
		}
		if got != c.want {
			t.Errorf("%s: %v", c.task, methods)
		}
	}
	c := run.Comparison{Base: askedConfig(t, prompted.InContext), Methods: []string{"logreg", "in-context", "hard-prompt", "lora"}}
	c.Base.Model.Method = ""
	r := &runs{}
	results, err := run.Compare(context.Background(), c, run.Refuse, train.Quiet{}, r.each)
	if err != nil || len(results) != 4 {
		t.Fatalf("%d results, %v", len(results), err)
	}
	if results[1].Trainable != 0 || results[1].Spread == nil || results[2].Trainable != 0 || results[3].Trainable == 0 || results[2].Total >= results[3].Total+results[3].Trainable {
		t.Errorf("%+v", results)
	}
	again, err := run.Compare(context.Background(), c, run.Resume, train.Quiet{}, r.each)
	if err != nil || len(again) != 4 || r.count["in-context"] != 1 || r.count["hard-prompt"] != 1 || again[1].TestAcc != results[1].TestAcc || again[1].Spread == nil {
		t.Errorf("resumed: %+v, runs %v, %v", again, r.count, err)
	}
	c.Methods, c.Base.Output.Out = []string{"logreg", "hard-prompt"}, t.TempDir()
	var usage *train.UsageError
	if _, err := run.Compare(context.Background(), c, run.Refuse, train.Quiet{}, r.each); !errors.As(err, &usage) || !strings.Contains(err.Error(), "--template") {
		t.Errorf("a template that no method takes: %v", err)
	}
}

// The loss of answers with examples before them is that of the whole texts.
func TestAnswersAreScoredWithExamples(t *testing.T) {
	for _, kind := range []string{"pairs", "chats"} {
		t.Run(kind, func(t *testing.T) {
			cfg := askedConfig(t, prompted.InContext)
			var b strings.Builder
			for i := range 30 {
				if kind == "pairs" {
					fmt.Fprintf(&b, `{"prompt": "say %s: ", "completion": "%s"}`+"\n", letters[i%20:i%20+3], letters[i%20:i%20+1+i%3])
				} else {
					fmt.Fprintf(&b, `{"messages": [{"role": "user", "content": "%s"}, {"role": "assistant", "content": "%s"}]}`+"\n", letters[i%20:i%20+3], letters[i%20:i%20+1+i%3])
				}
			}
			cfg.Model.Task, cfg.Data.Template, cfg.Data.TextColumn, cfg.Data.LabelColumn = "causal", "", "", ""
			cfg.Model.Path, cfg.Data.Data = textModel(t, "</s>"), filepath.Join(t.TempDir(), "rows.jsonl")
			cfg.Prompt.Shots = 2
			if err := os.WriteFile(cfg.Data.Data, []byte(b.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			sum := mustRun(t, cfg, run.Refuse)
			if sum.Params.Trainable != 0 || !math.IsNaN(float64(sum.Accuracy.Test)) {
				t.Errorf("%+v", sum)
			}
			splits, err := data.LoadCausalSplits(context.Background(), cfg.Data.Sources(cfg.Machine.Seed), cfg.Data.CausalOptions(cfg.Machine.Seed))
			if err != nil {
				t.Fatal(err)
			}
			bindingstest.Do(t, func(s *bindings.Scope) error {
				g, err := infer.OpenGenerator(s, infer.Source{Model: cfg.Model.Path}, infer.GeneratorOptions{Device: "cpu", Threads: 1})
				if err != nil {
					return err
				}
				f := prompted.FewShot{Encoder: g.Encoder(0, false), Room: 64}
				if n, err := f.Load(filepath.Join(cfg.Output.Out, prompted.FileName)); err != nil || n != 2 {
					t.Errorf("%d examples, %v", n, err)
				}
				var seqs []data.Sequence
				for _, x := range splits.Test.Examples {
					seq, err := f.Encode(x)
					if err != nil {
						return err
					}
					alone, err := g.Encode(x, 0, false)
					if err != nil {
						return err
					}
					if seq.NumTargets() != alone.NumTargets() || len(seq.IDs) <= len(alone.IDs) {
						t.Errorf("%s with examples, %s alone", spell(seq), spell(alone))
					}
					seqs = append(seqs, seq)
				}
				scores, err := g.Score(t.Context(), s, seqs, infer.ScoreOptions{Batch: 8})
				if err != nil {
					return err
				}
				if loss, _, _ := infer.Perplexity(scores); math.Abs(loss-float64(sum.Loss.Test)) > 1e-5 {
					t.Errorf("loss %v, the run has %v", loss, sum.Loss.Test)
				}
				return g.Close()
			})
		})
	}
}

func TestPromptsThatCannotBe(t *testing.T) {
	text := func(lines string) string {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tiny, ids := modeltest.Testdata(t, "distilbert/tiny"), writeRows(t, 120)
	for _, c := range []struct {
		want, method string
		usage        bool
		edit         func(*run.Config)
	}{
		{"no {label}", "in-context", true, func(c *run.Config) { c.Data.Template = "{text}:" }},
		{"--shots is 37, ", "in-context", true, func(c *run.Config) { c.Prompt.Shots = 37 }},
		{"holds no template", "hard-prompt", true, func(c *run.Config) { c.Prompt.Templates = text("\n \n") }},
		{"line 2", "hard-prompt", true, func(c *run.Config) { c.Prompt.Templates = text("{text} {label}\n{text}\n") }},
		{"validation data", "hard-prompt", true, func(c *run.Config) { c.Data.Train, c.Data.Data = c.Data.Data, "" }},
		{"the model reads 512: no room", "in-context", true, func(c *run.Config) { c.Data.Template = strings.Repeat("so so ", 200) + "{text} {label}" }},
		{"the model reads 512: no room", "hard-prompt", true, func(c *run.Config) { c.Prompt.Templates = text(strings.Repeat("so so ", 200) + "{text} {label}") }},
		{"not one of the examples", "in-context", true, func(c *run.Config) { c.Data.Template = "{text}" + strings.Repeat("so so ", 70) + " {label}" }},
		{"is a distilbert model: it reads texts", "in-context", true, func(c *run.Config) { c.Model.Path = tiny }},
		{"is a distilbert model: it reads texts", "hard-prompt", true, func(c *run.Config) { c.Model.Path = tiny }},
		{"3 words for 2 labels", "hard-prompt", true, func(c *run.Config) { c.Prompt.Words = []string{"a", "b", "c"} }},
		{"token ids", "in-context", false, func(c *run.Config) {
			c.Data.Data, c.Data.Template, c.Data.TextColumn, c.Data.LabelColumn = ids, "{text}: {label}", "", ""
		}},
		{"no language-model head", "hard-prompt", false, func(c *run.Config) {
			c.Model.Path = modelWithout(t, c.Model.Path)
		}},
		{"has no --task causal", "hard-prompt", true, func(c *run.Config) { c.Model.Task = "causal" }},
		{"is one template", "hard-prompt", true, func(c *run.Config) { c.Data.Template = "{text} {label}" }},
		{"--template goes with", "lora", true, func(c *run.Config) { c.Data.Template = "{text} {label}" }},
		{"--adapter-init", "in-context", true, func(c *run.Config) { c.Model.AdapterInit = tiny }},
		{"no epochs", "in-context", true, func(c *run.Config) { c.Data.Data += ":0.5\n" + c.Data.Data + ":0.5" }},
	} {
		cfg := askedConfig(t, c.method)
		c.edit(&cfg)
		_, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{})
		var usage *train.UsageError
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || errors.As(err, &usage) != c.usage {
			t.Errorf("%s: got %v, want %s", c.method, err, c.want)
		}
	}
}

// modelWithout is a copy of a model that its files call a classifier's decoder, without a language-model head.
func modelWithout(t *testing.T, dir string) string {
	t.Helper()
	out := t.TempDir()
	if err := os.CopyFS(filepath.Join(out, "m"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(modeltest.Testdata(t, "llama/base-noprefix/model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(modeltest.Testdata(t, "llama/base-noprefix/config.json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"model.safetensors": raw, "config.json": config} {
		if err := os.WriteFile(filepath.Join(out, "m", name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(out, "m")
}

// Settings of prompts at their defaults are in no fingerprint, and a file of settings reads them.
func TestPromptSettingsAreRead(t *testing.T) {
	var node yaml.Node
	if err := yaml.Unmarshal([]byte("shots: 2\nlabel-words: [bad, good]\ncalibrate: true\n"), &node); err != nil {
		t.Fatal(err)
	}
	c := run.Comparison{Base: askedConfig(t, prompted.InContext), Methods: []string{"in-context", "lora"}, Settings: map[string]yaml.Node{"in-context": *node.Content[0]}}
	cfg, err := c.Config("in-context")
	if err != nil || cfg.Prompt.Shots != 2 || !cfg.Prompt.Calibrate || strings.Join(cfg.Prompt.Words, " ") != "bad good" || cfg.Data.Template == "" {
		t.Errorf("%+v, %v", cfg.Prompt, err)
	}
	if cfg, err = c.Config("lora"); err != nil || cfg.Data.Template != "" {
		t.Errorf("%q, %v", cfg.Data.Template, err)
	}
}
