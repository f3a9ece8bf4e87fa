package report

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func results() []Result {
	nan := math.NaN()
	return []Result{
		{"logreg", 0.93, 0.86, 0.8612345, 769, 66363649, 12.346, 812.5, 640.2, nil, nil},
		{"forest", 1, 0.82, 0.824, 0, 66362880, 9.5, nan, 655, nil, nil},
		{"full", 0.99, 0.91, 0.914, 66955010, 66955010, 1234.5, 3.6, 2578, nil, nil},
		{"llama|ada", nan, nan, nan, 605954, 66955010, nan, nan, nan, nil, nil},
	}
}

func TestCompareCSV(t *testing.T) {
	path := filepath.Join(t.TempDir(), "compare.csv")
	if err := WriteCompareCSV(path, results()); err != nil {
		t.Fatal(err)
	}
	want := `method,train_acc,val_acc,test_acc,trainable,total,seconds,samples_per_s,peak_rss_mb
logreg,0.93,0.86,0.861235,769,66363649,12.346,812.5,640.2
forest,1,0.82,0.824,0,66362880,9.5,,655
full,0.99,0.91,0.914,66955010,66955010,1234.5,3.6,2578
llama|ada,,,,605954,66955010,,,
`
	if diff := cmp.Diff(want, read(t, path)); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
}

// Accuracies that are means over draws come with their spread: beside them for people, in columns of their own for programs.
func TestSpreads(t *testing.T) {
	asked := Result{Method: "in-context", TrainAcc: math.NaN(), ValAcc: 0.6, TestAcc: 0.57, Total: 10, Seconds: 1, SamplesPerS: 2, PeakRSSMB: 3,
		Spread: &Splits{Missing(), 0.05, 0.02}}
	all := append(results()[:1], asked)
	path := filepath.Join(t.TempDir(), "compare.csv")
	if err := WriteCompareCSV(path, all); err != nil {
		t.Fatal(err)
	}
	want := `method,train_acc,val_acc,test_acc,trainable,total,seconds,samples_per_s,peak_rss_mb,val_acc_spread,test_acc_spread
logreg,0.93,0.86,0.861235,769,66363649,12.346,812.5,640.2,,
in-context,,0.6,0.57,0,10,1,2,3,0.05,0.02
`
	if diff := cmp.Diff(want, read(t, path)); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	var b strings.Builder
	if err := WriteTable(&b, all); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(b.String(), "\n"); !strings.Contains(lines[2], "–  0.6000 ± 0.0500  0.5700 ± 0.0200 ") || !strings.Contains(lines[1], "0.9300           0.8600           0.8612 ") {
		t.Errorf("table:\n%s", b.String())
	}
	raw, err := json.Marshal(all)
	if err != nil || strings.Count(string(raw), "spread") != 2 || !strings.Contains(string(raw), `"val_acc_spread":0.05,"test_acc_spread":0.02`) {
		t.Errorf("JSON: %s, %v", raw, err)
	}
}

