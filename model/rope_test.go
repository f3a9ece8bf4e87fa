package model

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLLaMA3DivisorsGiveItsSettingsBack(t *testing.T) {
	r := Rope{Theta: 500000, Kind: "llama3", Factor: 32, LowFreq: 1, HighFreq: 4, Original: 8192}
	plain, scaled := Rope{Theta: r.Theta}.frequencies(64, 0), r.frequencies(64, 0)
	divisors := make([]float32, len(plain))
	for i := range divisors {
		divisors[i] = plain[i] / scaled[i]
	}
	got, err := llama3Scaling(divisors, r.Theta, 64)
	if err != nil || got["factor"] != 32.0 || got["original_max_position_embeddings"] != 8192 {
		t.Errorf("%v, %v", got, err)
	}
	divisors[3] = 17
	if _, err := llama3Scaling(divisors, r.Theta, 64); err == nil {
		t.Error("divisors that are nobody's were accepted")
	}
}

func TestFactsAndModelAgreeOnRoom(t *testing.T) {
	for _, config := range []string{
		`{"model_type": "llama", "max_position_embeddings": 100, "vocab_size": 77}`,
		`{"model_type": "llama", "max_position_embeddings": 100, "rope_scaling": {"type": "linear", "factor": 2.5}}`,
		`{"model_type": "llama", "max_position_embeddings": 100, "rope_scaling": {"rope_type": "dynamic", "factor": 4}}`,
		`{"model_type": "mistral"}`, `{"model_type": "qwen2"}`, `{"model_type": "llama"}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		facts, err := ReadFacts(dir)
		if err != nil {
			t.Fatal(err)
		}
		c, err := llamaConfig([]byte(config))
		if err != nil {
			t.Fatal(err)
		}
		if i := (&rotaryDecoder{kind: &rotaryKind{name: "llama"}, cfg: c}).Info(); facts.Room != i.MaxPositions || facts.Vocab != i.Vocab {
			t.Errorf("%s: facts %+v, the model %d positions of %d tokens", config, facts, i.MaxPositions, i.Vocab)
		}
	}
}
