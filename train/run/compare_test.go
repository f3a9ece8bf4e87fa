package run_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/data/rows"
	"gopeft/train/report"
	"gopeft/train/run"
)

func tinyComparison(t *testing.T, methods ...string) run.Comparison {
	t.Setenv("GOPEFT_HOME", t.TempDir())
	cfg := tinyConfig(t, "")
	cfg.Loop.Epochs = 1
	return run.Comparison{Base: cfg, Methods: methods}
}

// runs counts the runs of a comparison, in this process; those of a method in fail do not succeed.
type runs struct {
	count map[string]int
	fail  string
}

func (r *runs) each(ctx context.Context, cfg run.Config, mode run.OutMode) (report.Summary, error) {
	name := filepath.Base(cfg.Output.Out)
	if r.count == nil {
		r.count = map[string]int{}
	}
	r.count[name]++
	if name == r.fail {
		return report.Summary{}, errors.New("out of luck")
	}
	return run.Run(ctx, cfg, mode, train.Quiet{})
}

func TestCompareGoesOnPastFailuresAndResumes(t *testing.T) {
	c := tinyComparison(t, "logreg", "ia3", "bitfit")
	r := &runs{fail: "ia3"}
	results, err := run.Compare(context.Background(), c, run.Refuse, train.Quiet{}, r.each)
	if err == nil || !strings.Contains(err.Error(), "ia3: out of luck") || len(results) != 2 {
		t.Fatalf("%d results, %v", len(results), err)
	}
	again, err := run.ReadComparison(filepath.Join(c.Base.Output.Out, "compare.yaml"), run.Defaults())
	if err != nil || strings.Join(again.Methods, " ") != "logreg ia3 bitfit" {
		t.Fatalf("compare.yaml: %v, %v", again.Methods, err)
	}
	r.fail = ""
	results, err = run.Compare(context.Background(), again, run.Resume, train.Quiet{}, r.each)
	if err != nil || len(results) != 3 || r.count["logreg"] != 1 || r.count["ia3"] != 2 || r.count["bitfit"] != 1 {
		t.Errorf("resumed: %d results, runs %v, %v", len(results), r.count, err)
	}
	for _, name := range []string{"compare.csv", "compare.md", "compare.png"} {
		if _, err := os.Stat(filepath.Join(c.Base.Output.Out, name)); err != nil {
			t.Error(err)
		}
	}
	// A finished run of other settings is not taken for one of these.
	again.Base.Loop.LR = 1e-4
	_, err = run.Compare(context.Background(), again, run.Resume, train.Quiet{}, r.each)
	if err == nil || !strings.Contains(err.Error(), "--lr") {
		t.Errorf("other settings: %v", err)
	}
}

// A comparison that is interrupted before a method has finished leaves the tables that it was to replace.
func TestAnInterruptedComparisonBringsTheOldTablesBack(t *testing.T) {
	c := tinyComparison(t, "logreg")
	if _, err := run.Compare(context.Background(), c, run.Refuse, train.Quiet{}, (&runs{}).each); err != nil {
		t.Fatal(err)
	}
	tables := func() (all string) {
		for _, name := range []string{"compare.yaml", "compare.csv", "compare.md", "compare.png"} {
			raw, err := os.ReadFile(filepath.Join(c.Base.Output.Out, name))
			if err != nil {
				t.Error(err)
			}
			all += string(raw)
		}
		return all
	}
	want := tables()
	c.Methods = []string{"bitfit"}
	ctx, cancel := context.WithCancel(context.Background())
	interrupted := func(context.Context, run.Config, run.OutMode) (report.Summary, error) {
		cancel()
		return report.Summary{}, ctx.Err()
	}
	if _, err := run.Compare(ctx, c, run.Overwrite, train.Quiet{}, interrupted); !errors.Is(err, run.ErrInterrupted) {
		t.Errorf("got %v", err)
	}
	if tables() != want {
		t.Error("they have changed")
	}
	if left, _ := filepath.Glob(filepath.Join(c.Base.Output.Out, ".*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestComparisonsThatCannotBeRight(t *testing.T) {
	for want, c := range map[string]run.Comparison{
		"twice":     tinyComparison(t, "lora", "ia3", "lora"),
		`"LoRA"`:    tinyComparison(t, "LoRA"),
		`"houlsbi"`: {Base: tinyConfig(t, ""), Methods: []string{"lora"}, Settings: map[string]yaml.Node{"houlsbi": {}}},
	} {
		_, err := run.Compare(context.Background(), c, run.Refuse, train.Quiet{}, (&runs{}).each)
		var usage *train.UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestCompareResumesOnTheSameDataOnly(t *testing.T) {
	c := tinyComparison(t, "logreg", "bitfit")
	r := &runs{}
	if _, err := run.Compare(context.Background(), c, run.Refuse, train.Quiet{}, r.each); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(c.Base.Data.Data)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.Base.Data.Data, raw[strings.Index(string(raw), "\n")+1:], 0o600); err != nil {
		t.Fatal(err)
	}
	results, err := run.Compare(context.Background(), c, run.Resume, train.Quiet{}, r.each)
	if err == nil || !strings.Contains(err.Error(), "bitfit: ") || !strings.Contains(err.Error(), "other data") {
		t.Errorf("other data: %v", err)
	}
	if r.count["logreg"] != 2 || len(results) != 1 {
		t.Errorf("runs %v, %d results", r.count, len(results))
	}
}

func TestABadRowEndsAComparisonBeforeItsRuns(t *testing.T) {
	c := tinyComparison(t, "logreg", "bitfit")
	file, err := os.OpenFile(c.Base.Data.Data, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString("{broken\n"); err != nil || file.Close() != nil {
		t.Fatal(err)
	}
	r := &runs{}
	_, err = run.Compare(context.Background(), c, run.Refuse, train.Quiet{}, r.each)
	if row := (*rows.Error)(nil); !errors.As(err, &row) || len(r.count) != 0 {
		t.Errorf("runs %v, %v", r.count, err)
	}
	if _, err := os.Stat(c.Base.Output.Out); err == nil {
		t.Error("the folder was made")
	}
}

func TestCompareOnALanguageModelsClassifier(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	c := tinyComparison(t, "logreg", "forest", "full", "last", "lora", "prompt", "llama-adapter-v2")
	raw, err := os.ReadFile(c.Base.Data.Data)
	if err != nil {
		t.Fatal(err)
	}
	// The model knows 48 tokens: those that tell the classes apart stay as they are.
	small := regexp.MustCompile(`\b[2-6][0-9]\b`).ReplaceAllStringFunc(string(raw), func(id string) string { return "2" + id[1:] })
	if err := os.WriteFile(c.Base.Data.Data, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Base.Model.Path, c.Base.Loop.MaxSteps = modeltest.Testdata(t, "llama/seqcls"), 4
	results, err := run.Compare(context.Background(), c, run.Refuse, train.Quiet{}, (&runs{}).each)
	if err != nil || len(results) != len(c.Methods) {
		t.Fatalf("%d results of %d methods, %v", len(results), len(c.Methods), err)
	}
	for _, r := range results {
		if !(r.TestAcc >= 0 && r.TestAcc <= 1) || r.Total == 0 {
			t.Errorf("%+v", r)
		}
	}
}
