package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/model/modeltest"
)

// askedModel is a tiny language model with a tokenizer.
func askedModel(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for to, from := range map[string]string{"tokenizer.json": "prompted/tokenizer.json", "config.json": "llama/rope-llama3/config.json", "model.safetensors": "llama/rope-llama3/model.safetensors"} {
		raw, err := os.ReadFile(modeltest.Testdata(t, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestEvalAsksInContext(t *testing.T) {
	m := askedModel(t)
	var b strings.Builder
	b.WriteString("text,label\n")
	for i := range 20 {
		fmt.Fprintf(&b, "a %s one,%d\n", []string{"good", "dull", "so so"}[i%3], i%2)
	}
	file := writeText(t, "rows.csv", b.String())
	perRow := filepath.Join(t.TempDir(), "rows.jsonl")
	args := []string{"eval", "--method", "in-context", "--model", m, "--data", file, "--train", file, "--shots", "2", "--threads", "1", "--template", `{text}\nmood: {label}`, "--label-words", "bad,good"}
	stdout, stderr := must(t, "", append(args, "--json", "--per-row", perRow)...)
	var e evaluatedAsked
	if err := json.Unmarshal([]byte(stdout), &e); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(perRow)
	if err != nil {
		t.Fatal(err)
	}
	type line struct {
		Label, Prediction string
		NLL               float64
		Logits            []float64
		Draw              int
	}
	rows := lines[line](t, string(raw))
	correct, loss := make([]float64, 3), 0.0
	for _, r := range rows {
		loss += r.NLL / float64(len(rows))
		if r.Label == r.Prediction {
			correct[r.Draw-1] += 1. / 20
		}
	}
	if len(rows) != 60 || e.Rows != 20 || len(e.Draws) != 3 || math.Abs(e.Loss-loss) > 1e-6 || math.Abs(e.Accuracy-(correct[0]+correct[1]+correct[2])/3) > 1e-9 {
		t.Errorf("%s, of %d rows: %v, loss %v", stdout, len(rows), correct, loss)
	}
	if !strings.Contains(stderr, "0 is bad, 1 is good") || !strings.Contains(stderr, "2 examples in the prompt") {
		t.Errorf("notes: %s", stderr)
	}
	if stdout, _ := must(t, "", args...); !strings.Contains(stdout, "3 draws of examples: accuracy") || !strings.Contains(stdout, "±") {
		t.Errorf("for people: %s", stdout)
	}
	// Without examples no training data is needed, and there is one prompt.
	stdout, stderr = must(t, "", "eval", "--method", "in-context", "--model", m, "--data", file, "--shots", "0", "--threads", "1", "--json", "--limit", "9")
	e = evaluatedAsked{}
	if err := json.Unmarshal([]byte(stdout), &e); err != nil || len(e.Draws) != 1 || e.Spread != 0 || e.Rows != 9 {
		t.Errorf("%s, %v", stdout, err)
	}
	if !strings.Contains(stderr, "bare numbers") || !strings.Contains(stderr, "no examples") {
		t.Errorf("notes: %s", stderr)
	}
	// What a run leaves is used without another word.
	out := filepath.Join(t.TempDir(), "run")
	must(t, "", "train", "--method", "hard-prompt", "--model", m, "--train", file, "--val", file, "--out", out, "--threads", "1")
	stdout, _ = must(t, "", "eval", "--model", out, "--data", file, "--json")
	var used evaluated
	if err := json.Unmarshal([]byte(stdout), &used); err != nil || used.Rows != 20 {
		t.Errorf("%s, %v", stdout, err)
	}
	var sum struct{ Accuracy struct{ Val float64 } }
	raw, err = os.ReadFile(filepath.Join(out, "summary.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &sum); err != nil || math.Abs(used.Accuracy-sum.Accuracy.Val) > 1e-9 {
		t.Errorf("accuracy %v, the run has %v, %v", used.Accuracy, sum.Accuracy.Val, err)
	}
	stdout, _ = must(t, `{"text": "a good one"}`+"\n", "predict", "--model", out, "--data", "-", "--format", "jsonl")
	if !strings.Contains(stdout, `"label":"`) || !strings.Contains(stdout, `"probs":{"0":`) {
		t.Errorf("predicts %s", stdout)
	}
}

// Answers with examples before the question are those to the whole prompt.
func TestEvalAnswersWithExamples(t *testing.T) {
	m := askedModel(t)
	var b strings.Builder
	for i := range 8 {
		fmt.Fprintf(&b, `{"prompt": "add %s: ", "completion": "no%s."}`+"\n", strings.Repeat("so ", i), strings.Repeat("p", i%3))
	}
	file := writeText(t, "qa.jsonl", b.String())
	perRow := filepath.Join(t.TempDir(), "rows.jsonl")
	ask := func(args ...string) evaluatedText {
		return evalJSON(t, append([]string{"--model", m, "--data", file, "--match", "[a-z]+", "--max-new-tokens", "6", "--threads", "1", "--per-row", perRow}, args...)...)
	}
	none := ask()
	with := ask("--method", "in-context", "--train", file, "--shots", "3")
	if with.Loss == none.Loss || with.Targets != none.Targets || with.Match == nil {
		t.Errorf("with examples %+v, without %+v", with, none)
	}
	if again := ask("--method", "in-context", "--shots", "0"); math.Abs(again.Loss-none.Loss) > 1e-5 {
		t.Errorf("no examples: loss %v, want %v", again.Loss, none.Loss)
	}
	out := filepath.Join(t.TempDir(), "run")
	must(t, "", "train", "--task", "causal", "--method", "in-context", "--model", m, "--train", file, "--val", file, "--shots", "3", "--out", out, "--threads", "1")
	shown := ask("--model", out)
	raw, err := os.ReadFile(perRow)
	if err != nil {
		t.Fatal(err)
	}
	answers := lines[scoredText](t, string(raw))
	if math.Abs(shown.Loss-with.Loss) < 1e-9 && *shown.Match != *with.Match {
		t.Errorf("the run's examples: %+v, drawn: %+v", shown, with)
	}
	// By hand: the run's examples, as text before a question.
	raw, err = os.ReadFile(filepath.Join(out, "prompt.json"))
	if err != nil {
		t.Fatal(err)
	}
	var prompt struct {
		Examples []struct{ Prompt, Answer string }
	}
	if err := json.Unmarshal(raw, &prompt); err != nil || len(prompt.Examples) != 3 {
		t.Fatalf("%s, %v", raw, err)
	}
	before := ""
	for _, x := range prompt.Examples {
		before += x.Prompt + x.Answer + "\n\n"
	}
	for i := range answers {
		stdout, _ := must(t, "", "generate", "--model", m, "--prompt", before+fmt.Sprintf("add %s: ", strings.Repeat("so ", i)), "--max-new-tokens", "6", "--stop", `\n\nadd `, "--temperature", "0", "--json", "--threads", "1")
		var g struct{ Text string }
		if err := json.Unmarshal([]byte(stdout), &g); err != nil || answers[i].Answer == nil || g.Text != *answers[i].Answer {
			t.Errorf("row %d answers %v, by hand %s, %v", i+1, *answers[i].Answer, stdout, err)
		}
	}
}

func TestEvalRefusesToAsk(t *testing.T) {
	m, encoder := askedModel(t), modeltest.Testdata(t, "distilbert/tiny")
	rows := writeText(t, "rows.csv", "text,label\na good one,1\na dull one,0\n")
	pairs := writeText(t, "pairs.jsonl", `{"prompt": "a", "completion": "b"}`+"\n")
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{exitUsage, "give --train", []string{"--model", m, "--data", rows, "--method", "in-context"}},
		{exitUsage, "--shots goes with --method in-context", []string{"--model", m, "--data", rows, "--shots", "2"}},
		{exitUsage, "hard-prompt chooses", []string{"--model", m, "--data", rows, "--method", "hard-prompt"}},
		{exitUsage, `"lora" is not known to eval`, []string{"--model", m, "--data", rows, "--method", "lora"}},
		{exitUsage, "no {label}", []string{"--model", m, "--data", rows, "--method", "in-context", "--shots", "0", "--template", "{text}"}},
		{exitUsage, "--shots is 3", []string{"--model", m, "--data", rows, "--train", rows, "--shots", "3", "--method", "in-context"}},
		{exitUsage, "3 words for 2 labels", []string{"--model", m, "--data", rows, "--shots", "0", "--method", "in-context", "--label-words", "a,b,c"}},
		{exitUsage, "the model reads 512: no room", []string{"--model", m, "--data", rows, "--shots", "0", "--method", "in-context", "--template", strings.Repeat("so so ", 200) + "{text} {label}"}},
		{exitFailed, "does not write them", []string{"--model", encoder, "--data", rows, "--shots", "0", "--method", "in-context"}},
		{exitUsage, "--data as a file", []string{"--model", m, "--data", "-", "--shots", "0", "--method", "in-context"}},
		{exitUsage, "--calibrate goes with --task classify", []string{"--model", m, "--data", pairs, "--task", "causal", "--shots", "0", "--method", "in-context", "--calibrate"}},
		{exitUsage, "--shots is 4", []string{"--model", m, "--data", pairs, "--train", pairs, "--task", "causal", "--shots", "4", "--method", "in-context"}},
	} {
		code, _, stderr := gopeft(t, "", append([]string{"eval"}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, c.want) || strings.Count(strings.TrimSpace(lastLine(stderr)), "\n") > 0 {
			t.Errorf("%v: exit %d, %q; want %d and %q", c.args, code, stderr, c.code, c.want)
		}
	}
}

func lastLine(text string) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return all[len(all)-1]
}
