package data

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/model/fsutil"
	"gopeft/model/modeltest/realdata"
)

// The real data sets, read whole: counts are those of their sources.
func TestRealClassificationData(t *testing.T) {
	balanced := func(n int) []int { return []int{n, n} }
	for _, c := range []struct {
		file    string
		columns Columns
		labels  []string
		counts  []int
	}{
		{"imdb_train_4000.csv", Columns{Text: "review", Label: "sentiment"}, []string{"negative", "positive"}, balanced(2000)},
		{"imdb_dev_1000.csv", Columns{Text: "review", Label: "sentiment"}, []string{"negative", "positive"}, balanced(500)},
		{"sst2_train.tsv", Columns{Text: "sentence", Label: "label"}, []string{"0", "1"}, []int{29780, 37569}},
		{"sst2_dev.tsv", Columns{Text: "sentence", Label: "label"}, []string{"0", "1"}, []int{428, 444}},
		{"ag_news_7600.csv", Columns{Text: "text", Label: "label"}, []string{"Business", "Sci/Tech", "Sports", "World"}, []int{1900, 1900, 1900, 1900}},
		{"trec6_train_5452.csv", Columns{Text: "text", Label: "label"}, []string{"ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"}, []int{86, 1162, 1250, 1223, 835, 896}},
	} {
		t.Run(c.file, func(t *testing.T) {
			set, err := Load(t.Context(), realdata.Shared(t, "datasets/"+c.file), LoadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			c.columns.TextGuessed, c.columns.LabelGuessed = true, true
			if diff := cmp.Diff(c.columns, set.Columns); diff != "" {
				t.Errorf("columns (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.labels, set.Labels); diff != "" {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.counts, set.Counts()); diff != "" {
				t.Errorf("counts (-want +got):\n%s", diff)
			}
			if set.Stats.EmptyTexts > 0 {
				t.Errorf("%d empty texts", set.Stats.EmptyTexts)
			}
			if err := set.CheckTrainable(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRealCausalData(t *testing.T) {
	for _, c := range []struct {
		file            string
		template        string
		n, emptyAnswers int
		prompt, answer  string // of the first example, their beginnings
	}{
		{"alpaca_en_demo_999.json", "", 999, 0, AlpacaPrompt("Describe a process of making crepes.", ""), "Making crepes is an easy"},
		{"alpaca_libre_v1_ok_1202.json", "", 1202, 29, AlpacaPrompt("Create a palindrome sentence.", ""), "A man, a plan, a canal, Panama!"},
		{"gsm8k_train_7473.jsonl", "", 7473, 0, "Below is an instruction", "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"},
		{"gsm8k_train_7473.jsonl", "{question} {answer}", 7473, 0, "Natalia sold clips", "Natalia sold 48/2"},
		{"self_instruct_seed_tasks_175.jsonl", "", 175, 0, "Below is an instruction", "Yes, you can have 1 oatmeal"},
		{"e2e_devset_4672.csv", `{mr}\n{ref}`, 4672, 0, "name[Alimentum], area[city centre], familyFriendly[no]\n", "There is a place"},
	} {
		t.Run(c.file+" "+c.template, func(t *testing.T) {
			set, err := LoadCausal(t.Context(), realdata.Shared(t, "datasets/"+c.file), CausalOptions{Template: c.template})
			if err != nil {
				t.Fatal(err)
			}
			if len(set.Examples) != c.n || set.Stats.EmptyAnswers != c.emptyAnswers {
				t.Errorf("%d examples, %d empty answers", len(set.Examples), set.Stats.EmptyAnswers)
			}
			first := set.Examples[0]
			begins := func(s, with string) bool { return len(s) >= len(with) && s[:len(with)] == with }
			if !begins(first.Prompt, c.prompt) || !begins(first.Answer, c.answer) {
				t.Errorf("the first example: %+v", first)
			}
		})
	}
}

// Prepare a real file twice: the same parts, nothing lost, nothing doubled.
func TestRealPrepare(t *testing.T) {
	in := realdata.Shared(t, "datasets/imdb_dev_1000.csv")
	var hashes [2][]string
	for i := range hashes {
		p, err := Prepare(t.Context(), PrepareOptions{
			Input: in, Out: filepath.Join(t.TempDir(), "out"), Ratios: []float64{0.7, 0.1, 0.2}, Stratify: true, Load: LoadOptions{Seed: 123},
		})
		if err != nil {
			t.Fatal(err)
		}
		rows := 0
		for j, file := range p.Files {
			set, err := Load(t.Context(), file, LoadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			rows += len(set.Examples)
			if set.Hash() != p.Sets[j].Hash() {
				t.Errorf("%s does not hold what was split", file)
			}
			if diff := cmp.Diff(set.Counts()[0], set.Counts()[1]); diff != "" {
				t.Errorf("%s is not balanced: %s", file, diff)
			}
			sum, err := fsutil.HashFile(t.Context(), file)
			if err != nil {
				t.Fatal(err)
			}
			hashes[i] = append(hashes[i], sum)
		}
		if rows != 1000 {
			t.Errorf("%d rows", rows)
		}
	}
	if !slices.Equal(hashes[0], hashes[1]) {
		t.Error("two runs write different files")
	}
}
