package data

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"gopeft/train/data/rows"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestTemplates(t *testing.T) {
	row := rowOf(t, strings.Repeat("\n", 6)+`{"mr":"name[X]","ref":"X is.","n":3,"none":null}`) // on line 7
	cases := []struct{ template, prompt, answer string }{
		{"{mr} -> {ref}", "name[X] -> ", "X is."},
		{`{mr}\n{ref}\n`, "name[X]\n", "X is.\n"},
		{"{ref}", "", "X is."},
		{`{{{mr}}} \\n \x {n}: {ref} }}`, `{name[X]} \n \x 3: `, "X is. }"},
		{"{mr}{ref}", "name[X]", "X is."},
	}
	for _, c := range cases {
		prompt, answer, err := SplitTemplate(c.template)
		if err != nil {
			t.Fatal(err)
		}
		p, err := prompt.Render(row)
		if err != nil {
			t.Fatal(err)
		}
		a, err := answer.Render(row)
		if err != nil {
			t.Fatal(err)
		}
		if p != c.prompt || a != c.answer {
			t.Errorf("%s: %q, %q; want %q, %q", c.template, p, a, c.prompt, c.answer)
		}
	}
	for template, want := range map[string]string{
		"{mr":       "{ without }",
		"mr}":       "} without {",
		"{}":        "no column name",
		"{a{b}":     "no column name",
		"no column": "no {column}",
	} {
		_, _, err := SplitTemplate(template)
		wantError(t, err, want)
	}
	for template, want := range map[string]string{"{absent}": `no column "absent"`, "{none}": `column "none" is null`} {
		parsed, err := ParseTemplate(template)
		if err != nil {
			t.Fatal(err)
		}
		_, err = parsed.Render(row)
		wantError(t, err, "f: line 7", template, want)
	}
	parsed, _ := ParseTemplate("{a} {b} {a}")
	if diff := cmp.Diff([]string{"a", "b"}, parsed.Columns()); diff != "" {
		t.Error(diff)
	}
}

func TestAlpacaPrompt(t *testing.T) {
	want := "Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1+1\n\n### Response:"
	if got := AlpacaPrompt("Add.", "1+1"); got != want {
		t.Errorf("got %q", got)
	}
	want = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\n100% %s\n\n### Response:"
	if got := AlpacaPrompt("100% %s", ""); got != want {
		t.Errorf("got %q", got)
	}
}

