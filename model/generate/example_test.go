package generate_test

import (
	"context"
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/generate"
)

func ExampleRun() {
	err := bindings.Do(context.Background(), func(s *bindings.Scope) error {
		m, err := model.Load(s, "../../testdata/llama/base", model.Options{})
		if err != nil {
			return err
		}
		defer m.Close()
		results, err := generate.Run(s, m.(model.CausalLM), [][]int64{{3, 14, 15}}, generate.Options{MaxNew: 4}, nil)
		if err != nil {
			return err
		}
		fmt.Println(len(results[0].IDs), "tokens, ended by", results[0].Reason)
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: 4 tokens, ended by length
}
