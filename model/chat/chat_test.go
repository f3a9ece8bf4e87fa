package chat

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"gopeft/model/tokenizer"
)

var special = map[string]string{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}

func TestRenderingsEqualTransformers(t *testing.T) {
	raw, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden []struct {
		Name     string
		Template string
		Cases    []struct {
			Messages []Message
			Begin    bool
			Text     string
			Error    string
			Fails    bool
		}
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range golden {
		t.Run(g.Name, func(t *testing.T) {
			tm, err := Parse(g.Template, special)
			if err != nil {
				t.Fatal(err)
			}
			tm.now = func() time.Time { return time.Date(2025, 3, 7, 9, 5, 2, 0, time.UTC) }
			for i, c := range g.Cases {
				n++
				got, err := tm.Render(c.Messages, c.Begin)
				switch {
				case c.Fails:
					if err == nil {
						t.Errorf("case %d: got %q, want an error", i, got)
					}
				case c.Error != "":
					if err == nil || !strings.Contains(err.Error(), c.Error) {
						t.Errorf("case %d: got %v, want the error %q", i, err, c.Error)
					}
				case err != nil:
					t.Errorf("case %d: %v", i, err)
				case got != c.Text:
					t.Errorf("case %d:\n got %q\nwant %q", i, got, c.Text)
				}
			}
		})
	}
	if n < 250 {
		t.Errorf("only %d renderings", n)
	}
}

func TestNewReadsTheTokenizer(t *testing.T) {
	tok := fake{template: "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token }}"}
	tm, err := New(tok)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tm.Render([]Message{{"user", "hi"}}, false); err != nil || got != "<1>hi<2>" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := New(fake{}); !errors.Is(err, ErrNoTemplate) {
		t.Errorf("no template: %v", err)
	}
	var _ Tokenizer = (*tokenizer.Tokenizer)(nil)
}

type fake struct{ template string }

func (f fake) ChatTemplate() string { return f.template }
func (fake) BOSID() (int64, bool)   { return 1, true }
func (fake) EOSID() (int64, bool)   { return 2, true }
func (fake) UnkID() (int64, bool)   { return 0, true }
func (fake) PadID() (int64, bool)   { return 0, false }
func (fake) IDToToken(id int64) (string, bool) {
	return "<" + string(rune('0'+id)) + ">", true
}

func FuzzParse(f *testing.F) {
	f.Add("{% for m in messages %}{{ m.role }}{% endfor %}")
	f.Add("{% macro a(x) %}{{ x | join('-') }}{% endmacro %}{{ a([1, 2]) }}")
	f.Add("{%- set ns = namespace(a=1) -%}{{ ns.a if true else raise_exception('no') }}")
	f.Fuzz(func(t *testing.T, source string) {
		tm, err := Parse(source, special)
		if err != nil {
			return
		}
		_, _ = tm.Render([]Message{{"user", "hello"}, {"assistant", "bye"}}, true)
	})
}
