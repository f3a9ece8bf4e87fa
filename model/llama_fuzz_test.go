package model

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// FuzzLLaMAConfig checks that any config.json is refused or gives a model that can be described.
func FuzzLLaMAConfig(f *testing.F) {
	configs, err := filepath.Glob("../testdata/llama/*/config.json")
	if err != nil || len(configs) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, path := range configs {
		raw, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := llamaConfig(raw)
		if err != nil {
			return
		}
		if len(c.Windows) != c.Layers || c.Heads%c.KVHeads != 0 || c.HeadDim%2 != 0 {
			t.Errorf("accepted %+v", c)
		}
		for _, v := range c.Rope.frequencies(c.HeadDim, 10) {
			if math.IsNaN(float64(v)) || v < 0 {
				t.Errorf("frequency %v of %+v", v, c.Rope)
			}
		}
	})
}
