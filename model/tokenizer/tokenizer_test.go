package tokenizer

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestInvalidUTF8IsReadAsReplacementCharacters(t *testing.T) {
	for _, name := range []string{"bert-uncased", "spm-legacy", "level-llama3", "level-gaps"} {
		tok := mustLoad(t, tinyFolder(t, name))
		for _, text := range []string{"\xff", "a\xffb", "\xe4\xb8", "caf\xc3 \x80\x80x", "\xed\xa0\x80", "\xf0\x9f\x98a"} {
			got, err := tok.Encode(text, Options{AddSpecial: true})
			if err != nil {
				t.Fatal(err)
			}
			want, err := tok.Encode(string([]rune(text)), Options{AddSpecial: true})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want.IDs, got.IDs) + cmp.Diff(want.Offsets, got.Offsets); d != "" {
				t.Errorf("%s: Encode(%q) differs from that of its runes:\n%s", name, text, d)
			}
		}
	}
}

func TestOffsetsCutTheTextInRunes(t *testing.T) {
	tok := mustLoad(t, tinyFolder(t, "bert-cased"))
	text := "Zoë fährt nach 北京."
	e, err := tok.Encode(text, Options{})
	if err != nil {
		t.Fatal(err)
	}
	runes := []rune(text)
	for i, token := range e.Tokens() {
		if token == "[UNK]" {
			continue
		}
		piece := string(runes[e.Offsets[i][0]:e.Offsets[i][1]])
		if want := strings.TrimPrefix(token, "##"); piece != want {
			t.Errorf("token %d, %q, comes from %q", i, token, piece)
		}
	}
}

func TestMaxLengthKeepsSpecialTokens(t *testing.T) {
	tok := mustLoad(t, tinyFolder(t, "bert-cased"))
	cls, _ := tok.CLSID()
	sep, _ := tok.SEPID()
	text := strings.Repeat("the quick brown fox ", 50)
	whole, err := tok.EncodeIDs(nil, text, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{2, 3, 10, 64} {
		want := append(append([]int64{cls}, whole[:n-2]...), sep)
		got, err := tok.EncodeIDs(nil, text, Options{AddSpecial: true, MaxLength: n})
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("EncodeIDs to %d: %v -want +got\n%s", n, err, d)
		}
		e, err := tok.Encode(text, Options{AddSpecial: true, MaxLength: n})
		if d := cmp.Diff(want, e.IDs); d != "" || err != nil {
			t.Errorf("Encode to %d: %v -want +got\n%s", n, err, d)
		}
	}
	if _, err := tok.Encode(text, Options{AddSpecial: true, MaxLength: 1}); err == nil {
		t.Error("a maximal length below the number of special tokens is no error")
	}
	if _, err := tok.Encode(text, Options{MaxLength: -1}); err == nil {
		t.Error("a negative maximal length is no error")
	}
}

func TestEncodeIDsAppends(t *testing.T) {
	tok := mustLoad(t, tinyFolder(t, "spm-legacy"))
	first, err := tok.EncodeIDs([]int64{7}, "the fox", Options{})
	if err != nil {
		t.Fatal(err)
	}
	alone, err := tok.EncodeIDs(nil, "the fox", Options{})
	if d := cmp.Diff(append([]int64{7}, alone...), first); d != "" || err != nil {
		t.Errorf("%v -want +got\n%s", err, d)
	}
}

func TestEncodeBatchKeepsOrder(t *testing.T) {
	tok := mustLoad(t, tinyFolder(t, "level-llama3"))
	var texts []string
	for i := range 500 {
		texts = append(texts, strings.Repeat("the lazy dog ", i%17)+string(rune('a'+i%26)))
	}
	got, err := tok.EncodeBatch(context.Background(), texts, Options{AddSpecial: true, MaxLength: 20})
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range texts {
		want, err := tok.Encode(text, Options{AddSpecial: true, MaxLength: 20})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want.IDs, got[i].IDs); d != "" {
			t.Fatalf("text %d: -want +got\n%s", i, d)
		}
	}
	if out, err := tok.EncodeBatch(context.Background(), nil, Options{}); err != nil || len(out) != 0 {
		t.Errorf("an empty batch: %v, %v", out, err)
	}
}

