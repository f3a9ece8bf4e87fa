package run_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/train"
	"gopeft/train/run"
	"gopeft/train/run/provenance"
)

var bothParts = provenance.Parts{Read: true, Written: true}

// verified compares a run with its record and lists what is found, as "kind name".
func verified(t *testing.T, dir string, parts provenance.Parts) (provenance.Report, []string) {
	t.Helper()
	r, err := provenance.Verify(context.Background(), dir, parts, train.Quiet{})
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range r.Findings {
		found = append(found, f.Kind+" "+f.Name)
	}
	return r, found
}

func TestVerifyTellsChangedMissingAndAdded(t *testing.T) {
	cfg := ownModel(t, "lora")
	cfg.Version = "1.2.3 (test)"
	if err := os.WriteFile(filepath.Join(cfg.Model.Path, "special_tokens_map.json"), []byte(`{"cls_token": "[CLS]"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, cfg, run.Refuse)
	out := cfg.Output.Out
	r, found := verified(t, out, bothParts)
	if len(found) > 0 || !r.Recorded || !r.Finished || r.Checked < 15 || len(r.Notes) > 0 || r.Program.Gopeft != "1.2.3 (test)" || r.Program.Libtorch == "" {
		t.Fatalf("after the run: %v, %+v", found, r)
	}
	record, err := provenance.Read(out)
	if err != nil || record.Settings["method"] != "lora" || record.Settings["automatic"] == nil {
		t.Errorf("settings %v, %v", record.Settings, err)
	}
	at := func(name string) string { return filepath.Join(out, name) }
	write := func(path string) func() {
		return func() {
			if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	aside := func(path string) (do func()) {
		return func() {
			if err := os.Rename(path, path+".aside"); err != nil {
				t.Fatal(err)
			}
		}
	}
	back := func(path string) func() {
		return func() {
			if err := os.Rename(path+".aside", path); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(path string) func() {
		return func() {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	flipped := func(path string, bit int) (do, undo func()) {
		var restore func()
		return func() { restore = flip(t, path, bit, true) }, func() { restore() }
	}
	type change struct {
		want     string // and no more
		written  bool   // it is of what the run has written
		do, undo func()
	}
	var changes []change
	for name, c := range map[string]struct {
		path    string
		bit     int
		written bool
	}{
		"data/rows.jsonl":                {cfg.Data.Data, 77, false},
		"model/model.safetensors":        {filepath.Join(cfg.Model.Path, "model.safetensors"), 123456, false},
		"model/config.json":              {filepath.Join(cfg.Model.Path, "config.json"), 99, false},
		"best/adapter_model.safetensors": {at("best/adapter_model.safetensors"), 8000, true},
		"last/state/state.safetensors":   {at("last/state/state.safetensors"), 8001, true},
		"last/state/state.json":          {at("last/state/state.json"), 31, true},
		"best/state/weights.safetensors": {at("best/state/weights.safetensors"), 8002, true},
		"metrics.csv":                    {at("metrics.csv"), 801, true},
		"config.yaml":                    {at("config.yaml"), 7, true},
		"last/adapter_config.json":       {at("last/adapter_config.json"), 9, true},
		"curves.png":                     {at("curves.png"), 1, true},
		"summary.json":                   {at("summary.json"), 1, true},
		"model/special_tokens_map.json":  {filepath.Join(cfg.Model.Path, "special_tokens_map.json"), 9, false},
		"best/state/checksums.json":      {at("best/state/checksums.json"), 20, true},
	} {
		do, undo := flipped(c.path, c.bit)
		changes = append(changes, change{"changed " + name, c.written, do, undo})
	}
	for name, path := range map[string]string{"best/gopeft.yaml": at("best/gopeft.yaml"), "last/state/state.json": at("last/state/state.json"), "config.yaml": at("config.yaml")} {
		changes = append(changes, change{"missing " + name, true, aside(path), back(path)})
	}
	for i := range changes { // what is set aside in the run's folder is a file more there
		if strings.HasPrefix(changes[i].want, "missing") {
			changes[i].want += ", added " + strings.TrimPrefix(changes[i].want, "missing ") + ".aside"
		}
	}
	for name, path := range map[string]string{"data/rows.jsonl": cfg.Data.Data, "model/model.safetensors": filepath.Join(cfg.Model.Path, "model.safetensors")} {
		changes = append(changes, change{"missing " + name, false, aside(path), back(path)})
	}
	changes = append(changes,
		change{"added model/tokenizer.json", false, write(filepath.Join(cfg.Model.Path, "tokenizer.json")), remove(filepath.Join(cfg.Model.Path, "tokenizer.json"))},
		change{"added best/notes.txt", true, write(at("best/notes.txt")), remove(at("best/notes.txt"))},
		change{"added notes.txt", true, write(at("notes.txt")), remove(at("notes.txt"))})
	for _, c := range changes {
		c.do()
		_, found := verified(t, out, bothParts)
		if got := strings.Join(found, ", "); got != c.want {
			t.Errorf("found %q, want %q", got, c.want)
		}
		_, found = verified(t, out, provenance.Parts{Written: true})
		if (len(found) > 0) != c.written {
			t.Errorf("of what was written: %q, want %q: %t", found, c.want, c.written)
		}
		c.undo()
	}
	if _, found := verified(t, out, bothParts); len(found) > 0 {
		t.Errorf("with all as it was: %v", found)
	}

	// A checkpoint's folder is compared alone.
	flip(t, at("best/adapter_model.safetensors"), 8000, true)
	if _, found := verified(t, at("best"), bothParts); !slices.Equal(found, []string{"changed best/adapter_model.safetensors"}) {
		t.Errorf("best: %v", found)
	}
	if _, found := verified(t, at("last"), bothParts); len(found) > 0 {
		t.Errorf("last: %v", found)
	}
	if r, _ := verified(t, cfg.Model.Path, bothParts); r.Recorded {
		t.Error("a model has a record")
	}
}

// An interrupted run says that it has not finished; its state is compared all the same. Once resumed it is as any other.
func TestVerifyOfAnInterruptedRun(t *testing.T) {
	cfg := ownModel(t, "ia3")
	interrupt(t, cfg, "train", 13)
	out := cfg.Output.Out
	r, found := verified(t, out, bothParts)
	if len(found) > 0 || r.Finished || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "has not finished") {
		t.Fatalf("interrupted: %v, %+v", found, r)
	}
	for _, name := range []string{"last/state/state.safetensors", "last/state/state.json"} {
		restore := flip(t, filepath.Join(out, name), 8*40+2, true)
		if _, found := verified(t, out, bothParts); !slices.Equal(found, []string{"changed " + name}) {
			t.Errorf("found %v, want %s", found, name)
		}
		restore()
	}
	restore := flip(t, cfg.Data.Data, 5, true)
	if _, found := verified(t, out, bothParts); !slices.Equal(found, []string{"changed data/rows.jsonl"}) {
		t.Errorf("found %v", found)
	}
	restore()
	mustRun(t, cfg, run.Resume)
	if r, found := verified(t, out, bothParts); len(found) > 0 || !r.Finished {
		t.Errorf("resumed: %v, %+v", found, r)
	}
	// A resumed run that fails before it has changed anything leaves the record.
	restore = flip(t, filepath.Join(out, "last/state/state.json"), 8*40+2, true)
	if _, err := run.Run(context.Background(), cfg, run.Resume, train.Quiet{}); err == nil {
		t.Error("a damaged state is resumed")
	}
	restore()
	if r, found := verified(t, out, bothParts); len(found) > 0 || !r.Finished {
		t.Errorf("after a resume that failed: %v, %+v", found, r)
	}
	mustRun(t, cfg, run.Resume)
	// --overwrite leaves nothing of the old record.
	cfg.Loop.Epochs = 1
	if _, err := run.Run(context.Background(), cfg, run.Overwrite, train.Quiet{}); err != nil {
		t.Fatal(err)
	}
	if r, found := verified(t, out, bothParts); len(found) > 0 || !r.Finished {
		t.Errorf("overwritten: %v, %+v", found, r)
	}
}

// A run that fails after its folder is there is begun anew in it, as ever.
func TestARecordOfARunThatFailedIsNoHindrance(t *testing.T) {
	cfg := tinyConfig(t, "lora")
	good := cfg.Data.Data
	cfg.Data.Data = filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(cfg.Data.Data, []byte("{\"text\": 1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{}); err == nil {
		t.Fatal("such data is accepted")
	}
	cfg.Data.Data = good
	mustRun(t, cfg, run.Refuse)
	if r, found := verified(t, cfg.Output.Out, bothParts); len(found) > 0 || !r.Finished {
		t.Errorf("%v, %+v", found, r)
	}
}

func TestVerifyOfFeaturesAndAdapterInit(t *testing.T) {
	cfg := tinyConfig(t, train.Features)
	mustRun(t, cfg, run.Refuse)
	r, found := verified(t, cfg.Output.Out, bothParts)
	if len(found) > 0 || !r.Finished {
		t.Errorf("%v, %+v", found, r)
	}
	flip(t, filepath.Join(cfg.Output.Out, "classifier.safetensors"), 8*200, true)
	if _, found := verified(t, cfg.Output.Out, bothParts); !slices.Equal(found, []string{"changed classifier.safetensors"}) {
		t.Errorf("%v", found)
	}

	first := tinyConfig(t, "lora")
	first.Loop.Epochs = 1
	mustRun(t, first, run.Refuse)
	second := tinyConfig(t, "lora")
	second.Data.Data, second.Model.AdapterInit, second.Loop.Epochs = first.Data.Data, filepath.Join(first.Output.Out, "best"), 1
	mustRun(t, second, run.Refuse)
	flip(t, filepath.Join(second.Model.AdapterInit, "adapter_model.safetensors"), 8000, true)
	if _, found := verified(t, second.Output.Out, bothParts); !slices.Equal(found, []string{"changed adapter-init/adapter_model.safetensors"}) {
		t.Errorf("%v", found)
	}
}

// Of several processes the first writes the record, others' are not even there.
func TestOneProcessRecords(t *testing.T) {
	cfg := tinyConfig(t, "lora")
	inRanks(t, cfg, 2, rankPlan{})
	r, found := verified(t, cfg.Output.Out, bothParts)
	if len(found) > 0 || !r.Finished || r.Program.Gopeft != "rank 0" {
		t.Errorf("%v, %+v", found, r)
	}
}

func TestADamagedRecordIsAnError(t *testing.T) {
	cfg := tinyConfig(t, "lora")
	cfg.Loop.Epochs = 1
	mustRun(t, cfg, run.Refuse)
	path := filepath.Join(cfg.Output.Out, provenance.FileName)
	if err := os.WriteFile(path, []byte(`{"read": 7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := provenance.Verify(context.Background(), cfg.Output.Out, bothParts, train.Quiet{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := errors.Join(os.Remove(path), nil); err != nil {
		t.Fatal(err)
	}
	if r, err := provenance.Verify(ctx, cfg.Output.Out, bothParts, train.Quiet{}); err != nil || r.Recorded {
		t.Error(fmt.Sprint(r), err)
	}
}
