package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"gopeft/bindings"
	"gopeft/model/hf/files"
	"gopeft/model/modeltest"
	"gopeft/train/classic"
	"gopeft/train/classic/xgboost"
)

// gopeft runs the program and returns its exit code and what it printed.
func gopeft(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	base := bindings.Live()
	var out, errs bytes.Buffer
	code = program(context.Background(), append([]string{"gopeft"}, args...), strings.NewReader(stdin), &out, &errs)
	if n := bindings.Live() - base; n != 0 {
		t.Errorf("gopeft %v left %d tensors alive", args, n)
	}
	return code, out.String(), errs.String()
}

// must runs the program, which has to succeed.
func must(t *testing.T, stdin string, args ...string) (stdout, stderr string) {
	t.Helper()
	code, stdout, stderr := gopeft(t, stdin, args...)
	if code != exitDone {
		t.Fatalf("gopeft %v: exit %d, %s", args, code, stderr)
	}
	return stdout, stderr
}

// tokenRows writes a data set of token ids, which the tiny models without a tokenizer can read.
func tokenRows(t *testing.T, n int) (path, text string) {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	var b strings.Builder
	for range n {
		label := r.IntN(3)
		ids := []int{1, 10 + label}
		for range 3 + r.IntN(8) {
			ids = append(ids, 20+r.IntN(25))
		}
		raw, err := json.Marshal(ids)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "{\"input_ids\": %s, \"label\": \"class-%d\"}\n", raw, label)
	}
	path = filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, b.String()
}

func TestUsageErrorsAreOneLineAndExit2(t *testing.T) {
	tiny := modeltest.Testdata(t, "distilbert/tiny")
	data, _ := tokenRows(t, 30)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"finetune"}, "not a command"},
		{[]string{"train", "--model", tiny, "rows.csv", "--lr", "1"}, `unexpected argument "rows.csv"`},
		{[]string{"train", "--learning-rate", "1"}, "learning-rate"},
		{[]string{"train", "--method", "lora"}, "--model is missing"},
		{[]string{"train", "--model", tiny, "--method", "magic", "--data", data}, "--method"},
		{[]string{"train", "--model", tiny, "--method", "lora", "--data", data, "--split", "a,b"}, "--split"},
		{[]string{"train", "--model", tiny, "--method", "lora", "--data", data, "--overwrite", "--resume"}, "exclude each other"},
		{[]string{"train", "--model", tiny, "--method", "lora", "--data", data, "--amp", "int4"}, "--amp"},
		{[]string{"train", "--model", tiny, "--method", "lora", "--data", data, "--amp", "fp16", "--device", "cpu", "--out", t.TempDir() + "/x"}, "--amp fp16"},
		{[]string{"train", "--model", tiny, "--method", "lora", "--data", data, "--val", data}, "--data"},
		{[]string{"train", "--model", tiny, "--method", "lora", "--data", data, "--split", "0.9,0.3"}, "--split: the ratios sum to 1.2"},
		{[]string{"train", "--model", tiny, "--method", "lora", "--data", data, "--split", "1"}, "--split"},
		{[]string{"train", "--model", tiny, "--method", "lora", "--data", data, "--clip", "NaN"}, "--clip"},
		{[]string{"train", "--model", tiny, "--method", "lora", "--data", data, "--weight-decay", "nan"}, "--weight-decay"},
		{[]string{"embed", "--model", tiny, "--data", data, "--out", "x.npy", "--max-length", "100000"}, "--max-length"},
		{[]string{"predict", "--model", tiny, "--data", data, "--amp", "fp16", "--device", "cpu"}, "--amp"},
		{[]string{"predict", "--model", tiny, "--data", data, "--batch-size", "0"}, "--batch-size"},
		{[]string{"prepare", "--data", data, "--out", t.TempDir() + "/x", "--split", "0.5,0.6"}, "--split"},
		{[]string{"compare", "--model", tiny, "--methods", "lora,nope", "--data", data, "--out", t.TempDir() + "/x"}, "nope"},
		{[]string{"predict", "--data", data}, "--model is missing"},
		{[]string{"predict", "--model", tiny}, "--data is missing"},
		{[]string{"embed", "--model", tiny, "--data", data, "--out", "x.csv"}, "--out"},
		{[]string{"prepare", "--data", data}, "--out"},
	} {
		code, _, stderr := gopeft(t, "", c.args...)
		last := stderr[strings.LastIndex(strings.TrimSpace(stderr), "\n")+1:]
		if code != exitUsage || !strings.Contains(last, c.want) || !strings.HasPrefix(last, "gopeft: ") {
			t.Errorf("gopeft %v: exit %d, %q, want exit 2 and %q", c.args, code, stderr, c.want)
		}
	}
}