func TestEncodeBatchStops(t *testing.T) {
	tok := mustLoad(t, tinyFolder(t, "bert-cased"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := tok.EncodeBatch(ctx, []string{"a", "b"}, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := tok.EncodeBatch(context.Background(), []string{"a", "b"}, Options{AddSpecial: true, MaxLength: 1}); err == nil {
		t.Error("no error from a batch that cannot be encoded")
	}
}

func TestConcurrentUse(t *testing.T) {
	tok := mustLoad(t, tinyFolder(t, "level-nfc"))
	want, err := tok.EncodeIDs(nil, "naïve café 123", Options{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				got, err := tok.EncodeIDs(nil, "naïve café 123", Options{})
				if err != nil || !cmp.Equal(want, got) {
					t.Errorf("got %v, %v", got, err)
				}
				if tok.Decode(got, true) != "naïve café 123" {
					t.Errorf("decoded to %q", tok.Decode(got, true))
				}
			}
		})
	}
	wg.Wait()
}

func TestLongWordsOfAnyLengthMergeTheSame(t *testing.T) {
	// The two ways to merge, for short and for long words, must agree.
	for _, name := range []string{"level-llama3", "spm-legacy", "level-nfc"} {
		tok := mustLoad(t, tinyFolder(t, name))
		b := tok.model.(*bpe)
		var r recording
		readGzip(t, filepath.Join("testdata", "tiny-"+name+".golden.json.gz"), &r)
		for _, c := range r.Cases {
			word := strings.Join(strings.Fields(c.Text), "")
			for from := 0; from < len(word); from += 30 {
				e := newEncoder(tok)
				if err := b.symbols(e, []byte(strings.ToValidUTF8(word[from:min(len(word), from+30)], ""))); err != nil {
					t.Fatal(err)
				}
				if len(e.subs) < 2 || len(e.subs) > shortWord {
					continue
				}
				long := newEncoder(tok)
				long.subs = append(long.subs, e.subs...)
				b.merge(e)
				b.mergeLong(long)
				if d := cmp.Diff(e.subs, long.subs, cmp.AllowUnexported(subword{})); d != "" {
					t.Fatalf("%s: %q: -short +long\n%s", name, word, d)
				}
			}
		}
	}
}

// A word in pieces has the tokens and offsets that it has at once, wherever the pieces end.
func TestWordsInPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	draw := func(n int, letters ...string) string {
		var b strings.Builder
		for b.Len() < n {
			b.WriteString(letters[r.IntN(len(letters))])
		}
		return b.String()
	}
	words := map[string]string{
		"one letter": strings.Repeat("a", 3000), "two in turn": strings.Repeat("ab", 1500), "letters": draw(3000, strings.Split("etaoinshrdlu", "")...),
		"DNA": draw(3000, "A", "C", "G", "T"), "syllables": draw(3000, "th", "e", "ing", "er", "an", "re", "ou"), "spaces": strings.Repeat(" ", 3000),
		"wide": draw(3000, "é", "ß", "漢", "字", "😀", "a"), "unknown": draw(3000, "\u2603", "\u0ca0", "a"), "marks": draw(3000, "▁", "▁the", "Ġ", "e"),
	}
	for _, name := range []string{"level-llama3", "spm-legacy", "level-nfc"} {
		tok := mustLoad(t, tinyFolder(t, name))
		b := tok.model.(*bpe)
		for kind, word := range words {
			whole := newEncoder(tok)
			whole.offsets = true
			if err := b.encode(whole, []byte(word)); err != nil {
				t.Fatal(err)
			}
			in := text{b: []byte(word), base: 7}
			whole.addWord(in, 0, whole.subs)
			failed := 0
			for _, size := range []int{40, 64, 100, 333, 1000, 2999} {
				e := newEncoder(tok)
				e.offsets = true
				e.ids, e.spans = append(e.ids, 1), append(e.spans, span{}) // of a word before
				done, err := b.pieces(e, in, size)
				if err != nil {
					t.Fatal(err)
				}
				if !done {
					failed++
					if len(e.ids) != 1 || len(e.spans) != 1 {
						t.Errorf("%s, %s in pieces of %d: %d tokens were added", name, kind, size, len(e.ids)-1)
					}
					continue
				}
				if !slices.Equal(e.ids[1:], whole.ids) || !slices.Equal(e.spans[1:], whole.spans) {
					t.Errorf("%s, %s in pieces of %d: other tokens", name, kind, size)
				}
				e.limit = 20
				e.ids, e.spans = e.ids[:0], e.spans[:0]
				if done, err := b.pieces(e, in, size); !done || err != nil || len(e.ids) < 20 || !slices.Equal(e.ids[:20], whole.ids[:20]) {
					t.Errorf("%s, %s in pieces of %d: other tokens up to a limit, %v", name, kind, size, err)
				}
			}
			if failed > 2 && kind != "unknown" {
				t.Errorf("%s, %s: %d sizes of 6 did not do", name, kind, failed)
			}
		}
	}
}

