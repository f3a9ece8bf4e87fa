package files_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gopeft/model/hf/files"
)

func ExampleOpen() {
	archive, err := files.Open("testdata/every_type.safetensors")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer archive.Close()
	weight, found := archive.Lookup("layer.0.weight")
	if !found {
		fmt.Println("no such tensor")
		return
	}
	// The second of three rows of four.
	row := make([]float32, 4)
	if err := weight.Float32(row, 4); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(weight.DType, weight.Shape, row)
	// Output: F32 [3 4] [4 5 6 7]
}

func ExampleWriteSharded() {
	folder, err := os.MkdirTemp("", "weights")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(folder)
	// Each tensor is produced when its turn comes.
	values := func(w io.Writer) error {
		data := make([]byte, 8)
		if err := files.EncodeFloat32(data, files.BF16, []float32{1, 2, 3, 4}); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	}
	names, err := files.WriteSharded(folder, "model", []files.Tensor{
		{Name: "down.weight", DType: files.BF16, Shape: []int64{2, 2}, Write: values},
		{Name: "up.weight", DType: files.BF16, Shape: []int64{2, 2}, Write: values},
	}, nil, 10)
	fmt.Println(names, err)

	archive, err := files.OpenModel(folder)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer archive.Close()
	for _, e := range archive.Entries() {
		fmt.Println(e.Name, e.Shape, filepath.Base(e.File))
	}
	// Output:
	// [model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json] <nil>
	// down.weight [2 2] model-00001-of-00002.safetensors
	// up.weight [2 2] model-00002-of-00002.safetensors
}