func TestCausalRows(t *testing.T) {
	user, bot := Message{"user", "Hi"}, Message{"assistant", "Hello"}
	cases := []struct {
		name, file, content string
		opts                CausalOptions
		how                 string
		want                []CausalExample
	}{
		{"alpaca with pandas' index", "a.csv", ",instruction,output\n0,I,O\n1,J,P\n", CausalOptions{}, "Alpaca prompt from columns",
			[]CausalExample{{Prompt: AlpacaPrompt("I", ""), Answer: "O"}, {Prompt: AlpacaPrompt("J", ""), Answer: "P"}}},
		{"alpaca", "a.json", `[{"instruction":"I","input":"","output":"O"},{"instruction":"I","input":"J","output":""},{"instruction":"I","output":"P"},{"instruction":"I","input":null,"output":"Q"}]`, CausalOptions{}, "Alpaca prompt from columns",
			[]CausalExample{{Prompt: AlpacaPrompt("I", ""), Answer: "O"}, {Prompt: AlpacaPrompt("I", "J")}, {Prompt: AlpacaPrompt("I", ""), Answer: "P"}, {Prompt: AlpacaPrompt("I", ""), Answer: "Q"}}},
		{"alpaca without answers", "a.jsonl", `{"instruction":"I"}`, CausalOptions{PromptOnly: true}, "", []CausalExample{{Prompt: AlpacaPrompt("I", "")}}},
		{"question and answer", "a.jsonl", `{"question":"1+1?","answer":"#### 2"}`, CausalOptions{}, `"question", "answer"`, []CausalExample{{Prompt: AlpacaPrompt("1+1?", ""), Answer: "#### 2"}}},
		{"seed tasks", "a.jsonl", `{"id":"x","instruction":"I","instances":[{"input":"","output":"A"},{"input":"b","output":"B"}]}`, CausalOptions{}, "instances",
			[]CausalExample{{Prompt: AlpacaPrompt("I", ""), Answer: "A"}, {Prompt: AlpacaPrompt("I", "b"), Answer: "B"}}},
		{"prompt and completion", "a.jsonl", `{"prompt":"a","completion":" b"}`, CausalOptions{}, `prompts and answers from columns "prompt", "completion"`, []CausalExample{{Prompt: "a", Answer: " b"}}},
		{"chat", "a.jsonl", `{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":[{"type":"text","text":"Hel"},{"type":"text","text":"lo"}]}]}`, CausalOptions{}, "chats", []CausalExample{{Messages: []Message{user, bot}}}},
		{"conversations", "a.json", `[{"conversations":[{"from":"human","value":"Hi"},{"from":"gpt","value":"Hello"}]}]`, CausalOptions{}, "chats", []CausalExample{{Messages: []Message{user, bot}}}},
		{"chat prompt", "a.jsonl", `{"messages":[{"role":"user","content":"Hi"}]}`, CausalOptions{PromptOnly: true}, "", []CausalExample{{Messages: []Message{user}}}},
		{"text file", "a.txt", "one\n\n two\n", CausalOptions{}, `plain text from column "text"`, []CausalExample{{Answer: "one"}, {Answer: " two"}}},
		{"text prompts", "a.txt", "one\n", CausalOptions{PromptOnly: true}, "", []CausalExample{{Prompt: "one"}}},
		{"text column given", "a.csv", "body,story\nx,y\n", CausalOptions{TextColumn: "story"}, "", []CausalExample{{Answer: "y"}}},
		{"only column", "a.csv", "lyrics\nx\n", CausalOptions{}, `column "lyrics"`, []CausalExample{{Answer: "x"}}},
		{"template", "a.csv", "mr,ref\nm,r\n", CausalOptions{Template: "{mr} -> {ref}"}, "template", []CausalExample{{Prompt: "m -> ", Answer: "r"}}},
		{"two templates", "a.csv", "mr,ref\nm,r\n", CausalOptions{PromptTemplate: `{mr}\n`, AnswerTemplate: "{ref}!"}, "", []CausalExample{{Prompt: "m\n", Answer: "r!"}}},
		{"template of prompts", "a.csv", "mr\nm\n", CausalOptions{PromptTemplate: "{mr} ->", PromptOnly: true}, "", []CausalExample{{Prompt: "m ->"}}},
		{"template prompts need no answer column", "a.csv", "mr\nm\n", CausalOptions{Template: "{mr} -> {ref}", PromptOnly: true}, "", []CausalExample{{Prompt: "m -> "}}},
		{"ids", "a.jsonl", `{"input_ids":[1,2],"labels":[-100,2]}` + "\n" + `{"input_ids":[3]}`, CausalOptions{}, "", []CausalExample{{IDs: []int64{1, 2}, Targets: []int64{-100, 2}}, {IDs: []int64{3}}}},
		{"limit", "a.txt", "1\n2\n3\n", CausalOptions{Limit: 2}, "", []CausalExample{{Answer: "1"}, {Answer: "2"}}},
		{"skip", "a.jsonl", "{\"text\":\"a\"}\nx\n{\"text\":3}", CausalOptions{SkipBadRows: true}, "", []CausalExample{{Answer: "a"}, {Answer: "3"}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			set, err := LoadCausal(t.Context(), write(t, c.file, c.content), c.opts)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, set.Examples, cmpopts.IgnoreFields(CausalExample{}, "File", "Line", "Row")); diff != "" {
				t.Errorf("examples (-want +got):\n%s", diff)
			}
			if !strings.Contains(set.How, c.how) {
				t.Errorf("how: %q does not say %q", set.How, c.how)
			}
			for _, ex := range set.Examples {
				if ex.File == "" || ex.Line == 0 || ex.Row == 0 {
					t.Errorf("an example without its place: %+v", ex)
				}
			}
		})
	}
}

