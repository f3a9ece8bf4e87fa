package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/model/modeltest"
)

// Commands print the same with weights that are streamed from their files.
func TestCommandsStreamWeights(t *testing.T) {
	llama, encoder := modeltest.Testdata(t, "llama/base"), modeltest.Testdata(t, "distilbert/tiny")
	rows := writeText(t, "rows.jsonl", `{"input_ids": [1, 5, 9, 12, 20, 31, 7]}
{"input_ids": [2, 30, 7, 9]}
`)
	for _, args := range [][]string{
		{"predict", "--model", encoder, "--data", rows},
		{"predict", "--model", encoder, "--data", rows, "--amp", "bf16"},
		{"generate", "--model", llama, "--prompts", rows, "--max-new-tokens", "6"},
		{"embed", "--model", encoder, "--data", rows, "--out", "OUT"},
	} {
		t.Run(strings.Join(args[:3], " "), func(t *testing.T) {
			results := map[bool]string{}
			for _, stream := range []bool{false, true} {
				out := filepath.Join(t.TempDir(), "out.npy")
				given := append([]string{}, args...)
				for i := range given {
					given[i] = strings.ReplaceAll(given[i], "OUT", out)
				}
				if stream {
					given = append(given, "--stream-weights")
				}
				stdout, stderr := must(t, "", given...)
				if said := strings.Contains(stderr, "streaming"); said != stream {
					t.Errorf("stream %t: %s", stream, stderr)
				}
				raw, err := os.ReadFile(out)
				if err != nil && strings.Contains(strings.Join(args, " "), "OUT") {
					t.Fatal(err)
				}
				results[stream] = stdout + string(raw)
			}
			if results[true] != results[false] {
				t.Errorf("%s\nresident:\n%s", results[true], results[false])
			}
		})
	}
	plain := evalJSON(t, "--model", llama, "--data", rows)
	if streamed := evalJSON(t, "--model", llama, "--data", rows, "--stream-weights"); streamed.Loss != plain.Loss {
		t.Errorf("loss %v, resident %v", streamed.Loss, plain.Loss)
	}
	must(t, "", "bench", "--model", llama, "--method", "lora", "--batch", "2", "--seq", "8", "--steps", "2", "--stream-weights")
	must(t, "", "inspect", "--model", llama, "--method", "lora", "--stream-weights")
}
