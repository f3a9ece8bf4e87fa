package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestBench(t *testing.T) {
	args := []string{"bench", "--arch", "llama", "--layers", "1", "--hidden", "16", "--heads", "2", "--ffn", "32", "--vocab", "60", "--method", "lora",
		"--rank", "2", "--batch", "2", "--seq", "8", "--steps", "3", "--threads", "1"}
	out, _ := must(t, "", append(args, "--json")...)
	var r struct {
		Arch        string  `json:"arch"`
		SamplesPerS float64 `json:"samples_per_s"`
		StepS       struct {
			Median float64 `json:"median"`
		} `json:"step_s"`
		Trainable int64 `json:"trainable"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.Arch != "llama" || !(r.SamplesPerS > 0) || !(r.StepS.Median > 0) || r.Trainable != 2*2*(16+16) {
		t.Errorf("%+v", r)
	}
	out, _ = must(t, "", append(args, "--profile")...)
	for _, want := range []string{"trainable 128 /", "samples/s", "backward", "allocations per step"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out, _ = must(t, "", append(args, "--mode", "generate", "--new-tokens", "4")...)
	if !strings.Contains(out, "decoding") {
		t.Errorf("no decoding rate in\n%s", out)
	}
	if code, _, errs := gopeft(t, "", "bench", "--arch", "elman"); code != exitUsage || strings.Count(errs, "\n") != 1 {
		t.Errorf("exit %d: %s", code, errs)
	}
}
