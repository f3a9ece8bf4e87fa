package run_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"gopeft/bindings"
	"gopeft/train"
	"gopeft/train/classic"
	"gopeft/train/classic/xgboost"
	"gopeft/train/infer"
	"gopeft/train/run"
)

// needXGBoost skips a test where XGBoost's library is not, and keeps it in sight of one that sets GOPEFT_HOME.
func needXGBoost(t *testing.T) {
	t.Helper()
	path, err := xgboost.Find()
	if err != nil {
		t.Skip("SKIPPED: ", err)
	}
	t.Setenv("XGBOOST", path)
}

func boostedConfig(t *testing.T) run.Config {
	cfg := tinyConfig(t, train.Features)
	cfg.Model.Classifier = classic.KindBoosted
	return cfg
}

func TestRunOfBoostedTrees(t *testing.T) {
	needXGBoost(t)
	t.Setenv("GOPEFT_HOME", t.TempDir())
	cfg := boostedConfig(t)
	sum := mustRun(t, cfg, run.Refuse)
	if sum.Method != "features+xgboost" || sum.Params.Trainable != 0 || sum.Accuracy.Train < 0.99 {
		t.Errorf("%+v", sum)
	}
	src, err := infer.Resolve(cfg.Output.Out, "")
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(cfg.Output.Out, "classifier.json"); src.Classifier != want {
		t.Errorf("the classifier is %s, want %s", src.Classifier, want)
	}
	saved, err := classic.Load(src.Classifier)
	if err != nil {
		t.Fatal(err)
	}
	defer saved.Model.Close()
	if !slices.Equal(saved.Labels, []string{"0", "1", "2"}) || saved.Meta["pool"] != "cls" {
		t.Errorf("labels %q, meta %v", saved.Labels, saved.Meta)
	}
	ids := [][]int64{{20, 10, 33, 41}, {21, 11, 34, 42, 50}, {22, 12, 35, 43}}
	base := bindings.Live()
	if err := bindings.Do(context.Background(), func(s *bindings.Scope) error {
		p, err := infer.OpenPredictor(s, src, infer.PredictorOptions{Device: "cpu", Threads: 1, Batch: 8})
		if err != nil {
			return err
		}
		defer p.Close()
		all, err := p.Predict(context.Background(), s, ids)
		if err != nil {
			return err
		}
		precision, err := train.InferencePrecision("none", bindings.CPU)
		if err != nil {
			return err
		}
		x, err := train.ComputeFeatures(context.Background(), s, p.Model(), ids, 0, train.FeatureOptions{Pool: "cls", Batch: 8, On: train.Machine{Device: bindings.CPU, Precision: precision}})
		if err != nil {
			return err
		}
		want, err := saved.Model.PredictProba(context.Background(), x)
		if err != nil {
			return err
		}
		for i, got := range all {
			if !slices.Equal(got.Probs, want.Row(i)) || got.Logits != nil || got.Labels[got.Label] != saved.Labels[got.Label] {
				t.Errorf("row %d: %+v, want %v", i, got, want.Row(i))
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n := bindings.Live() - base; n != 0 {
		t.Errorf("%d tensors left alive", n)
	}

	// Another classifier's run takes its place, and leaves nothing of it.
	cfg.Model.Classifier = classic.KindLogistic
	mustRun(t, cfg, run.Overwrite)
	if path := classic.FileIn(cfg.Output.Out); filepath.Base(path) != "classifier.safetensors" {
		t.Errorf("the new run's classifier is %s", path)
	}
	if _, err := os.Stat(filepath.Join(cfg.Output.Out, "classifier.json")); err == nil {
		t.Error("the old run's classifier is still there")
	}
}

func TestBoostedTreesStopEarly(t *testing.T) {
	needXGBoost(t)
	t.Setenv("GOPEFT_HOME", t.TempDir())
	cfg := boostedConfig(t)
	cfg.Loop.EarlyStop = 2
	heard := &notes{}
	if _, err := run.Run(context.Background(), cfg, run.Refuse, heard); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(heard.text, "is the best on the validation data") {
		t.Errorf("notes %q", heard.text)
	}
	saved, err := classic.Load(classic.FileIn(cfg.Output.Out))
	if err != nil {
		t.Fatal(err)
	}
	defer saved.Model.Close()
	if n := saved.Model.(*classic.Boosted).Rounds(); n < 1 || n > 98 {
		t.Errorf("%d rounds predict", n)
	}

	cfg.Data.Train, cfg.Data.Data, cfg.Data.Split = cfg.Data.Data, "", nil
	if _, err := run.Run(context.Background(), cfg, run.Overwrite, train.Quiet{}); err == nil || !strings.Contains(err.Error(), "--early-stop needs validation data") {
		t.Errorf("without validation data: %v", err)
	}
}

func TestWithoutXGBoostsLibrary(t *testing.T) {
	t.Setenv("XGBOOST", "")
	t.Setenv("GOPEFT_HOME", t.TempDir())
	cfg := boostedConfig(t)
	_, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{})
	if err == nil || !strings.HasPrefix(err.Error(), "--classifier xgboost: XGBoost's library is not there: `make xgboost` fetches it") || strings.Contains(err.Error(), "\n") {
		t.Errorf("a run: %v", err)
	}
	each := &runs{}
	c := run.Comparison{Base: tinyConfig(t, ""), Methods: []string{"logreg", "xgboost"}}
	if _, err := run.Compare(context.Background(), c, run.Refuse, train.Quiet{}, each.each); err == nil || !strings.Contains(err.Error(), "`make xgboost`") || len(each.count) > 0 {
		t.Errorf("a comparison: %v, after %v", err, each.count)
	}
	methods, note := run.AllMethods("classify", true)
	if slices.Contains(methods, "xgboost") || !slices.Contains(methods, "forest") || !strings.HasPrefix(note, "xgboost is left out: XGBoost's library is not there") {
		t.Errorf("all methods are %q, %q", methods, note)
	}
	if methods, note := run.AllMethods("causal", true); slices.Contains(methods, "forest") || !slices.Contains(methods, "lora") || note != "" {
		t.Errorf("all methods of a language model are %q, %q", methods, note)
	}
}

func TestXGBoostIsAmongAllMethods(t *testing.T) {
	needXGBoost(t)
	if methods, note := run.AllMethods("classify", true); !slices.Equal(methods, run.CompareMethods()) || methods[2] != "xgboost" || note != "" {
		t.Errorf("all methods are %q, %q", methods, note)
	}
	c := tinyComparison(t, "logreg", "xgboost")
	results, err := run.Compare(context.Background(), c, run.Refuse, train.Quiet{}, (&runs{}).each)
	if err != nil || len(results) != 2 || results[1].Method != "xgboost" {
		t.Fatal(results, err)
	}
	table, err := os.ReadFile(filepath.Join(c.Base.Output.Out, "compare.csv"))
	if err != nil || !bytes.Contains(table, []byte("\nxgboost,")) {
		t.Errorf("%v: %s", err, table)
	}
}

// Both libraries compute with OpenMP, each with a runtime of its own.
func TestXGBoostLeavesLibtorchAsItIs(t *testing.T) {
	needXGBoost(t)
	ctx := context.Background()
	x, y := classic.NewMatrix(600, 32), make([]int, 600)
	for i := range x.Data {
		x.Data[i] = float32(i*7919%1009) / 1009
	}
	for r := range y {
		if x.Row(r)[3]+x.Row(r)[7] > 1 {
			y[r] = 1
		}
	}
	boost := func(threads int) []float32 {
		b, err := classic.FitBoosted(ctx, x, y, 2, classic.BoostOptions{Rounds: 20, Workers: threads})
		if err != nil {
			t.Error(err)
			return nil
		}
		defer b.Close()
		p, err := b.PredictProba(ctx, x)
		if err != nil {
			t.Error(err)
		}
		return p.Data
	}
	if err := bindings.Do(ctx, func(s *bindings.Scope) error {
		was := s.Threads()
		defer s.SetThreads(was)
		s.SetThreads(3)
		s.Seed(5)
		a := s.Normal([]int64{300, 300}, 0, 1, bindings.Float, bindings.CPU)
		compute := func() []float32 { return s.Softmax(s.MatMul(a, s.MatMul(a, a)), -1).Float32s() }
		before := compute()
		alone := boost(2)
		for _, n := range []int{1, 2, 5} {
			boost(n)
			if got := s.Threads(); got != 3 {
				t.Errorf("after %d threads of XGBoost's libtorch has %d, had 3", n, got)
			}
			if !slices.Equal(compute(), before) {
				t.Errorf("after %d threads of XGBoost's libtorch gives other bits", n)
			}
		}
		var beside sync.WaitGroup
		beside.Go(func() {
			if !slices.Equal(boost(2), alone) {
				t.Error("beside libtorch XGBoost gives other bits")
			}
		})
		for range 20 {
			if !slices.Equal(compute(), before) {
				t.Error("beside XGBoost libtorch gives other bits")
			}
		}
		beside.Wait()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(maps, []byte("libxgboost.so")) || !bytes.Contains(maps, []byte("/torch/lib/libgomp")) && os.Getenv("LIBTORCH") == "" {
		t.Error("the test does not have both libraries in its process")
	}
}
