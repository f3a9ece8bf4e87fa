package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/model/modeltest"
	"gopeft/train/bench"
)

// inProcess runs the program to its end in a process of its own, and returns what it printed.
func inProcess(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "GOPEFT_TEST_PROGRAM=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("gopeft %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}

// TestProcessesShareRows: what processes compute of a file together has the order and the bits of one process.
func TestProcessesShareRows(t *testing.T) {
	dir := t.TempDir()
	rows, _ := tokenRows(t, 41)
	encoder, decoder := modeltest.Testdata(t, "distilbert/tiny"), modeltest.Testdata(t, "llama/base")
	texts := writeText(t, "texts.jsonl", strings.Repeat(`{"input_ids": [1, 5, 9, 12, 20, 31, 7]}
{"input_ids": [2, 30, 7], "labels": [-100, -100, 7]}
`, 9))
	train := inProcess(t, "train", "--nproc", "2", "--model", encoder, "--data", rows, "--method", "last", "--epochs", "1", "--amp", "none", "--out", filepath.Join(dir, "run"), "--json")
	if n := strings.Count(train, "\n"); n != strings.Count(strings.TrimSpace(train), "\n")+1 || !strings.Contains(train, `"accuracy"`) {
		t.Errorf("two processes printed %q", train)
	}
	for name, args := range map[string][]string{
		"predict":  {"predict", "--model", filepath.Join(dir, "run"), "--data", rows, "--out"},
		"eval":     {"eval", "--model", filepath.Join(dir, "run"), "--data", rows, "--per-row"},
		"embed":    {"embed", "--model", encoder, "--data", rows, "--pool", "mean", "--out"},
		"causal":   {"eval", "--task", "causal", "--model", decoder, "--data", texts, "--per-row"},
		"features": {"train", "--model", encoder, "--data", rows, "--method", "features", "--amp", "none", "--threads", "1", "--out"},
	} {
		t.Run(name, func(t *testing.T) {
			read := func(path string) string {
				if name == "features" {
					path = filepath.Join(path, "classifier.safetensors")
				}
				raw, err := os.ReadFile(path)
				if err != nil || len(raw) == 0 {
					t.Fatalf("%s: %d bytes, %v", path, len(raw), err)
				}
				return string(raw)
			}
			file := func(who string) string { // the name tells what kind it is to be
				return filepath.Join(dir, name+who) + map[string]string{"embed": ".npy", "features": ""}[name]
			}
			t.Setenv("GOPEFT_HOME", filepath.Join(dir, "home", name, "alone")) // no features of the other's
			inProcess(t, append(args, file("alone"), "--batch-size", "4")...)
			t.Setenv("GOPEFT_HOME", filepath.Join(dir, "home", name, "shared"))
			inProcess(t, append([]string{"launch", "--nproc", "3", "--"}, append(args, file("shared"), "--batch-size", "4")...)...)
			if read(file("alone")) != read(file("shared")) {
				t.Errorf("three processes wrote another %s", file("shared"))
			}
			t.Setenv("GOPEFT_HOME", filepath.Join(dir, "home", name, "sharded"))
			inProcess(t, append([]string{"launch", "--nproc", "3", "--"}, append(args, file("sharded"), "--batch-size", "4", "--shard-frozen")...)...)
			if read(file("alone")) != read(file("sharded")) {
				t.Errorf("three processes that hold the weights together wrote another %s", file("sharded"))
			}
		})
	}
}

func TestBenchInProcesses(t *testing.T) {
	out := inProcess(t, "bench", "--nproc", "2", "--arch", "distilbert", "--layers", "1", "--hidden", "32", "--heads", "2", "--ffn", "64", "--vocab", "100", "--method", "lora",
		"--batch", "4", "--seq", "8", "--steps", "4", "--threads", "1", "--json")
	var r bench.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Processes) != 2 || !(r.Processes[1].Waiting > 0 && r.Processes[1].Waiting < 1) || !(r.Processes[1].PeakRSSMB > 0) || !(r.TokensPerS > 0) {
		t.Errorf("%+v", r)
	}
}

func TestDoctorOfProcesses(t *testing.T) {
	var m meeting
	if err := json.Unmarshal([]byte(inProcess(t, "doctor", "--dist", "--device", "cpu", "--nproc", "2", "--json")), &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Processes) != 2 || m.Processes[1].Address != "127.0.0.1" || m.Processes[1].Interface != "lo" || m.Processes[0].PID == m.Processes[1].PID || m.Engine != "Gloo" || !(m.LargeS > 0) {
		t.Errorf("%+v", m)
	}
	if code, _, stderr := gopeft(t, "", "doctor", "--dist"); code != 2 || !strings.Contains(stderr, "--nproc") {
		t.Errorf("alone: exit %d, %q", code, stderr)
	}
}
