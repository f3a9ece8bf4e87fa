package classic_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"gopeft/train/classic"
)

func Example() {
	ctx := context.Background()
	// Four samples of two features; the first feature decides.
	x := classic.Matrix{Rows: 4, Cols: 2, Data: []float32{
		-2, 1,
		-1, 5,
		1, 5,
		2, 1,
	}}
	labels := []int{0, 0, 1, 1}
	names := []string{"negative", "positive"}

	model, err := classic.FitLogisticRegression(ctx, x, labels, len(names), classic.LogisticOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}

	dir, err := os.MkdirTemp("", "classic")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "classifier.safetensors")
	if err := classic.Save(path, classic.Saved{Model: model, Labels: names}); err != nil {
		fmt.Println(err)
		return
	}
	loaded, err := classic.Load(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	predicted, err := loaded.Model.Predict(ctx, classic.Matrix{Rows: 1, Cols: 2, Data: []float32{1.5, 3}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(loaded.Labels[predicted[0]])
	// Output: positive
}

func ExampleFitForest() {
	// The classes of exclusive or: no single split helps, two do.
	x, labels := classic.NewMatrix(40, 2), make([]int, 40)
	for i := range labels {
		a, b := i%2, i/2%2
		x.Row(i)[0], x.Row(i)[1] = float32(a), float32(b)
		labels[i] = a ^ b
	}
	forest, err := classic.FitForest(context.Background(), x, labels, 2, classic.ForestOptions{Trees: 25, Seed: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	corners := classic.Matrix{Rows: 4, Cols: 2, Data: []float32{0, 0, 0, 1, 1, 0, 1, 1}}
	fmt.Println(forest.Predict(context.Background(), corners))
	// Output: [0 1 1 0] <nil>
}
