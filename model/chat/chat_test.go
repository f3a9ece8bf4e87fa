package chat

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
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
	if n < 80 {
		t.Errorf("only %d renderings", n)
	}
}

func TestHostileTemplatesEnd(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("password"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, source string }{
		{"file", `{% include "` + secret + `" %}`},
		{"itself", `{% include "/chat" %}`},
		{"import", `{% import "` + secret + `" as s %}`},
		{"extends", `{% extends "/chat" %}`},
		{"block", `{% block a %}{{ self.a() }}{% endblock %}`},
		{"macro", `{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}`},
		{"macros", `{% macro a() %}{{ b() }}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{{ a() }}{% endmacro %}{{ a() }}`},
		{"recursive loop", `{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}`},
		{"range", `{% for i in range(10000000000) %}x{% endfor %}`},
		{"ranges", `{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}`},
		{"loops", `{% for i in range(1000) %}{% for j in range(1000) %}{% for k in range(1000) %}{% endfor %}{% endfor %}{% endfor %}`},
		{"repeat", `{{ "x" * 100000000000 }}`},
		{"power", `{{ 10 ** 10 ** 10 }}`},
		{"doubling", `{% set ns = namespace(x="xx") %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}`},
		{"doubling lists", `{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}`},
		{"cycle", `{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}`},
		{"append", `{% set x = [] %}{% do x.append(x) %}{{ x }}`},
		{"replace", `{% set x = messages[0].content %}{{ x|replace("", x)|replace("", x)|replace("", x)|replace("", x)|replace("", x)|replace("", x)|replace("", x)|replace("", x)|replace("", x)|length }}`},
		{"method", `{% set x = messages[0].content %}{{ x.replace("", x).replace("", x).replace("", x).replace("", x).replace("", x).replace("", x).replace("", x).replace("", x).replace("", x)|length }}`},
		{"center", `{{ "x"|center(10000000000) }}`},
		{"indent", `{{ "x\ny"|indent(10000000000) }}`},
		{"format", `{{ "%099999999d"|format(1) }}`},
		{"output", `{% for i in range(100000) %}` + strings.Repeat("x", 1000) + `{% endfor %}`},
		{"brackets", `{{ ` + strings.Repeat("(", 100000) + `1` + strings.Repeat(")", 100000) + ` }}`},
		{"length", strings.Repeat("x", maxSource+1)},
		{"division", `{{ 1 % 0 }}`},
		{"syntax", `{% if %}`},
		{"unclosed", `{% for m in messages %}`},
		{"unknown statement", `{% debug %}`},
		{"unknown filter", `{{ 1 | pprint }}`},
		{"date", `{{ strftime_now("%Q") }}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			begun := time.Now()
			tm, err := Parse(c.source, special)
			text := ""
			if err == nil {
				text, err = tm.Render([]Message{{"user", "some words, more than a few"}}, true)
			}
			if err == nil {
				t.Errorf("gave %.100q", text)
			} else if strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "chat template: ") || strings.Contains(err.Error(), "password") {
				t.Errorf("the error is %q", err)
			}
			if took := time.Since(begun); took > 2*maxTime {
				t.Errorf("took %v", took)
			}
		})
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
