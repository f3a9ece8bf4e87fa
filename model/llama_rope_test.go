package model

import "testing"

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