// A text in stretches has the tokens and offsets that it has at once.
func TestTextsInStretches(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	r := rand.New(rand.NewPCG(5, 6))
	var b strings.Builder
	for b.Len() < 3*stretch {
		b.WriteString([]string{" the", " ", "a", "é", "ing ", "▁", "▁ x", " ▁", "\u2603", "\n", "A", " E\u0301\u0323 ", "\u0301", "İ", "中", "\x01", "\v", "\u0085", ";\u0338", "\u037e", "\u3000", "，"}[r.IntN(22)])
	}
	long := b.String()
	in := 0
	for _, name := range []string{"spm-legacy", "spm-unknown", "bert-uncased", "bert-cased"} {
		tok := mustLoad(t, tinyFolder(t, name))
		if tok.behind == nil {
			continue
		}
		in++
		for kind, text := range map[string]string{"mixed": long, "without spaces": strings.NewReplacer(" ", "", "\n", "").Replace(long), "dropped": strings.NewReplacer(" ", "\v", ";", "\u0085").Replace(long), "no space": strings.Repeat("x", 2*stretch), "spaces": strings.Repeat(" ", 2*stretch), "leading": strings.Repeat(" ", stretch) + long[:stretch]} {
			got, err := tok.Encode(text, Options{AddSpecial: true})
			if err != nil {
				t.Fatal(err)
			}
			few, err := tok.Encode(text, Options{MaxLength: 50})
			if err != nil {
				t.Fatal(err)
			}
			behind := tok.behind
			tok.behind = nil
			want, err := tok.Encode(text, Options{AddSpecial: true})
			wantFew, errFew := tok.Encode(text, Options{MaxLength: 50})
			tok.behind = behind
			if err := errors.Join(err, errFew); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.IDs, want.IDs) || !slices.Equal(got.Offsets, want.Offsets) || !slices.Equal(few.IDs, wantFew.IDs) || !slices.Equal(few.Offsets, wantFew.Offsets) {
				t.Errorf("%s, %s: other tokens in stretches", name, kind)
			}
		}
	}
	if in < 3 {
		t.Errorf("%d tokenizers take a text in stretches", in)
	}
}

func TestVeryLongWord(t *testing.T) {
	for _, name := range []string{"bert-uncased", "spm-legacy", "level-llama3"} {
		tok := mustLoad(t, tinyFolder(t, name))
		word := strings.Repeat("thequickbrownfoxé", 30000)
		ids, err := tok.EncodeIDs(nil, word, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if name != "bert-uncased" && strings.TrimSpace(tok.Decode(ids, false)) != word {
			t.Errorf("%s: a word of %d bytes does not come back", name, len(word))
		}
	}
}

func TestNamedTokens(t *testing.T) {
	dir := tinyFolder(t, "bert-cased")
	tok := mustLoad(t, dir)
	// Without a configuration: from the template and the model.
	for name, get := range map[string]func() (int64, bool){"[CLS]": tok.CLSID, "[SEP]": tok.SEPID, "[UNK]": tok.UnkID} {
		want, _ := tok.TokenToID(name)
		if id, ok := get(); !ok || id != want {
			t.Errorf("%s: got %d, %v, want %d", name, id, ok, want)
		}
	}
	if _, ok := tok.PadID(); ok {
		t.Error("a padding token out of nowhere")
	}
	roles := func(want map[string]func() (int64, bool)) {
		t.Helper()
		for name, get := range want {
			wantID, known := tok.TokenToID(name)
			if id, ok := get(); ok != known || ok && id != wantID {
				t.Errorf("%s: got %d, %v, want %d", name, id, ok, wantID)
			}
		}
	}
	// Of old files special_tokens_map.json counts, of those that list the added tokens tokenizer_config.json alone.
	const config = `"pad_token": "[PAD]", "bos_token": {"content": "[CLS]"}, "eos_token": null,
		"chat_template": [{"name": "tool", "template": "no"}, {"name": "default", "template": "yes"}]}`
	write(t, dir, "tokenizer_config.json", "{"+config)
	write(t, dir, "special_tokens_map.json", `{"pad_token": {"content": "[MASK]"}, "eos_token": "[SEP]"}`)
	tok = mustLoad(t, dir)
	roles(map[string]func() (int64, bool){"[MASK]": tok.PadID, "[CLS]": tok.BOSID, "[SEP]": tok.EOSID})
	write(t, dir, "tokenizer_config.json", `{"added_tokens_decoder": {}, `+config)
	tok = mustLoad(t, dir)
	roles(map[string]func() (int64, bool){"[PAD]": tok.PadID, "[CLS]": tok.BOSID, "no token": tok.EOSID})
	if got := tok.ChatTemplate(); got != "yes" {
		t.Errorf("chat template %q", got)
	}
	write(t, dir, "chat_template.jinja", "a file of its own")
	if got := mustLoad(t, dir).ChatTemplate(); got != "a file of its own" {
		t.Errorf("chat template %q", got)
	}
	if token, ok := tok.IDToToken(int64(tok.VocabSize())); ok {
		t.Errorf("an id past the end is %q", token)
	}
	if _, ok := tok.IDToToken(-1); ok {
		t.Error("the id -1 is a token")
	}
	if got := tok.Decode([]int64{-1, 1 << 40}, false); got != "" {
		t.Errorf("ids outside the vocabulary decode to %q", got)
	}
}

// TestAddedTokensOfOldFolders: what transformers gives for the same files. "Newword" is found in the lowercased text, as it
// is no special token, and "[x]" is not, as special ones are looked for in the text as it is.
func TestAddedTokensOfOldFolders(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nworld\n[\nx\n]\n")
	write(t, dir, "tokenizer_config.json", `{"tokenizer_class": "BertTokenizer", "do_lower_case": true}`)
	write(t, dir, "special_tokens_map.json", `{"pad_token": "[END]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "additional_special_tokens": ["[X]"]}`)
	write(t, dir, "added_tokens.json", `{"newword": 11, "[X]": 10, "[END]": 12}`)
	tok := mustLoad(t, dir)
	got, err := tok.EncodeIDs(nil, "Hello [X] Newword [x] World", Options{AddSpecial: true})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int64{2, 5, 10, 11, 7, 8, 9, 6, 3}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if id, ok := tok.PadID(); !ok || id != 12 || tok.VocabSize() != 13 {
		t.Errorf("padding %d, %t, of %d tokens", id, ok, tok.VocabSize())
	}
	write(t, dir, "added_tokens.json", `{"": 1}`)
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "added_tokens.json") {
		t.Errorf("got %v", err)
	}
}

