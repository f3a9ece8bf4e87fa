package run_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/train"
	"gopeft/train/run"
)

// writeLines puts lines into a file of that name.
func writeLines(t *testing.T, name string, n int, line func(i int) string) string {
	t.Helper()
	var b strings.Builder
	for i := range n {
		b.WriteString(line(i) + "\n")
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// chatLines are chats of one and two answers, and of different lengths.
func chatLines(t *testing.T, n int) string {
	return writeLines(t, "chats.jsonl", n, func(i int) string {
		turns := fmt.Sprintf(`{"role": "user", "content": "ask %d"}, {"role": "assistant", "content": "%s"}`, i, strings.Repeat("yes ", 1+i%3))
		if i%2 == 0 {
			turns += fmt.Sprintf(`, {"role": "user", "content": "and"}, {"role": "assistant", "content": "no %d"}`, i%5)
		}
		return `{"messages": [` + turns + `]}`
	})
}

// tokenRuns are runs whose data becomes tokens in all the ways there are.
func tokenRuns(t *testing.T) map[string]run.Config {
	runs := map[string]run.Config{}
	add := func(name string, cfg run.Config, edit func(c *run.Config)) {
		edit(&cfg)
		cfg.Output.Out = filepath.Join(t.TempDir(), "run")
		runs[name] = cfg
	}
	add("classify", tinyConfig(t, "lora"), func(*run.Config) {})
	add("classify, stratified sample", tinyConfig(t, "bitfit"), func(c *run.Config) { c.Data.Stratify, c.Data.Sample, c.Data.MaxLength = true, 80, 9 })
	add("classify, files", tinyConfig(t, "last"), func(c *run.Config) {
		c.Data.Train, c.Data.Val, c.Data.Test, c.Data.Data, c.Data.Split, c.Data.Limit = c.Data.Data, writeRows(t, 30), c.Data.Data, "", nil, 60
		c.Loop.MaxTokens, c.Model.CacheStates = 64, true
	})
	add("causal, packed", causalConfig(t, "lora"), func(*run.Config) {})
	text := causalConfig(t, "lora")
	text.Model.Path, text.Data.Pack, text.Data.MaxLength, text.Loop.BatchSize = textModel(t, ""), false, 0, 6
	add("chats", text, func(c *run.Config) { c.Data.Data = chatLines(t, 60) })
	add("chats, packed, prompts too", text, func(c *run.Config) { c.Data.Data, c.Data.Pack, c.Data.MaskPrompt = chatLines(t, 60), true, false })
	add("template, files", text, func(c *run.Config) {
		c.Data.Data, c.Data.Split, c.Data.Template, c.Data.SkipBadRows = "", nil, "{q} -> {a}", true
		rows := func(n int) string {
			return writeLines(t, "rows.csv", n, func(i int) string {
				return []string{"q,a", fmt.Sprintf("ask %d,%s", i, strings.Repeat("z", i%7)), "one,two,three"}[min(i, 1)+max(0, i%9-7)]
			})
		}
		c.Data.Train, c.Data.Val = rows(50), rows(20)
	})
	add("mixed", tinyConfig(t, "lora"), func(c *run.Config) {
		c.Data.Data, c.Loop.Epochs, c.Data.Limit = c.Data.Data+":1\n"+writeRows(t, 20)+":2", 3, 90
	})
	add("mixed, packed", causalConfig(t, "lora"), func(c *run.Config) {
		c.Data.Train, c.Data.Val, c.Data.Data, c.Data.Split = writeChains(t, 100)+":0.25\n"+writeChains(t, 12)+":0.75", c.Data.Data, "", nil
	})
	add("files together", tinyConfig(t, "bitfit"), func(c *run.Config) { c.Data.Data += "\n" + writeRows(t, 33) })
	return runs
}

// said is the notes of a run, but for those about where its tokens are.
func said(text string) string {
	var lines []string
	for _, line := range strings.Split(text, "\n") {
		if !strings.HasPrefix(line, "tokens of the data") && !strings.Contains(line, "samples/s") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// Tokens from a file train to the bits that tokens in memory do, when the file is made and when it was there.
func TestTokensFromAFileTrainToTheSameBits(t *testing.T) {
	for name, cfg := range tokenRuns(t) {
		t.Run(name, func(t *testing.T) {
			memory := &notes{}
			if _, err := run.Run(context.Background(), cfg, run.Refuse, memory); err != nil {
				t.Fatal(err)
			}
			want := comparable(t, cfg.Output.Out)
			cached := cfg
			cached.Data.CacheDir = filepath.Join(t.TempDir(), "tokens")
			for i := range 2 {
				cached.Output.Out = filepath.Join(t.TempDir(), fmt.Sprint("run", i))
				file := &notes{}
				if _, err := run.Run(context.Background(), cached, run.Refuse, file); err != nil {
					t.Fatal(err)
				}
				sameRun(t, comparable(t, cached.Output.Out), want)
				if strings.Contains(file.text, "made before") != (i == 1) || said(file.text) != said(memory.text) {
					t.Errorf("run %d says\n%s\nin memory it says\n%s", i, file.text, memory.text)
				}
			}
		})
	}
}

// A run goes on with its tokens elsewhere than it began with, from either to the other.
func TestRunGoesOnWithTokensElsewhere(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for _, whole := range []run.Config{tinyConfig(t, "lora"), causalConfig(t, "lora")} {
		mustRun(t, whole, run.Refuse)
		want := comparable(t, whole.Output.Out)
		dir := filepath.Join(t.TempDir(), "tokens")
		for _, dirs := range [][2]string{{"", dir}, {dir, "none"}} {
			cfg := whole
			cfg.Output.Out, cfg.Data.CacheDir = filepath.Join(t.TempDir(), "run"), dirs[0]
			interrupt(t, cfg, "train", 3)
			cfg.Data.CacheDir = dirs[1]
			mustRun(t, cfg, run.Resume)
			sameRun(t, comparable(t, cfg.Output.Out), want)
		}
	}
}

// A mix is drawn by seed and epoch alone: a run that was stopped anywhere goes on with what it had not seen.
func TestMixedRunResumesToTheSameBits(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for _, name := range []string{"mixed", "mixed, packed"} {
		whole := tokenRuns(t)[name]
		mustRun(t, whole, run.Refuse)
		want := comparable(t, whole.Output.Out)
		for _, step := range []int{2, 9} {
			cfg := whole
			cfg.Output.Out = filepath.Join(t.TempDir(), "run")
			interrupt(t, cfg, "train", step)
			other := cfg
			other.Data.Data, other.Data.Train = strings.Replace(cfg.Data.Data, ":1", ":3", 1), strings.Replace(cfg.Data.Train, ":0.25", ":0.5", 1)
			if _, err := run.Run(context.Background(), other, run.Resume, train.Quiet{}); err == nil || !strings.Contains(err.Error(), "other settings") {
				t.Errorf("%s, with other weights: %v", name, err)
			}
			mustRun(t, cfg, run.Resume)
			sameRun(t, comparable(t, cfg.Output.Out), want)
		}
	}
}

func TestFeaturesHaveNoWeights(t *testing.T) {
	cfg := tinyConfig(t, train.Features)
	cfg.Data.Data += ":1\n" + cfg.Data.Data + ":2"
	if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), "weights") {
		t.Errorf("got %v", err)
	}
}

// A setting of several files is a list in YAML, or lines of one text, and is written and read back as it was.
func TestFilesInYAML(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"list":  "train: [a.csv:0.5, 'b:c.csv:0.5']\nval: v.csv\n",
		"block": "train:\n  - a.csv:0.5\n  - b:c.csv:0.5\nval:\n  - v.csv\n",
		"lines": "train: |-\n  a.csv:0.5\n  b:c.csv:0.5\nval: v.csv\n",
	} {
		path := filepath.Join(dir, name+".yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			cfg, err := run.ReadConfig(path, run.Defaults())
			if err != nil || cfg.Data.Train != "a.csv:0.5\nb:c.csv:0.5" || cfg.Data.Val != "v.csv" {
				t.Fatalf("%s: %q, %q, %v", name, cfg.Data.Train, cfg.Data.Val, err)
			}
			if err := run.WriteConfig(path, cfg); err != nil {
				t.Fatal(err)
			}
		}
	}
	path := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(path, []byte("train: [[a], b]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run.ReadConfig(path, run.Defaults()); err == nil {
		t.Error("a list in a list: no error")
	}
}

// Whatever decides the tokens makes another file; what does not shares one.
func TestFileOfTokensIsByWhatDecidesThem(t *testing.T) {
	cfg := causalConfig(t, "lora")
	cfg.Model.Path, cfg.Data.Data, cfg.Data.Pack, cfg.Data.MaxLength, cfg.Loop.Epochs, cfg.Loop.MaxSteps = textModel(t, "</s>"), chatLines(t, 30), false, 60, 1, 1
	cfg.Data.CacheDir, cfg.Output.NoTrainEval = filepath.Join(t.TempDir(), "tokens"), true
	files := func() int {
		found, err := filepath.Glob(filepath.Join(cfg.Data.CacheDir, "*.tokens"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	try := func(what string, another bool, edit func(c *run.Config)) {
		t.Helper()
		before, c := files(), cfg
		edit(&c)
		c.Output.Out = filepath.Join(t.TempDir(), "run")
		mustRun(t, c, run.Refuse)
		if (files() > before) != another {
			t.Errorf("%s: %d files, were %d", what, files(), before)
		}
	}
	try("first", true, func(*run.Config) {})
	try("again", false, func(*run.Config) {})
	try("learning rate, epochs, packing", false, func(c *run.Config) { c.Loop.LR, c.Loop.Epochs, c.Data.Pack = 1e-4, 2, true })
	try("length", true, func(c *run.Config) { c.Data.MaxLength = 50 })
	try("prompts", true, func(c *run.Config) { c.Data.MaskPrompt = false })
	try("seed of the division", true, func(c *run.Config) { c.Machine.Seed = 9 })
	try("shares", true, func(c *run.Config) { c.Data.Split = []float64{0.5, 0.5} })
	try("tokenizer", true, func(c *run.Config) {
		c.Model.Path = textModel(t, "</s>")
		editJSON(t, filepath.Join(c.Model.Path, "tokenizer_config.json"), func(m map[string]any) { m["chat_template"] = "x" + m["chat_template"].(string) })
	})
	try("rows", true, func(c *run.Config) { c.Data.Data = chatLines(t, 31) })
	try("the same rows elsewhere", false, func(c *run.Config) { c.Data.Data = chatLines(t, 30) })
	own := func(c *run.Config) { c.Data.Train, c.Data.Data, c.Data.Split = c.Data.Data, "", nil }
	try("a file of its own", true, own)
	try("the seed of nothing", false, func(c *run.Config) { own(c); c.Machine.Seed = 9 })
}

func TestBadRowsAreNamedAndLeaveNoTokens(t *testing.T) {
	cfg := causalConfig(t, "lora")
	cfg.Data.CacheDir = filepath.Join(t.TempDir(), "tokens")
	cfg.Data.Data = writeLines(t, "bad.jsonl", 40, func(i int) string { return fmt.Sprintf(`{"input_ids": [1, 2, %d]}`, 3+i/39*5000) })
	_, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{})
	if err == nil || !strings.Contains(err.Error(), "bad.jsonl: line 40") || !strings.Contains(err.Error(), "5003") {
		t.Errorf("got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(cfg.Data.CacheDir, "*.tokens")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}
