package xgboost_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/train/classic/xgboost"
)

// open opens the library, or skips the test.
func open(t *testing.T) *xgboost.Library {
	t.Helper()
	lib, err := xgboost.Open()
	if err != nil {
		t.Skip("SKIPPED: ", err)
	}
	return lib
}

func TestTheSetUpFetchesTheVersionThatIsLookedFor(t *testing.T) {
	lock, err := os.ReadFile("../../../scripts/setup/xgboost.lock")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(lock), "\nxgboost-cpu=="+xgboost.Pinned+" ") {
		t.Errorf("xgboost.lock does not pin %s:\n%s", xgboost.Pinned, lock)
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	home, own := filepath.Join(dir, "home"), filepath.Join(dir, "site", "xgboost", "lib", "libxgboost.so")
	fetched := filepath.Join(home, "xgboost-"+xgboost.Pinned, "xgboost", "lib", "libxgboost.so")
	t.Setenv("GOPEFT_HOME", home)
	t.Setenv("XGBOOST", "")
	if _, err := xgboost.Find(); err == nil || !strings.Contains(err.Error(), "`make xgboost` fetches it") || !strings.Contains(err.Error(), home) {
		t.Errorf("where there is none: %v", err)
	}
	for _, path := range []string{fetched, own} {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("no library"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ own, want string }{
		{"", fetched}, {own, own}, {filepath.Dir(own), own}, {filepath.Join(dir, "site", "xgboost"), own}, {filepath.Join(dir, "site"), own},
	} {
		t.Setenv("XGBOOST", test.own)
		if got, err := xgboost.Find(); got != test.want || err != nil {
			t.Errorf("XGBOOST=%s: %s, %v, want %s", test.own, got, err, test.want)
		}
	}
	t.Setenv("XGBOOST", home)
	if _, err := xgboost.Find(); err == nil || !strings.Contains(err.Error(), "XGBOOST="+home) {
		t.Errorf("a folder without it: %v", err)
	}
}

func TestALibraryThatIsNotXGBoostsIsRefused(t *testing.T) {
	lib := open(t)
	text := filepath.Join(t.TempDir(), "libxgboost.so")
	if err := os.WriteFile(text, []byte("no library"), 0o666); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XGBOOST", text)
	if _, err := xgboost.Open(); err == nil || strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "open XGBoost's library: "+text) {
		t.Errorf("a file that is no library: %v", err)
	}
	runtimes, err := filepath.Glob(filepath.Join(filepath.Dir(lib.Path), "..", "..", "xgboost_cpu.libs", "libgomp*"))
	if err != nil || len(runtimes) == 0 {
		t.Skip("SKIPPED: no OpenMP runtime beside ", lib.Path)
	}
	t.Setenv("XGBOOST", runtimes[0])
	if _, err := xgboost.Open(); err == nil || !strings.Contains(err.Error(), "there is no function XGBoostVersion in it") {
		t.Error(err)
	}
}

// rows are labels that follow the first column.
func rows(n int) xgboost.Data {
	d := xgboost.Data{Rows: n, Cols: 3, Values: make([]float32, 3*n), Labels: make([]float32, n)}
	for i := range n {
		d.Values[3*i], d.Values[3*i+1], d.Values[3*i+2] = float32(i*37%101), float32(i*53%97), float32(i)
		if d.Values[3*i] > 50 {
			d.Labels[i] = 1
		}
	}
	return d
}

var binary = []xgboost.Param{{Name: "objective", Value: "binary:logistic"}}

func TestErrorsAreOneLine(t *testing.T) {
	lib := open(t)
	_, err := lib.Train(t.Context(), rows(20), xgboost.Settings{Params: []xgboost.Param{{Name: "objective", Value: "nothing:such"}}, Rounds: 1, Threads: 1})
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "XGBoost: train: Unknown objective function: `nothing:such`") ||
		strings.Contains(err.Error(), "Stack trace") {
		t.Errorf("training: %v", err)
	}
	_, err = lib.Load([]byte("no model"))
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "XGBoost: read the model: ") {
		t.Errorf("loading: %v", err)
	}
	_, err = lib.Train(t.Context(), xgboost.Data{Rows: 3, Cols: 2, Values: make([]float32, 5)}, xgboost.Settings{Rounds: 1, Threads: 1})
	if err == nil || !strings.Contains(err.Error(), "5 values and 0 labels are no 3 × 2 matrix") {
		t.Errorf("data of another size: %v", err)
	}
}

func TestMessagesComeBack(t *testing.T) {
	lib := open(t)
	trained, err := lib.Train(t.Context(), rows(20), xgboost.Settings{Rounds: 1, Threads: 1,
		Params: append([]xgboost.Param{{Name: "validate_parameters", Value: "true"}, {Name: "no_such_parameter", Value: "7"}}, binary...)})
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(trained.Messages, "|"); !strings.Contains(all, `Parameters: { "no_such_parameter" } are not used.`) || strings.Contains(all, "/") {
		t.Errorf("messages %q", all)
	}
}

func TestACancelledContextEndsTrainingBetweenRounds(t *testing.T) {
	lib := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	last := 0
	_, err := lib.Train(ctx, rows(100), xgboost.Settings{Params: binary, Rounds: 1000, Threads: 1, Progress: func(done, total int) {
		if last = done; done == 3 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || last != 3 {
		t.Errorf("%v after %d rounds, want it cancelled after 3", err, last)
	}
}

func TestEarlyStop(t *testing.T) {
	lib := open(t)
	validation := rows(30)
	for i := range validation.Labels { // what is learned makes these worse from the first round on
		validation.Labels[i] = 1 - validation.Labels[i]
	}
	trained, err := lib.Train(t.Context(), rows(100), xgboost.Settings{Params: binary, Rounds: 100, Threads: 1, Validation: &validation, EarlyStop: 4})
	if err != nil {
		t.Fatal(err)
	}
	if trained.Best != 0 || trained.Rounds != 5 || !(trained.Score > 0.69) {
		t.Errorf("best round %d of %d with %v, want round 0 of 5", trained.Best, trained.Rounds, trained.Score)
	}
}
