package generate_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model/generate"
	"gopeft/model/modeltest"
	"gopeft/model/modeltest/realdata"
)

func TestSmolLM2FromGGUFEqualsTransformers(t *testing.T) {
	path := realdata.Demo(t, "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
	raw, err := os.ReadFile(modeltest.Testdata(t, "llama/smollm2.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		PromptIDs []int64 `json:"prompt_ids"`
		NewIDs    []int64 `json:"new_ids"`
	}
	if err := json.Unmarshal(raw, &rows); err != nil {
		t.Fatal(err)
	}
	o, err := generate.Defaults(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int64{2}, o.EOS); diff != "" {
		t.Errorf("end tokens: %s", diff)
	}
	o.MaxNew = 16
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := load(t, s, path)
		var ps [][]int64
		for _, r := range rows {
			ps = append(ps, r.PromptIDs)
		}
		got, err := generate.Run(s, m, ps, o, nil)
		if err != nil {
			return err
		}
		for i, r := range rows {
			n := min(len(r.NewIDs), o.MaxNew)
			if diff := cmp.Diff(r.NewIDs[:n], got[i].IDs[:min(n, len(got[i].IDs))]); diff != "" {
				t.Errorf("prompt %d: %s", i+1, diff)
			}
		}
		return m.Close()
	})
}
