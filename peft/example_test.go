package peft_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/peft"
)

// Put LoRA on a classifier, see what is trained, save the adapter and load it onto the model again.
func Example() {
	dir, err := os.MkdirTemp("", "adapter")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	err = bindings.Do(context.Background(), func(s *bindings.Scope) error {
		m, err := model.Load(s, filepath.FromSlash("../testdata/distilbert/tiny"), model.Options{Classify: true})
		if err != nil {
			return err
		}
		defer m.Close()
		method, err := peft.New("lora", peft.Options{LoRAOptions: peft.LoRAOptions{Rank: 4}, TargetOptions: peft.TargetOptions{Targets: []string{"q", "v"}}})
		if err != nil {
			return err
		}
		if err := method.Attach(s, m); err != nil {
			return err
		}
		fmt.Println(method.Summary())
		// … train method.Trainable(m) …
		if err := method.Save(s, dir, m); err != nil {
			return err
		}
		method.Close()

		info, err := peft.Probe(dir)
		if err != nil {
			return err
		}
		fmt.Println(info.Dialect, info.Method, info.NumLabels)
		again, err := peft.Load(s, dir, m)
		if err != nil {
			return err
		}
		again.Close()
		return nil
	})
	fmt.Println(err)
	// Output:
	// lora: r 4, α 8, scale α/r, on q v; A Kaiming-uniform, B zero; default learning rate 0.001; 768 parameters added and trained, and 323 of the model's
	// peft lora 3
	// <nil>
}

// Count the parameters of LLaMA-Adapter on LLaMA-7B without the model.
func ExampleCount() {
	n, err := peft.Count("llama-adapter", peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{AdapterLayers: 30, AdapterLength: 10}},
		model.Info{Family: "llama", Vocab: 32000, Hidden: 4096, Layers: 32, Heads: 32, KVHeads: 32, HeadDim: 128, FFN: 11008})
	fmt.Println(n, err)
	// Output: 1229760 <nil>
}
