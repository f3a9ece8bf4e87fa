package tokenizer

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestStreamSaysWhatDecodeSays(t *testing.T) {
	texts := []string{
		"Hello, world! It's 12,345.67 dollars.", "naïve café — 中文字 日本語 안녕", "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
		"line one\n\n  line two\ttab", "ሰላም ለዓለም།", "", " ", "a", "\u0301\u0301", "�x�",
	}
	for _, name := range []string{"bert-cased", "bert-uncased", "spm-legacy", "spm-metaspace", "spm-unknown", "level-llama3", "level-digits", "level-prefix", "level-nfc"} {
		t.Run(name, func(t *testing.T) {
			tok := mustLoad(t, tinyFolder(t, name))
			for _, text := range texts {
				ids, err := tok.EncodeIDs(nil, text, Options{AddSpecial: true})
				if err != nil {
					t.Fatal(err)
				}
				s := tok.NewStream()
				var got strings.Builder
				for _, id := range ids {
					part := s.Push(id)
					if !utf8.ValidString(part) {
						t.Errorf("%q: Push(%d) says %+q, half a character", text, id, part)
					}
					got.WriteString(part)
				}
				got.WriteString(s.Flush())
				if want := tok.Decode(ids, true); got.String() != want {
					t.Errorf("%q: got %+q, want %+q", text, got.String(), want)
				}
			}
		})
	}
}

func TestStreamHoldsBackUnfinishedCharacters(t *testing.T) {
	tok := mustLoad(t, tinyFolder(t, "spm-legacy"))
	id := func(token string) int64 {
		id, ok := tok.TokenToID(token)
		if !ok {
			t.Fatalf("no token %q", token)
		}
		return id
	}
	s := tok.NewStream()
	for _, step := range []struct{ token, want string }{
		{"▁a", "a"}, {"<0xF0>", ""}, {"<0x9F>", ""}, {"<0x98>", ""}, {"<0x80>", "😀"}, {"b", "b"}, {"<0xE4>", ""}, {"c", "\uFFFDc"},
		{"<0xE4>", ""}, {"<0xE4>", "\uFFFD\uFFFD"}, {"<0x0A>", "\uFFFD"}, {"</s>", ""}, {"<0xE4>", "\uFFFD"}, {"b", "b"}, {"<0xC3>", ""},
	} {
		if got := s.Push(id(step.token)); got != step.want {
			t.Errorf("Push(%s) = %+q, want %+q", step.token, got, step.want)
		}
	}
	if got := s.Flush(); got != "\uFFFD" {
		t.Errorf("Flush() = %+q, want U+FFFD", got)
	}
	if got := s.Flush(); got != "" {
		t.Errorf("a second Flush() = %+q, want nothing", got)
	}
	if got := s.Push(id("▁a")); got != "a" {
		t.Errorf("after Flush: Push(▁a) = %+q, want a", got)
	}
}

// What is cut short is U+FFFD, once per byte token; what was returned before it stays.
func TestStreamOfBytesThatAreNoText(t *testing.T) {
	tok := mustLoad(t, tinyFolder(t, "spm-legacy"))
	for _, c := range []struct {
		tokens        string
		want, decoded string
	}{
		{"<0x0A> <0xF0> <0x9F>", "\n\uFFFD\uFFFD", "\uFFFD\uFFFD\uFFFD"},
		{"<0xF0> <0x9F> <0x98> <0x80> <0xF0> <0x9F>", "😀\uFFFD\uFFFD", strings.Repeat("\uFFFD", 6)},
		{"<0xF0> <0x9F>", "\uFFFD\uFFFD", "\uFFFD\uFFFD"},
		{"b <0xF0> <0x9F> b", "b\uFFFD\uFFFDb", "b\uFFFD\uFFFDb"},
		{"<0xF0> <0x9F> ▁a <0x0A>", "\uFFFD\uFFFD a\n", "\uFFFD\uFFFD a\n"},
		{"<0x80> <0x0A> <0x0A> b <0x0A>", "\uFFFD\uFFFD\uFFFDb\n", "\uFFFD\uFFFD\uFFFDb\n"},
		{"<0xF0> <0x9F> <0xE4> <0xB8> <0xAD>", strings.Repeat("\uFFFD", 5), strings.Repeat("\uFFFD", 5)},
		{"<0xEF> <0xBF> <0xBD> <0x0A>", "\uFFFD\n", "\uFFFD\n"},
		{"<0xE4> <unk> </s> <0xB8> <0xAD>", "中", "中"},
	} {
		var ids []int64
		for _, token := range strings.Fields(c.tokens) {
			id, ok := tok.TokenToID(token)
			if !ok {
				t.Fatalf("no token %q", token)
			}
			ids = append(ids, id)
		}
		ids = append(ids, -1, 1<<40) // no tokens: they have no text
		s := tok.NewStream()
		got := ""
		for _, id := range ids {
			got += s.Push(id)
		}
		if got += s.Flush(); got != c.want {
			t.Errorf("%s: %+q, want %+q", c.tokens, got, c.want)
		}
		if decoded := tok.Decode(ids, true); decoded != c.decoded {
			t.Errorf("%s: decoded to %+q, want %+q", c.tokens, decoded, c.decoded)
		}
	}
}