func TestCompareMarkdown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "compare.md")
	if err := WriteCompareMarkdown(path, "Seed 1.\n", results()); err != nil {
		t.Fatal(err)
	}
	want := `Seed 1.

| method     | train acc | val acc | test acc |  trainable |      total | seconds | samples/s | peak RSS MB |
|------------|----------:|--------:|---------:|-----------:|-----------:|--------:|----------:|------------:|
| logreg     |    0.9300 |  0.8600 |   0.8612 |        769 | 66,363,649 |    12.3 |       812 |         640 |
| forest     |    1.0000 |  0.8200 |   0.8240 |          0 | 66,362,880 |    9.50 |         – |         655 |
| full       |    0.9900 |  0.9100 |   0.9140 | 66,955,010 | 66,955,010 |    1234 |      3.60 |        2578 |
| llama\|ada |         – |       – |        – |    605,954 | 66,955,010 |       – |         – |           – |

| conventional approach                   | training accuracy | validation accuracy | test accuracy |
|-----------------------------------------|------------------:|--------------------:|--------------:|
| feature-based, with logistic regression |            93.0 % |              86.0 % |        86.1 % |
| feature-based, with random forest       |           100.0 % |              82.0 % |        82.4 % |
| finetuning II, updating all layers      |            99.0 % |              91.0 % |        91.4 % |
`
	if diff := cmp.Diff(want, read(t, path)); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	if err := WriteTable(&b, results()[:2]); err != nil {
		t.Fatal(err)
	}
	want := `method  train acc  val acc  test acc  trainable       total  seconds  samples/s  peak RSS MB
logreg     0.9300   0.8600    0.8612        769  66,363,649     12.3        812          640
forest     1.0000   0.8200    0.8240          0  66,362,880     9.50          –          655
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 66955010: "66,955,010", -1234: "-1,234"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// sameNumber takes two missing numbers for equal.
var sameNumber = cmp.Comparer(func(a, b Number) bool {
	return a == b || math.IsNaN(float64(a)) && math.IsNaN(float64(b))
})

func TestSummaryRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "summary.json")
	want := Summary{
		Method: "lora", Model: "distilbert-base-uncased <tiny>",
		Params:   Params{Trainable: 739586, Frozen: 66362880, Total: 67102466},
		Accuracy: Splits{0.95, 0.9, 0.89}, Loss: MissingSplits(),
		Seconds: 12.5, SamplesPerS: 30, PeakRSSMB: 900, PeakCUDAMB: Missing(), BestEpoch: 2,
	}
	if err := WriteSummary(path, want); err != nil {
		t.Fatal(err)
	}
	text := `{
  "method": "lora",
  "model": "distilbert-base-uncased <tiny>",
  "params": {
    "trainable": 739586,
    "frozen": 66362880,
    "total": 67102466
  },
  "accuracy": {
    "train": 0.95,
    "val": 0.9,
    "test": 0.89
  },
  "loss": {
    "train": null,
    "val": null,
    "test": null
  },
  "seconds": 12.5,
  "samples_per_s": 30,
  "peak_rss_mb": 900,
  "peak_cuda_mb": null,
  "best_epoch": 2
}
`
	if diff := cmp.Diff(text, read(t, path)); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
	got, err := ReadSummary(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, sameNumber); diff != "" {
		t.Errorf("summary (-want +got):\n%s", diff)
	}
	r := got.Result()
	if r.Method != "lora" || r.TestAcc != 0.89 || r.Trainable != 739586 || r.Seconds != 12.5 {
		t.Errorf("result %+v", r)
	}
}

func TestSummaryErrorsNameTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "summary.json")
	if err := os.WriteFile(path, []byte(`{"seconds": "fast"}`), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSummary(path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "string") {
		t.Errorf("error %v", err)
	}
}

func TestMissingFieldsOfASummaryAreNaN(t *testing.T) {
	path := filepath.Join(t.TempDir(), "summary.json")
	if err := os.WriteFile(path, []byte(`{"method": "lora"}`), 0o666); err != nil {
		t.Fatal(err)
	}
	s, err := ReadSummary(path)
	if err != nil || !math.IsNaN(float64(s.Seconds)) || !math.IsNaN(float64(s.Accuracy.Test)) {
		t.Errorf("summary %+v, error %v", s, err)
	}
}

func TestResultsInJSON(t *testing.T) {
	nan := math.NaN()
	raw, err := json.Marshal(Result{Method: "lora", TrainAcc: nan, ValAcc: 0.5, TestAcc: nan, Trainable: 3, Total: 9, Seconds: 1.5, SamplesPerS: nan, PeakRSSMB: 7})
	want := `{"method":"lora","train_acc":null,"val_acc":0.5,"test_acc":null,"trainable":3,"total":9,"seconds":1.5,"samples_per_s":null,"peak_rss_mb":7,"train_loss":null,"val_loss":null,"test_loss":null}`
	if err != nil || string(raw) != want {
		t.Errorf("%s, %v", raw, err)
	}
}

func TestLanguageModelsAreComparedByLoss(t *testing.T) {
	s := Summary{Method: "lora", Accuracy: MissingSplits(), Loss: Splits{Train: Missing(), Val: 1.25, Test: 1.5}, Seconds: 2}
	results := []Result{s.Result()}
	path := filepath.Join(t.TempDir(), "compare.csv")
	if err := WriteCompareCSV(path, results); err != nil {
		t.Fatal(err)
	}
	want := "method,train_loss,val_loss,test_loss,trainable,total,seconds,samples_per_s,peak_rss_mb\nlora,,1.25,1.5,0,0,2,0,0\n"
	if diff := cmp.Diff(want, read(t, path)); diff != "" {
		t.Errorf("csv (-want +got):\n%s", diff)
	}
	raw, err := json.Marshal(results[0])
	if err != nil || !strings.Contains(string(raw), `"val_acc":null`) || !strings.Contains(string(raw), `"val_loss":1.25,"test_loss":1.5`) {
		t.Errorf("%s, %v", raw, err)
	}
	if err := PlotCompare(filepath.Join(t.TempDir(), "compare.png"), "", results); err != nil {
		t.Error(err)
	}
}