func TestFailuresExit1(t *testing.T) {
	data, _ := tokenRows(t, 30)
	code, _, stderr := gopeft(t, "", "train", "--model", "/no/such/model", "--method", "lora", "--data", data, "--out", t.TempDir()+"/x")
	if code != exitFailed || !strings.Contains(stderr, "/no/such/model") || strings.Contains(stderr, "goroutine") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

// fullPipe refuses what is written.
type fullPipe struct{}

func (fullPipe) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestResultsThatCannotBeWrittenExit1(t *testing.T) {
	path := filepath.Join(t.TempDir(), "texts.csv")
	if err := os.WriteFile(path, []byte("text,label\n"+strings.Repeat("a b,x\nc d,y\n", 20)), 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	args := []string{"gopeft", "prepare", "--data", path, "--out", t.TempDir() + "/parts"}
	if code := program(context.Background(), args, strings.NewReader(""), fullPipe{}, &stderr); code != exitFailed || !strings.Contains(stderr.String(), "write results") {
		t.Errorf("exit %d: %s", code, stderr.String())
	}
}

func TestTrainPredictEval(t *testing.T) {
	path, text := tokenRows(t, 150)
	for _, c := range []struct{ model, method string }{
		{"distilbert/tiny", "full"}, {"distilbert/tiny", "lora"}, {"distilbert/tiny", "features"},
		{"llama/seqcls", "full"}, {"llama/seqcls", "lora"}, {"llama/seqcls", "features"},
	} {
		t.Run(c.model+" "+c.method, func(t *testing.T) {
			tiny, method := modeltest.Testdata(t, c.model), c.method
			t.Setenv("GOPEFT_HOME", t.TempDir())
			out := filepath.Join(t.TempDir(), "run")
			stdout, _ := must(t, "", "train", "--model", tiny, "--method", method, "--data", path, "--split", "0.6,0.2,0.2", "--out", out,
				"--epochs", "2", "--lr", "0.001", "--amp", "none", "--json", "--threads", "1")
			var sum struct {
				Method string `json:"method"`
				Params struct {
					Total int64 `json:"total"`
				} `json:"params"`
			}
			if err := json.Unmarshal([]byte(stdout), &sum); err != nil || sum.Params.Total == 0 {
				t.Fatalf("%v: %s", err, stdout)
			}
			// Predictions come one per row in input order, and agree with eval.
			lines, _ := must(t, text, "predict", "--model", out, "--data", "-", "--threads", "1", "--batch-size", "7")
			var labels []string
			for _, line := range strings.Split(strings.TrimSpace(lines), "\n") {
				var p predicted
				if err := json.Unmarshal([]byte(line), &p); err != nil {
					t.Fatal(err)
				}
				sum := float32(0)
				for _, v := range p.Probs {
					sum += v
				}
				if sum < 0.999 || sum > 1.001 || len(p.Logits) != 3 {
					t.Errorf("probabilities sum to %v, logits %v", sum, p.Logits)
				}
				labels = append(labels, p.Label)
			}
			right := 0
			for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
				if strings.Contains(line, `"`+labels[i]+`"`) {
					right++
				}
			}
			stdout, _ = must(t, "", "eval", "--model", out, "--data", path, "--threads", "1", "--json")
			var e evaluated
			if err := json.Unmarshal([]byte(stdout), &e); err != nil {
				t.Fatal(err)
			}
			if want := float64(right) / 150; e.Rows != 150 || e.Accuracy != want {
				t.Errorf("eval: %d rows, accuracy %v; predictions: %v", e.Rows, e.Accuracy, want)
			}
			if must(t, "", "inspect", "--model", out, "--load"); method == "lora" {
				must(t, "", "inspect", "--adapter", filepath.Join(out, "best"), "--layers")
			}
		})
	}
}

func TestEmbedWritesNumPyAndSafetensors(t *testing.T) {
	tiny := modeltest.Testdata(t, "distilbert/tiny")
	path, _ := tokenRows(t, 9)
	dir := t.TempDir()
	must(t, "", "embed", "--model", tiny, "--data", path, "--out", dir+"/x.npy", "--threads", "1")
	must(t, "", "embed", "--model", tiny, "--data", path, "--out", dir+"/x.safetensors", "--threads", "1")
	raw, err := os.ReadFile(dir + "/x.npy")
	if err != nil {
		t.Fatal(err)
	}
	a, err := files.Open(dir + "/x.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	e, _ := a.Lookup("features")
	if !bytes.HasPrefix(raw, []byte("\x93NUMPY\x01\x00")) || (len(raw)-len(e.Data))%64 != 0 || !bytes.HasSuffix(raw, e.Data) || len(e.Data) != 9*16*4 {
		t.Errorf("%d bytes of npy, %d of features", len(raw), len(e.Data))
	}
}

func TestCompareConfigOverlays(t *testing.T) {
	tiny := modeltest.Testdata(t, "distilbert/tiny")
	data, _ := tokenRows(t, 20)
	file := filepath.Join(t.TempDir(), "compare.yaml")
	text := fmt.Sprintf("model: %s\ndata: %s\nepochs: 2\nmethods: [logreg, lora]\nsettings:\n  lora: {epochs: 5, rank: 2}\n", tiny, data)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := gopeft(t, "", "compare", "--config", file, "--methods", "lora", "--epochs", "x"); code != exitUsage {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestTokenizeAndPrepare(t *testing.T) {
	model := modeltest.Shared(t, "models/distilbert-minilm-l3-v8k-fp16")
	stdout, _ := must(t, "Hello, wörld!\n", "tokenize", "--model", model, "--data", "-", "--format", "text")
	var line struct {
		IDs    []int64  `json:"ids"`
		Tokens []string `json:"tokens"`
	}
	if err := json.Unmarshal([]byte(stdout), &line); err != nil || len(line.IDs) != len(line.Tokens) || line.Tokens[0] != "[CLS]" {
		t.Errorf("%v: %s", err, stdout)
	}
	dir := filepath.Join(t.TempDir(), "parts")
	must(t, "", "prepare", "--data", modeltest.Shared(t, "datasets/imdb_dev_1000.csv"), "--split", "0.7,0.1,0.2", "--sample", "100", "--out", dir)
	for _, name := range []string{"train.csv", "val.csv", "test.csv"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestDoctor(t *testing.T) {
	stdout, _ := must(t, "", "doctor", "--json")
	var h health
	if err := json.Unmarshal([]byte(stdout), &h); err != nil || h.Libtorch == "" || h.Cores < 1 || h.LibtorchDir == "" {
		t.Errorf("%v: %s", err, stdout)
	}
	if lib, err := xgboost.Open(); err == nil && !strings.HasSuffix(h.XGBoost, " in "+lib.Path) {
		t.Errorf("XGBoost's library is %q, want %s", h.XGBoost, lib.Path)
	}
	t.Setenv("XGBOOST", filepath.Join(t.TempDir(), "none"))
	stdout, _ = must(t, "", "doctor")
	if !strings.Contains(stdout, "\nXGBoost    not installed\n") || !strings.Contains(stdout, "\nmissing    for --classifier xgboost: XGBOOST=") {
		t.Errorf("without XGBoost's library: %s", stdout)
	}
}

// A model with bad weights gives no vectors, and what was there stays.
func TestEmbedRefusesNumbersThatAreNone(t *testing.T) {
	model := filepath.Join(t.TempDir(), "model")
	if err := os.CopyFS(model, os.DirFS(modeltest.Testdata(t, "distilbert/tiny"))); err != nil {
		t.Fatal(err)
	}
	weights := filepath.Join(model, "model.safetensors")
	raw, err := os.ReadFile(weights)
	if err != nil {
		t.Fatal(err)
	}
	a, err := files.DecodeSafetensors(raw)
	if err != nil {
		t.Fatal(err)
	}
	var tensors []files.Tensor
	for _, e := range a.Entries() {
		if strings.HasSuffix(e.Name, "output_layer_norm.weight") {
			for i := range e.Data {
				e.Data[i] = 0xff
			}
		}
		tensors = append(tensors, files.Tensor{Name: e.Name, DType: e.DType, Shape: e.Shape, Data: e.Data})
	}
	out := filepath.Join(t.TempDir(), "x.npy")
	if err := errors.Join(files.WriteSafetensors(weights, tensors, nil), os.WriteFile(out, []byte("before"), 0o600)); err != nil {
		t.Fatal(err)
	}
	path, _ := tokenRows(t, 9)
	code, _, stderr := gopeft(t, "", "embed", "--model", model, "--data", path, "--out", out, "--threads", "1")
	if code != exitFailed || !strings.Contains(stderr, path+", row ") || !strings.Contains(stderr, "features that are not finite") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if raw, err := os.ReadFile(out); err != nil || string(raw) != "before" {
		t.Errorf("%q, %v", raw, err)
	}
	if entries, err := os.ReadDir(filepath.Dir(out)); err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// However many vectors there are, they are not in memory.
func TestVectorsAreKeptOnDisk(t *testing.T) {
	const cols, stretches = 256, 64
	x := classic.NewMatrix(1024, cols)
	for i := range x.Data {
		x.Data[i] = float32(i)
	}
	inUse := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for _, name := range []string{"x.npy", "x.safetensors"} {
		out := filepath.Join(t.TempDir(), name)
		before := inUse()
		v, err := newVectors(out, cols)
		if err != nil {
			t.Fatal(err)
		}
		for range stretches {
			if err := v.add(x); err != nil {
				t.Fatal(err)
			}
		}
		if grown := int64(inUse()) - int64(before); grown > 4<<20 {
			t.Errorf("%d bytes for vectors of %d", grown, stretches*len(x.Data)*4)
		}
		if err := errors.Join(v.write(t.Context()), v.close()); err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		all := bytes.Repeat(x.Bytes(), stretches)
		if head := len(raw) - len(all); head < 0 || head > 256 || !bytes.Equal(raw[head:], all) || !bytes.Contains(raw[:head], []byte("65536")) {
			t.Errorf("%s: %d bytes", name, len(raw))
		}
	}
}