func TestSaveCopiesTheSource(t *testing.T) {
	dir, to := tinyFolder(t, "level-digits"), t.TempDir()
	write(t, dir, "tokenizer_config.json", "{\"eos_token\":  \"<|endoftext|>\"}\n")
	write(t, dir, "model.safetensors", "not ours")
	if err := mustLoad(t, dir).Save(to); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tokenizer.json", "tokenizer_config.json"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(to, name))
		if err != nil || string(got) != string(want) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
	if entries, err := os.ReadDir(to); err != nil || len(entries) != 2 {
		t.Errorf("saved %v, %v", entries, err)
	}
	if err := mustLoad(t, dir).Save(filepath.Join(to, "nowhere")); err == nil {
		t.Error("no error from saving into a folder that does not exist")
	}
	if err := mustLoad(t, dir).Save(dir); err != nil {
		t.Errorf("saving a tokenizer over itself: %v", err)
	}
}

func write(t testing.TB, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func FuzzEncode(f *testing.F) {
	var toks []*Tokenizer
	for _, name := range []string{"bert-uncased", "spm-legacy", "spm-metaspace", "spm-unknown", "level-llama3", "level-prefix", "level-nfc", "level-gaps"} {
		toks = append(toks, mustLoad(f, tinyFolder(f, name)))
	}
	for _, s := range []string{"", "Hello, wörld! 123", " <mask> </s> wordy", "\xff\xfe", "中文e\u0301\u0323", "'LL 'ſ\r\n \n", "[CLS]<s><|x|>"} {
		f.Add(s, 0)
		f.Add(s, 5)
	}
	f.Fuzz(func(t *testing.T, text string, n int) {
		o := Options{AddSpecial: true, MaxLength: max(0, n%100)}
		for _, tok := range toks {
			e, err := tok.Encode(text, o)
			if err != nil {
				continue
			}
			runes := utf8.RuneCountInString(text)
			for i, at := range e.Offsets {
				if at[0] < 0 || at[0] > at[1] || at[1] > runes {
					t.Fatalf("token %d has the range %v in a text of %d", i, at, runes)
				}
			}
			ids, err := tok.EncodeIDs(nil, text, o)
			if err != nil || !cmp.Equal(ids, e.IDs) && len(ids)+len(e.IDs) > 0 {
				t.Fatalf("EncodeIDs %v, %v; Encode %v", ids, err, e.IDs)
			}
			whole := tok.Decode(ids, true)
			s := tok.NewStream()
			parts := ""
			for _, id := range ids {
				parts += s.Push(id)
			}
			if parts += s.Flush(); o.MaxLength == 0 && parts != whole {
				t.Fatalf("streamed %+q, decoded %+q", parts, whole)
			}
		}
	})
}
