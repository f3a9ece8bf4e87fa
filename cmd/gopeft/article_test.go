package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/peft"
	"gopeft/train"
	"gopeft/train/run"
)

func TestArticleConfigsAreRuns(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(modeltest.Root(t), "scripts", "article", "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no configs: %v", err)
	}
	want := []string{"logreg", "forest", "last", "full", "prompt", "prefix", "houlsby", "llama-adapter"}
	var single []string
	for _, path := range paths {
		if strings.HasPrefix(filepath.Base(path), "compare") {
			cmp, err := run.ReadComparison(path, run.Defaults())
			if err != nil {
				t.Error(err)
				continue
			}
			if !slices.Equal(cmp.Methods, want) {
				t.Errorf("%s compares %v", path, cmp.Methods)
			}
			for _, m := range cmp.Methods {
				if _, err := cmp.Config(m); err != nil {
					t.Errorf("%s: %s: %v", path, m, err)
				}
			}
			continue
		}
		cfg, err := run.ReadConfig(path, run.Defaults())
		if err != nil {
			t.Error(err)
			continue
		}
		if err := cfg.Check(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		name := cfg.Model.Method
		if name == train.Features {
			name = cfg.Model.Classifier
		}
		single = append(single, name)
	}
	slices.Sort(single)
	slices.Sort(want)
	if diff := cmp.Diff(want, single); diff != "" {
		t.Errorf("configs of one approach each: %s", diff)
	}
}

func TestArticleCountsOfAdapters(t *testing.T) {
	cfg, err := run.ReadConfig(filepath.Join(modeltest.Root(t), "scripts", "article", "adapters.yaml"), run.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	distilbert := model.Info{Family: "distilbert", Vocab: 30522, Hidden: 768, Layers: 6, Heads: 12, KVHeads: 12, HeadDim: 64, FFN: 3072, MaxPositions: 512}
	if n, err := peft.Count(cfg.Model.Method, cfg.Peft, distilbert); err != nil || n != 599_424 {
		t.Errorf("%d parameters, %v, want 599,424", n, err)
	}
}
