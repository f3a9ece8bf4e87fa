package run_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/peft"
	"gopeft/train"
	"gopeft/train/infer"
	"gopeft/train/run"
)

// readAs are the settings that a run has written, and the family that its adapter notes.
func readAs(t *testing.T, cfg run.Config) (setting, noted string) {
	t.Helper()
	was, err := run.ReadWritten(filepath.Join(cfg.Output.Out, "config.yaml"), run.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	info, err := peft.Probe(filepath.Join(cfg.Output.Out, "best"))
	if err != nil {
		t.Fatal(err)
	}
	return was.Model.ReadAs, info.Family
}

// A run on a BERT says how it has read it, goes on so, and what it trained is used so.
func TestRunsKeepTheirReadingOfABERT(t *testing.T) {
	for _, c := range []struct{ asked, want string }{{"", "bert"}, {"bert", "bert"}, {"distilbert", "distilbert"}} {
		cfg := bertConfig(t, "lora")
		cfg.Model.ReadAs, cfg.Output.NoTrainEval = c.asked, true
		interrupt(t, cfg, "train", 3)
		mustRun(t, cfg, run.Resume)
		if setting, noted := readAs(t, cfg); setting != c.want || noted != c.want {
			t.Errorf("asked for %q: the settings say %q, the adapter %q", c.asked, setting, noted)
		}

		// An adapter says by itself what its base is read as.
		on := bertConfig(t, "lora")
		on.Model.AdapterInit, on.Loop.MaxSteps, on.Output.NoTrainEval = filepath.Join(cfg.Output.Out, "best"), 1, true
		mustRun(t, on, run.Refuse)
		if setting, noted := readAs(t, on); setting != c.want || noted != c.want {
			t.Errorf("gone on from a %s: the settings say %q, the adapter %q", c.want, setting, noted)
		}
		src, err := infer.Resolve(on.Model.Path, on.Model.AdapterInit)
		if err != nil {
			t.Fatal(err)
		}
		bindingstest.Do(t, func(s *bindings.Scope) error {
			p, err := infer.OpenPredictor(s, src, infer.PredictorOptions{Device: "cpu", Threads: 1, Batch: 8})
			if err != nil {
				return err
			}
			_, err = p.Predict(context.Background(), s, [][]int64{{5, 6, 7}})
			return errors.Join(err, p.Close())
		})
	}
	cfg := bertConfig(t, "lora")
	cfg.Model.ReadAs = "elman"
	usage := (*train.UsageError)(nil)
	if _, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{}); !errors.As(err, &usage) || !strings.Contains(err.Error(), "elman") {
		t.Errorf("--read-as elman: %v", err)
	}
}

// What there is no choice of has no setting, and the settings of old runs mean a DistilBERT.
func TestReadingsOfOldSettings(t *testing.T) {
	cfg := tinyConfig(t, "lora")
	cfg.Loop.MaxSteps, cfg.Output.NoTrainEval = 1, true
	mustRun(t, cfg, run.Refuse)
	if setting, _ := readAs(t, cfg); setting != "" {
		t.Errorf("a DistilBERT's run says read-as %q", setting)
	}
	for _, name := range []string{"distilbert-lora", "features"} {
		was, err := run.ReadWritten(modeltest.Testdata(t, "runs/"+name+"/config.yaml"), run.Defaults())
		if err != nil || was.Model.ReadAs != model.FirstReading || slices.Contains(was.Automatic, "read-as") {
			t.Errorf("%s: read as %q, %v", name, was.Model.ReadAs, err)
		}
	}
}
