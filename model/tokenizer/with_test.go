package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestNewTokensAsTransformersAddsThem: ids, texts with the tokens in them, and the same from the folder that Save writes
// (scripts/goldens/tokenizer_new.py).
func TestNewTokensAsTransformersAddsThem(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("testdata", "new_tokens.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Tokens, Texts []string
		Folders       []struct {
			Name    string
			Files   map[string]string
			New     []int64
			IDs     [][]int64
			Decoded []string
		}
	}
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	for _, f := range want.Folders {
		t.Run(f.Name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range f.Files {
				write(t, dir, name, content)
			}
			base := mustLoad(t, dir)
			tok, ids, err := base.With(want.Tokens...)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(f.New, ids); d != "" {
				t.Errorf("ids: -want +got\n%s", d)
			}
			saved := t.TempDir()
			if err := tok.Save(saved); err != nil {
				t.Fatal(err)
			}
			if keep := os.Getenv("GOPEFT_EXPORT"); keep != "" { // for tokenizer_new.py open
				if err := tok.Save(keep); err != nil {
					t.Fatal(err)
				}
			}
			for what, tok := range map[string]*Tokenizer{"made": tok, "read back": mustLoad(t, saved)} {
				for i, text := range want.Texts {
					got, err := tok.EncodeIDs(nil, text, Options{AddSpecial: true})
					if d := cmp.Diff(f.IDs[i], got, cmp.Transformer("empty", func(x []int64) []int64 { return append([]int64{}, x...) })); err != nil || d != "" {
						t.Errorf("%s: %q: %v -want +got\n%s", what, text, err, d)
					}
				}
				if tok.VocabSize() != int(ids[len(ids)-1])+1 {
					t.Errorf("%s: %d tokens", what, tok.VocabSize())
				}
			}
			if _, known := base.TokenToID(want.Tokens[0]); known {
				t.Error("the tokenizer that was extended has the new token too")
			}
		})
	}
}

func TestNewTokensThatAreNone(t *testing.T) {
	base := mustLoad(t, tinyFolder(t, "spm-legacy"))
	for _, c := range []struct{ tokens, want string }{
		{"<s>", "is a token already"}, {"<x>|<x>", "given twice"}, {"<x>| ", "new token 2 is empty"},
	} {
		if _, _, err := base.With(strings.Split(c.tokens, "|")...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.tokens, err, c.want)
		}
	}
}