func TestCausalRefuses(t *testing.T) {
	cases := []struct {
		name, file, content string
		opts                CausalOptions
		want                string
	}{
		{"columns unknown", "a.csv", "mr,ref\nm,r\n", CausalOptions{}, `among "mr", "ref": say how to use them`},
		{"template column", "a.csv", "mr,ref\nm,r\n", CausalOptions{Template: "{mr} {x}"}, `no template column "x": the file has "mr", "ref"`},
		{"templates both ways", "a.csv", "b\n", CausalOptions{Template: "{a}", PromptTemplate: "{b}"}, "not both"},
		{"template halves", "a.csv", "b\n", CausalOptions{PromptTemplate: "{b}"}, "go together"},
		{"answer alone", "a.csv", "b\n", CausalOptions{AnswerTemplate: "{b}"}, "go together"},
		{"template and style", "a.csv", "b\n", CausalOptions{Template: "{b}", Style: ChatStyle}, "do not go with style"},
		{"bad template", "a.csv", "b\n", CausalOptions{Template: "{b"}, "{ without }"},
		{"unknown style", "a.csv", "b\n", CausalOptions{Style: "poem"}, `unknown style "poem"`},
		{"style without its columns", "a.csv", "a,b\n1,2\n", CausalOptions{Style: AlpacaStyle}, "no instruction column"},
		{"alpaca without output", "a.csv", "instruction,b\n1,2\n", CausalOptions{Style: AlpacaStyle}, "no output column"},
		{"pair without prompt", "a.csv", "a,b\n1,2\n", CausalOptions{Style: PairStyle}, "no prompt column"},
		{"pair without completion", "a.csv", "prompt,b\n1,2\n", CausalOptions{Style: PairStyle}, "no completion column"},
		{"text column", "a.csv", "a,b\n1,2\n", CausalOptions{TextColumn: "c"}, `no text column "c"`},
		{"messages no list", "a.jsonl", `{"messages":"hi"}`, CausalOptions{}, `line 1: column "messages" holds text, not a list of turns`},
		{"messages empty", "a.jsonl", `{"messages":[]}`, CausalOptions{}, "an empty list"},
		{"turn no object", "a.jsonl", `{"messages":["hi"]}`, CausalOptions{}, "turn 0 is text"},
		{"turn without role", "a.jsonl", `{"messages":[{"content":"x"}]}`, CausalOptions{}, `turn 0 has no "role"`},
		{"turn without content", "a.jsonl", `{"messages":[{"role":"user"}]}`, CausalOptions{}, `"content" is null`},
		{"turn with an image", "a.jsonl", `{"messages":[{"role":"user","content":[{"type":"image"}]}]}`, CausalOptions{}, "not text"},
		{"speaker unknown", "a.jsonl", `{"conversations":[{"from":"dog","value":"x"}]}`, CausalOptions{}, `from "dog"`},
		{"nothing to learn", "a.jsonl", `{"messages":[{"role":"user","content":"x"}]}`, CausalOptions{}, "no turn of the assistant"},
		{"instances", "a.jsonl", `{"instruction":"I","instances":[]}`, CausalOptions{}, "not a list of inputs and outputs"},
		{"instance", "a.jsonl", `{"instruction":"I","instances":[{"input":""}]}`, CausalOptions{}, "instance 0 lacks"},
		{"labels", "a.jsonl", `{"input_ids":[1,2],"labels":[1]}`, CausalOptions{}, "1 labels for 2 input_ids"},
		{"output null", "a.jsonl", `{"instruction":"I","output":null}`, CausalOptions{}, `column "output" is null`},
		{"no file", "absent/a.csv", "", CausalOptions{}, "absent"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := c.file
			if c.name != "no file" {
				path = write(t, c.file, c.content)
			}
			_, err := LoadCausal(t.Context(), path, c.opts)
			wantError(t, err, c.want)
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := LoadCausal(ctx, write(t, "a.txt", "x"), CausalOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestCausalCountsAndSplits(t *testing.T) {
	path := write(t, "a.jsonl", strings.Repeat(`{"instruction":"I","output":"O"}`+"\n", 9)+`{"instruction":"I","output":""}`+"\nbad")
	opts := CausalOptions{SkipBadRows: true}
	set, err := LoadCausal(t.Context(), path, opts)
	if err != nil {
		t.Fatal(err)
	}
	if set.Stats.Examples != 10 || set.Stats.EmptyAnswers != 1 || set.Stats.Skipped != 1 {
		t.Errorf("%+v", set.Stats)
	}
	notes := strings.Join(set.Notes(), "\n")
	for _, want := range []string{"Alpaca prompt", "1 bad rows skipped", "1 empty answers"} {
		if !strings.Contains(notes, want) {
			t.Errorf("notes %q do not say %q", notes, want)
		}
	}
	text, err := LoadCausal(t.Context(), write(t, "a.txt", "a\n\nb\n"), CausalOptions{})
	if err != nil || text.Stats.EmptyTexts != 1 || text.Stats.EmptyAnswers != 0 {
		t.Errorf("%+v, %v", text, err)
	}

	splits, err := LoadCausalSplits(t.Context(), Sources{Data: path}, opts)
	if err != nil || len(splits.Train.Examples) != 8 || len(splits.Val.Examples) != 1 || len(splits.Test.Examples) != 1 || len(splits.Notes()) == 0 {
		t.Errorf("%+v, %v", splits, err)
	}
	splits, err = LoadCausalSplits(t.Context(), Sources{Train: path, Test: path}, opts)
	if err != nil || splits.Val != nil || splits.Test.Hash() != splits.Train.Hash() {
		t.Errorf("%+v, %v", splits, err)
	}
	opts.Sample = 4
	sampled, err := LoadCausal(t.Context(), path, opts)
	if err != nil || len(sampled.Examples) != 4 || sampled.Hash() == set.Hash() {
		t.Errorf("%+v, %v", sampled, err)
	}
	for _, src := range []Sources{{}, {Data: path, Stratify: true}, {Train: write(t, "b.txt", "\n")}, {Data: write(t, "c.txt", "x\n")}} {
		if _, err := LoadCausalSplits(t.Context(), src, CausalOptions{}); err == nil {
			t.Errorf("%+v is accepted", src)
		}
	}

	r, err := OpenCausal(path, CausalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := 0
	for err == nil {
		if _, err = r.Next(); err == nil {
			n++
		}
	}
	if n != 10 || !rows.IsBad(err) || errors.Is(err, io.EOF) {
		t.Errorf("%d examples, then %v", n, err)
	}
}
