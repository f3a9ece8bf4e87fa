package train_test

import (
	"os"
	"path/filepath"
	"testing"

	"gopeft/train"
)

// Each file that decides tokens, and each byte of it, makes another hash; weights do not.
func TestTokenizerHash(t *testing.T) {
	dir := t.TempDir()
	hash := func() string {
		t.Helper()
		h, err := train.TokenizerHash(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	seen := map[string]string{hash(): "nothing"}
	for _, name := range []string{"tokenizer.json", "vocab.txt", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"} {
		for _, text := range []string{"a", "b"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			h := hash()
			if was, ok := seen[h]; ok {
				t.Errorf("%s with %q: as %s", name, text, was)
			}
			seen[h] = name
		}
	}
	before := hash()
	if err := os.WriteFile(filepath.Join(dir, "model.safetensors"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if hash() != before {
		t.Error("weights make another hash")
	}
	for _, bad := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "model.safetensors")} {
		if _, err := train.TokenizerHash(t.Context(), bad); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}
