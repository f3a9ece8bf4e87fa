package tokenizer

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestFoldersAsTransformersReadsThem: what scripts/goldens/tokenizer_folders.py saw AutoTokenizer do.
func TestFoldersAsTransformersReadsThem(t *testing.T) {
	var want struct {
		A, B    string
		Folders []struct {
			Name        string
			Files       map[string]string
			Cases       json.RawMessage
			Pair, Types []int64
			Roles       map[string]int64
			Size        int
		}
	}
	readGzip(t, filepath.Join("testdata", "folders.json.gz"), &want)
	for _, f := range want.Folders {
		t.Run(f.Name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range f.Files {
				write(t, dir, name, content)
			}
			tok := mustLoad(t, dir)
			var texts recording
			if err := json.Unmarshal(f.Cases, &texts.Cases); err != nil {
				t.Fatal(err)
			}
			compare(t, tok, texts)
			pair, err := tok.EncodePair(want.A, want.B, Options{AddSpecial: true})
			if d := cmp.Diff(f.Pair, pair.IDs) + cmp.Diff(f.Types, pair.TypeIDs); d != "" || err != nil {
				t.Errorf("a pair: %v -want +got\n%s", err, d)
			}
			for role, get := range map[string]func() (int64, bool){
				"pad": tok.PadID, "unk": tok.UnkID, "cls": tok.CLSID, "sep": tok.SEPID, "bos": tok.BOSID, "eos": tok.EOSID,
			} {
				wanted, named := f.Roles[role]
				if id, ok := get(); named && (!ok || id != wanted) {
					t.Errorf("%s_token: %d, %t, want %d", role, id, ok, wanted)
				}
			}
			if tok.VocabSize() != f.Size {
				t.Errorf("%d tokens, want %d", tok.VocabSize(), f.Size)
			}
		})
	}
}

// Where LLaMA's configuration says whether a space is put in front, transformers builds the tokenizer anew.
func TestPrefixSpaceOfLLaMA(t *testing.T) {
	for config, want := range map[string]string{
		`{"tokenizer_class": "LlamaTokenizer"}`:                                               "▁a </s> ▁a",
		`{"tokenizer_class": "LlamaTokenizer", "add_prefix_space": true}`:                     "▁a </s> ▁a",
		`{"tokenizer_class": "LlamaTokenizer", "add_prefix_space": false}`:                    "a </s> a",
		`{"tokenizer_class": "LlamaTokenizer", "add_prefix_space": true, "legacy": false}`:    "▁a </s> a",
		`{"tokenizer_class": "LlamaTokenizer", "add_prefix_space": false, "legacy": false}`:   "a </s> a",
		`{"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": false}`:           "▁a </s> ▁a",
		`{"tokenizer_class": "CodeLlamaTokenizer", "add_prefix_space": false, "bos_token":1}`: "",
	} {
		dir := tinyFolder(t, "spm-legacy")
		write(t, dir, "tokenizer_config.json", config)
		tok, err := Load(dir)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "bos_token") {
				t.Errorf("%s: %v", config, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		e, err := tok.Encode("a</s>a", Options{})
		if got := strings.Join(e.Tokens(), " "); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", config, got, err, want)
		}
		if got := tok.Decode(e.IDs, true); strings.TrimSpace(got) != got || !strings.HasPrefix(got, "a") {
			t.Errorf("%s: decoded to %q", config, got)
		}
	}
}

func TestConfigurationsThatContradictTheTokenizer(t *testing.T) {
	for config, want := range map[string]string{
		`{"tokenizer_class": "LlamaTokenizer", "bos_token": null}`:                                                "there is no bos_token",
		`{"tokenizer_class": "LlamaTokenizer", "add_bos_token": false, "add_eos_token": true, "eos_token": null}`: "there is no eos_token",
	} {
		dir := tinyFolder(t, "spm-legacy")
		write(t, dir, "tokenizer_config.json", config)
		if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", config, err, want)
		}
	}
}

func TestAround(t *testing.T) {
	dir := tinyFolder(t, "spm-legacy")
	write(t, dir, "tokenizer_config.json", `{"tokenizer_class": "LlamaTokenizer", "add_eos_token": true}`)
	tok := mustLoad(t, dir)
	before, behind := tok.Around()
	bos, _ := tok.BOSID()
	eos, _ := tok.EOSID()
	if !slices.Equal(before, []int64{bos}) || !slices.Equal(behind, []int64{eos}) {
		t.Errorf("%v and %v, want %d and %d", before, behind, bos, eos)
	}
	before[0] = -1
	if again, _ := tok.Around(); again[0] != bos {
		t.Error("Around hands out what the tokenizer goes by")
	}
}

// Looking through all tokens for each, or cutting pieces everywhere, takes minutes for so many.
func TestManyAndLongPiecesTakeNoTime(t *testing.T) {
	m := &spm{bpe: true, unk: -1, bos: -1, eos: -1, pad: -1}
	for i := range 200_000 {
		m.pieces = append(m.pieces, piece{text: "<" + strings.Repeat("x", i%7) + string(rune('a'+i%13)) + "-" + strconv.Itoa(i), kind: pieceControl})
	}
	for i := range 200 {
		m.pieces = append(m.pieces, piece{text: strconv.Itoa(i) + strings.Repeat("y", maxPiece-3), kind: pieceNormal})
	}
	no := false
	s, err := m.definition(&folderConfig{roles: map[string]string{}, AddBOS: &no})
	if err != nil || len(s.added) < 200_000 {
		t.Errorf("%v", err)
	}
}

// FuzzConfiguration reads a folder of made-up files: nothing may panic.
func FuzzConfiguration(f *testing.F) {
	var recorded struct {
		Folders []struct{ Files map[string]string }
	}
	readGzip(f, filepath.Join("testdata", "folders.json.gz"), &recorded)
	for _, x := range recorded.Folders {
		f.Add(x.Files["tokenizer.json"], x.Files["tokenizer_config.json"], x.Files["special_tokens_map.json"], x.Files["added_tokens.json"], "a <x> Hello")
	}
	f.Fuzz(func(t *testing.T, tokenizer, config, special, added, text string) {
		dir := t.TempDir()
		for name, content := range map[string]string{
			"tokenizer.json": tokenizer, "tokenizer_config.json": config, "special_tokens_map.json": special, "added_tokens.json": added,
		} {
			if content != "" {
				write(t, dir, name, content)
			}
		}
		tok, err := Load(dir)
		if err != nil {
			return
		}
		fuzzUse(t, tok, text)
	})
}
