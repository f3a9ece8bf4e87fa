package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/model/modeltest"
)

// lines decodes JSONL.
func lines[T any](t *testing.T, text string) []T {
	t.Helper()
	var out []T
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		var v T
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		out = append(out, v)
	}
	return out
}

func writeText(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGenerateStreamsWhatTransformersWrites(t *testing.T) {
	folder := modeltest.Shared(t, "models/llama-stories260k")
	raw, err := os.ReadFile(modeltest.Testdata(t, "llama/stories260k.json"))
	if err != nil {
		t.Fatal(err)
	}
	var stories []struct {
		Prompt string  `json:"prompt"`
		NewIDs []int64 `json:"new_ids"`
	}
	if err := json.Unmarshal(raw, &stories); err != nil {
		t.Fatal(err)
	}
	var prompts strings.Builder
	for _, s := range stories {
		row, err := json.Marshal(map[string]string{"prompt": s.Prompt})
		if err != nil {
			t.Fatal(err)
		}
		prompts.Write(append(row, '\n'))
	}
	stdout, _ := must(t, prompts.String(), "generate", "--model", folder, "--prompts", "-", "--max-new-tokens", "20", "--batch-size", "3")
	many := lines[generated](t, stdout)
	for i, s := range stories {
		if diff := cmp.Diff(s.NewIDs[:20], many[i].TokenIDs); diff != "" {
			t.Errorf("prompt %d: %s", i+1, diff)
		}
	}
	text, _ := must(t, "", "generate", "--model", folder, "--prompt", stories[0].Prompt, "--max-new-tokens", "20")
	if text != *many[0].Text+"\n" {
		t.Errorf("streamed %q, many %q", text, *many[0].Text)
	}
	stopped, stderr := must(t, "", "generate", "--model", folder, "--prompt", stories[0].Prompt, "--max-new-tokens", "20", "--stop", "little", "--echo")
	if want, _, _ := strings.Cut(stories[0].Prompt+text, "little"); stopped != want+"\n" || !strings.Contains(stderr, "ended by --stop") {
		t.Errorf("stopped at %q, want %q; %s", stopped, want, stderr)
	}
	// An answer longer than the context says that it was cut off.
	_, stderr = must(t, "", "generate", "--model", folder, "--prompt", strings.Repeat("word ", 100), "--max-new-tokens", "0", "--stop", "zzzz")
	if !strings.Contains(stderr, "the model's context is full") && !strings.Contains(stderr, "ended its text") {
		t.Errorf("no reason in %s", stderr)
	}
}

func TestGenerateTemplatesAreThoseOfTraining(t *testing.T) {
	folder := modeltest.Shared(t, "models/llama-stories260k")
	file := writeText(t, "rows.csv", "mr,ref\nOnce upon a time,x\n")
	plain, _ := must(t, "", "generate", "--model", folder, "--prompt", "Say: Once upon a time ->", "--max-new-tokens", "8", "--json")
	rowed, _ := must(t, "", "generate", "--model", folder, "--prompts", file, "--template", "Say: {mr} ->{ref}", "--max-new-tokens", "8")
	filled, _ := must(t, "", "generate", "--model", folder, "--prompt", "Once upon a time", "--template", "Say: {mr} ->{ref}", "--max-new-tokens", "8", "--json")
	alpaca, _ := must(t, "", "generate", "--model", folder, "--prompt", "Tell", "--template", "alpaca", "--max-new-tokens", "8", "--json")
	var want, got, long generated
	for v, text := range map[*generated]string{&want: plain, &got: filled, &long: alpaca} {
		if err := json.Unmarshal([]byte(text), v); err != nil {
			t.Fatal(err)
		}
	}
	if !cmp.Equal(got, want) || !cmp.Equal(lines[generated](t, rowed)[0], want) || long.PromptTokens < 50 {
		t.Errorf("plain %+v, filled in %+v, from a file %s, Alpaca %d tokens", want, got, rowed, long.PromptTokens)
	}
}

func TestGenerateDrawsDependOnSeedNotOnBatches(t *testing.T) {
	tiny := modeltest.Testdata(t, "llama/base")
	var rows strings.Builder
	for range 20 {
		rows.WriteString("{\"input_ids\": [1, 5, 9]}\n")
	}
	draw := func(args ...string) [][]int64 {
		stdout, _ := must(t, rows.String(), append([]string{"generate", "--model", tiny, "--prompts", "-", "--max-new-tokens", "6", "--top-k", "30"}, args...)...)
		var ids [][]int64
		for _, l := range lines[generated](t, stdout) {
			ids = append(ids, l.TokenIDs)
		}
		return ids
	}
	want := draw("--batch-size", "16")
	if diff := cmp.Diff(want, draw("--batch-size", "1")); diff != "" { // stretches of 8 rows
		t.Errorf("another batch size: %s", diff)
	}
	if cmp.Equal(want, draw("--seed", "1")) || cmp.Equal(want[0], want[8]) {
		t.Error("draws repeat")
	}
}

func TestGenerateChoosesAdaptersByRow(t *testing.T) {
	tiny, lora, prefix := modeltest.Testdata(t, "llama/base"), modeltest.Testdata(t, "peft/llama-causal-lora"), modeltest.Testdata(t, "peft/llama-causal-prefix")
	one := func(args ...string) []int64 {
		stdout, _ := must(t, `{"input_ids": [1, 5, 9, 12]}`, append([]string{"generate", "--model", tiny, "--prompts", "-", "--max-new-tokens", "8"}, args...)...)
		return lines[generated](t, stdout)[0].TokenIDs
	}
	want := [][]int64{one("--adapter", lora), one("--adapter", "p="+prefix), one(), one("--adapter", lora)}
	rows := `{"input_ids": [1, 5, 9, 12], "adapter": "llama-causal-lora"}
{"input_ids": [1, 5, 9, 12], "adapter": "p"}
{"input_ids": [1, 5, 9, 12], "adapter": "none"}
{"input_ids": [1, 5, 9, 12]}`
	args := []string{"generate", "--model", tiny, "--adapter", lora, "--adapter", "p=" + prefix, "--max-new-tokens", "8", "--prompts"}
	stdout, _ := must(t, rows, append(args, "-")...)
	for i, l := range lines[generated](t, stdout) {
		if diff := cmp.Diff(want[i], l.TokenIDs); diff != "" {
			t.Errorf("row %d: %s", i+1, diff)
		}
	}
	if cmp.Equal(want[0], want[1]) || cmp.Equal(want[0], want[2]) {
		t.Error("the adapters write the same")
	}
	code, _, stderr := gopeft(t, `{"input_ids": [1], "adapter": "q"}`, append(args, "-")...)
	if code != exitFailed || !strings.Contains(stderr, `row 1: adapter "q" is not loaded`) {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestGenerateAnswersToBadRequests(t *testing.T) {
	tiny, lora := modeltest.Testdata(t, "llama/base"), modeltest.Testdata(t, "peft/llama-causal-lora")
	long, err := json.Marshal(map[string]any{"input_ids": make([]int, 200)})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, stdin string
		args        []string
		code        int
		want        string
	}{
		{"nothing to continue", "", []string{"--model", tiny}, exitUsage, "give --prompt TEXT, or --prompts FILE"},
		{"empty", "", []string{"--model", tiny, "--prompt", ""}, exitUsage, "--prompt is empty"},
		{"no tokenizer", "", []string{"--model", tiny, "--prompt", "x"}, exitFailed, "cannot read text"},
		{"too long", string(long), []string{"--model", tiny, "--prompts", "-"}, exitFailed, "row 1: the prompt has 200 tokens, the model holds"},
		{"outside the vocabulary", `{"input_ids": [1, 99999]}`, []string{"--model", tiny, "--prompts", "-"}, exitFailed, "row 1: the prompt holds token 99999"},
		{"an encoder", "", []string{"--model", modeltest.Testdata(t, "distilbert/tiny"), "--prompt", "x"}, exitFailed, "does not write"},
		{"temperature", `{"input_ids": [1]}`, []string{"--model", tiny, "--prompts", "-", "--temperature", "-1"}, exitUsage, "temperature"},
		{"dtype", "", []string{"--model", tiny, "--prompt", "x", "--dtype", "int4"}, exitUsage, "--dtype"},
		{"system without chat", "", []string{"--model", tiny, "--prompt", "x", "--system", "y"}, exitUsage, "--chat"},
		{"no rows", "", []string{"--model", tiny, "--prompts", "-", "--format", "jsonl"}, exitFailed, "holds no prompts"},
		{"two of a name", `{"input_ids": [1]}`, []string{"--model", tiny, "--adapter", "a=" + lora, "--adapter", "a=" + lora, "--prompts", "-"}, exitUsage, "two adapters are called a"},
	} {
		code, _, stderr := gopeft(t, c.stdin, append([]string{"generate"}, c.args...)...)
		last := strings.TrimSpace(stderr)
		last = last[strings.LastIndex(last, "\n")+1:]
		if code != c.code || !strings.Contains(last, c.want) {
			t.Errorf("%s: exit %d, %q, want %d with %q", c.name, code, last, c.code, c.want)
		}
	}
	folder := modeltest.Shared(t, "models/llama-stories260k")
	for prompt, want := range map[string]string{"hi <|user|>": "<|user|> is not a token of this model", "  ": "nothing but blanks"} {
		if code, _, stderr := gopeft(t, "", "generate", "--model", folder, "--prompt", prompt); code == exitDone || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit %d, %s", prompt, code, stderr)
		}
	}
	must(t, "", "generate", "--model", folder, "--prompt", "hi <|user|>", "--literal", "--max-new-tokens", "1")
	if code, _, stderr := gopeft(t, "", "generate", "--model", folder, "--prompt", "hi", "--chat"); code != exitFailed || !strings.Contains(stderr, "no chat template") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestPredictChoosesAdaptersByRow(t *testing.T) {
	tiny := modeltest.Testdata(t, "distilbert/tiny")
	lora, ia3 := modeltest.Testdata(t, "peft/distilbert-seqcls-lora"), modeltest.Testdata(t, "peft/distilbert-seqcls-ia3")
	one := func(adapter string) predicted {
		stdout, _ := must(t, `{"input_ids": [1, 5, 9, 12]}`, "predict", "--model", tiny, "--adapter", adapter, "--data", "-")
		return lines[predicted](t, stdout)[0]
	}
	want := []predicted{one(ia3), one(lora), one(lora)}
	rows := `{"input_ids": [1, 5, 9, 12], "adapter": "i"}
{"input_ids": [1, 5, 9, 12], "adapter": "distilbert-seqcls-lora"}
{"input_ids": [1, 5, 9, 12], "adapter": null}`
	stdout, _ := must(t, rows, "predict", "--model", tiny, "--adapter", lora, "--adapter", "i="+ia3, "--data", "-")
	for i, got := range lines[predicted](t, stdout) {
		if diff := cmp.Diff(want[i].Logits, got.Logits); diff != "" {
			t.Errorf("row %d: %s", i+1, diff)
		}
	}
	if cmp.Equal(want[0].Logits, want[1].Logits) {
		t.Error("the adapters say the same")
	}
}

func TestRowsChooseANamedAdapterOrNone(t *testing.T) {
	tiny, lora := modeltest.Testdata(t, "llama/base"), modeltest.Testdata(t, "peft/llama-causal-lora")
	one := func(args ...string) []int64 {
		stdout, _ := must(t, "", append([]string{"generate", "--model", tiny, "--max-new-tokens", "8", "--prompts",
			writeText(t, "one.jsonl", `{"input_ids": [1, 5, 9, 12]}`)}, args...)...)
		return lines[generated](t, stdout)[0].TokenIDs
	}
	with, bare := one("--adapter", lora), one()
	args := []string{"generate", "--model", tiny, "--adapter", "mine=" + lora, "--max-new-tokens", "8", "--prompts"}
	stdout, _ := must(t, "", append(args, writeText(t, "rows.jsonl", `{"input_ids": [1, 5, 9, 12], "adapter": "none"}
{"input_ids": [1, 5, 9, 12], "adapter": "mine"}
{"input_ids": [1, 5, 9, 12]}
`))...)
	got := lines[generated](t, stdout)
	for i, want := range [][]int64{bare, with, with} {
		if !slices.Equal(got[i].TokenIDs, want) {
			t.Errorf("row %d: %v, want %v", i+1, got[i].TokenIDs, want)
		}
	}
	code, _, stderr := gopeft(t, "", append(args, writeText(t, "bad.jsonl", `{"input_ids": [1], "adapter": "other"}`))...)
	if code != exitFailed || !strings.Contains(stderr, `bad.jsonl, row 1: adapter "other" is not loaded`) {
		t.Errorf("exit %d, %s", code, stderr)
	}
}
