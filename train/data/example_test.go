package data_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/train/data"
)

// examples is where the examples' files live.
var examples string

func TestMain(m *testing.M) {
	var err error
	if examples, err = os.MkdirTemp("", "gopeft-example"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(examples)
	os.Exit(code)
}

// file writes a small data file for an example.
func file(name, content string) string {
	path := filepath.Join(examples, name)
	if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
		panic(err)
	}
	return path
}

func ExampleLoad() {
	path := file("reviews.csv", "review,sentiment\nA gem.,positive\n\"Dull, and long.\",negative\n")
	set, err := data.Load(context.Background(), path, data.LoadOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(set.Columns)
	fmt.Println(set.Labels)
	for _, ex := range set.Examples {
		fmt.Println(ex.Label, ex.Text)
	}
	// Output:
	// text column "review" (guessed), label column "sentiment" (guessed)
	// [negative positive]
	// 1 A gem.
	// 0 Dull, and long.
}

func ExampleExampleReader() {
	r, err := data.OpenExamples(file("texts.jsonl", `{"text":"one"}`+"\n"+`{"text":"two"}`), data.LoadOptions{NoLabels: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()
	for {
		ex, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(ex.Line, ex.Text)
	}
	// Output:
	// 1 one
	// 2 two
}

func ExampleLoadCausal() {
	path := file("e2e.csv", "mr,ref\n\"name[Aromi], food[Italian]\",Aromi serves Italian food.\n")
	set, err := data.LoadCausal(context.Background(), path, data.CausalOptions{Template: "{mr} -> {ref}"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%q\n%q\n", set.Examples[0].Prompt, set.Examples[0].Answer)
	// Output:
	// "name[Aromi], food[Italian] -> "
	// "Aromi serves Italian food."
}

// An epoch of batches, made ahead of the thread that uses them.
func Example_batches() {
	ids := [][]int64{{101, 7, 102}, {101, 102}, {101, 8, 9, 102}, {101, 5, 102}}
	sampler := data.Sampler{BatchSize: 2, Bucket: true}
	for _, seq := range ids {
		sampler.Lengths = append(sampler.Lengths, len(seq))
	}
	batches, err := sampler.Epoch(0)
	if err != nil {
		fmt.Println(err)
		return
	}
	collate := func(_ context.Context, i int) (data.Batch, error) {
		var rows [][]int64
		for _, example := range batches[i] {
			rows = append(rows, ids[example])
		}
		return data.Collate(rows, nil, data.CollateOptions{})
	}
	for batch, err := range data.Prefetch(context.Background(), len(batches), 4, 2, collate) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(batch.Rows, "×", batch.Width, batch.IDs)
	}
	// Output:
	// 2 × 4 [101 8 9 102 101 7 102 0]
	// 2 × 3 [101 5 102 101 102 0]
}

func ExamplePack() {
	rows, err := data.Pack([]int{3, 7, 5, 5}, 10)
	fmt.Println(rows, err)
	// Output: [[1 0] [2 3]] <nil>
}

func ExamplePrepare() {
	path := file("reviews.tsv", "label\ttext\n"+strings.Repeat("pos\tfine\nneg\tbad\n", 10))
	p, err := data.Prepare(context.Background(), data.PrepareOptions{
		Input: path, Out: filepath.Join(filepath.Dir(path), "split"), Ratios: []float64{0.7, 0.1, 0.2}, Stratify: true,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for i, name := range p.Files {
		fmt.Println(filepath.Base(name), len(p.Sets[i].Examples))
	}
	// Output:
	// train.csv 14
	// val.csv 2
	// test.csv 4
}
