package chat

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// twoMegabytes is a template's beginning, after which x is a text of two megabytes.
const twoMegabytes = `{% set ns = namespace(x="xx") %}{% for i in range(20) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{% set x = ns.x %}`

// many repeats a part of a template as often as a template may hold it.
func many(part string) string { return strings.Repeat(part, 240_000/len(part)) }

func TestHostileTemplatesEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("password"), 0o600); err != nil {
		t.Fatal(err)
	}
	loop := `{% for i in range(100000) %}` + strings.Repeat("x", 200_000) + `{% endfor %}`
	for _, c := range []struct{ name, source string }{
		{"file", `{% include "` + secret + `" %}`},
		{"itself", `{% include "/chat" %}`},
		{"import", `{% import "` + secret + `" as s %}`},
		{"extends", `{% extends "/chat" %}`},
		{"block", `{% block a %}{{ self.a() }}{% endblock %}`},
		{"macro", `{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}`},
		{"macros", `{% macro a() %}{{ b() }}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{{ a() }}{% endmacro %}{{ a() }}`},
		{"macro in a namespace", `{% set ns = namespace() %}{% macro m() %}{{ ns.m() }}{% endmacro %}{% set ns.m = m %}{{ ns.m() }}`},
		{"recursive loop", `{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}`},
		{"range", `{% for i in range(10000000000) %}x{% endfor %}`},
		{"ranges", `{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}`},
		{"loops", `{% for i in range(1000) %}{% for j in range(1000) %}{% for k in range(1000) %}{% endfor %}{% endfor %}{% endfor %}`},
		{"loops in loops", `{% set l = range(100000) %}` + strings.Repeat(`{% for x in l %}`, 20) + strings.Repeat(`{% endfor %}`, 20)},
		{"repeat", `{{ "x" * 100000000000 }}`},
		{"power", `{{ 10 ** 10 ** 10 }}`},
		{"doubling", `{% set ns = namespace(x="xx") %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}`},
		{"doubling sums", `{% set ns = namespace(x="xx") %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}`},
		{"doubling lists", `{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}`},
		{"doubling tables", `{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = {ns.x: ns.x, 1: ns.x} %}{% endfor %}{{ ns.x }}`},
		{"doubling macro", `{% macro d(s) %}{{ s }}{{ s }}{% endmacro %}{{ ` + strings.Repeat("d(", 40) + `'xxxx'` + strings.Repeat(")", 40) + ` }}`},
		{"cycle", `{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}`},
		{"namespaces in a list", `{% set ns = namespace() %}{% set x = [ns, ns] %}{% set ns.x = x %}{{ x }}`},
		{"append", `{% set x = [] %}{% do x.append(x) %}{{ x }}`},
		{"replace", `{% set x = messages[0].content %}{{ x` + strings.Repeat(`|replace("", x)`, 9) + `|length }}`},
		{"method", `{% set x = messages[0].content %}{{ x` + strings.Repeat(`.replace("", x)`, 9) + `|length }}`},
		{"methods", `{% set x = messages[0].content %}{{ x` + strings.Repeat(`.strip()`, 20_000) + ` }}`},
		{"join", `{% set x = messages[0].content %}{{ x` + strings.Repeat(`.join(x)`, 9) + `|length }}`},
		{"join filter", twoMegabytes + `{{ [1, 2, 3, 4, 5, 6]|join(x) }}`},
		{"split", twoMegabytes + `{{ x.split("x")|length }}`},
		{"split lines", twoMegabytes + `{{ x.replace("x", "\n").splitlines()|length }}`},
		{"split from the end", twoMegabytes + `{{ x.rsplit("x")|length }}`},
		{"split words", twoMegabytes + `{{ x.replace("x", "x ").split()|length }}`},
		{"characters", twoMegabytes + `{% for c in x %}{% endfor %}`},
		{"characters in a filter", twoMegabytes + `{{ x|map("upper")|join }}`},
		{"center", `{{ "x"|center(10000000000) }}`},
		{"indent", `{{ "x\ny"|indent(10000000000) }}`},
		{"format", `{{ "%099999999d"|format(1) }}`},
		{"json", twoMegabytes + `{{ x.replace("x", '"')|tojson|tojson|tojson }}`},
		{"json, indented", `{% set ns = namespace(x=[1]) %}{% for i in range(50) %}{% set ns.x = [ns.x, 1, 1, 1] %}{% endfor %}{{ [ns.x` + many(", ns.x") + `]|tojson(indent=16) }}`},
		{"output", `{% for i in range(100000) %}` + strings.Repeat("x", 1000) + `{% endfor %}`},
		{"output of values", twoMegabytes + many(`{{ x }}`)},
		{"block set", `{% set x %}{% for i in range(400000) %}` + strings.Repeat("x", 200_000) + `{% endfor %}{% endset %}`},
		{"block set of a loop", `{% set x %}` + loop + `{% endset %}`},
		{"block set of values", twoMegabytes + `{% set y %}` + many(`{{ x }}`) + `{% endset %}`},
		{"block set with a filter", `{% set x | length %}` + loop + `{% endset %}`},
		{"filter block", `{% filter length %}` + loop + `{% endfilter %}`},
		{"macro's body", `{% macro m() %}` + loop + `{% endmacro %}{{ m()|length }}`},
		{"macro's values", twoMegabytes + `{% macro m() %}` + many(`{{ x }}`) + `{% endmacro %}{{ m()|length }}`},
		{"call's body", `{% macro m() %}{{ caller()|length }}{% endmacro %}{% call m() %}` + loop + `{% endcall %}`},
		{"bodies in bodies", `{% set a %}{% if true %}{% with x = 1 %}{% generation %}` + loop + `{% endgeneration %}{% endwith %}{% endif %}{% endset %}`},
		{"many sums", twoMegabytes + `{% for i in range(1000) %}{% set y = x ~ i %}{% endfor %}`},
		{"many captures", twoMegabytes + `{% for i in range(1000) %}{% set y %}{{ x }}{% endset %}{% endfor %}`},
		{"many slices", twoMegabytes + `{% for i in range(1000) %}{% set y = x[1:] %}{% endfor %}`},
		{"many filters", twoMegabytes + `{% for i in range(1000) %}{% set y = x|upper %}{% endfor %}`},
		{"many macros", twoMegabytes + `{% macro m() %}{{ x }}{% endmacro %}{% for i in range(1000) %}{{ m()|length }}{% endfor %}`},
		{"long sum", twoMegabytes + `{{ x` + many(` ~ x`) + ` }}`},
		{"list", twoMegabytes + `{{ [x` + many(`, x`) + `] }}`},
		{"tuple", twoMegabytes + `{{ (x` + many(`, x`) + `) < "a" }}`},
		{"dictionary", twoMegabytes + `{{ {1: x` + many(`, 1: x`) + `} }}`},
		{"namespace", twoMegabytes + `{{ namespace(a=x, b=x, c=x, d=x, e=x) }}`},
		{"names", twoMegabytes + `{{ dict(a=x, b=x, c=x, d=x, e=x) }}`},
		{"macro's arguments", twoMegabytes + `{% macro m(l) %}{{ l|length }}{% endmacro %}{{ m([x, x, x, x, x]) }}`},
		{"date", `{{ strftime_now("%Q") }}`},
		{"long date", twoMegabytes + `{{ strftime_now(x.replace("x", "%A")) }}`},
		{"attributes", `{{ x` + many(".a") + ` }}`},
		{"indices", `{{ x` + many("[0]") + ` }}`},
		{"brackets", `{{ ` + strings.Repeat("(", 100000) + `1` + strings.Repeat(")", 100000) + ` }}`},
		{"length", strings.Repeat("x", maxSource+1)},
		{"division", `{{ 1 % 0 }}`},
		{"syntax", `{% if %}`},
		{"unclosed", `{% for m in messages %}`},
		{"unclosed set", `{% set x %}`},
		{"set of nothing", `{% set x = %}`},
		{"set of an element", `{% set messages[0] = 1 %}`},
		{"set of a message", `{% set m = messages[0] %}{% set m.role = 1 %}`},
		{"with of nothing", `{% with 1 %}{% endwith %}`},
		{"empty index", `{{ messages[] }}`},
		{"unknown statement", `{% debug %}`},
		{"unknown filter", `{{ 1 | pprint }}`},
		{"unknown method", `{{ messages[0].pop("role") }}`},
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
			var memory runtime.MemStats
			if runtime.ReadMemStats(&memory); memory.HeapSys > 1<<30 {
				t.Fatalf("took %d MB", memory.HeapSys>>20)
			}
		})
	}
}

func TestReasonsAreNamed(t *testing.T) {
	for source, want := range map[string]string{
		`{{ raise_exception("no " ~ messages[0].role) }}`: "chat template: no user",
		`{% set x = 1 %}{{ x.strip() }}`:                  `a number has no method "strip"`,
		`{{ messages[0].content.strip(1) }}`:              "strip: needs a text, not a number",
		`{{ messages[0].content + 1 }}`:                   "a text and a number do not add up",
		`{{ nothing[0] }}`:                                "an undefined value has no elements",
		`{% for x in 1 %}{% endfor %}`:                    "a number has no elements",
	} {
		tm, err := Parse(source, special)
		if err == nil {
			_, err = tm.Render([]Message{{"user", "hi"}}, true)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", source, err, want)
		}
	}
}

// What Python computes for the same expressions, or refuses.
func TestDivisionIsPythons(t *testing.T) {
	for source, want := range map[string]string{
		"{{ 7 // 2 }}": "3", "{{ -7 // 2 }}": "-4", "{{ 7 // -2 }}": "-4", "{{ -7 % 3 }}": "2", "{{ 7 % -3 }}": "-2", "{{ 7 % 3 }}": "1", "{{ True % 2 }}": "1",
		"{{ 7.5 % 2 }}": "1.5", "{{ 9 / 2 }}": "4.5",
		"{{1%0}}": "division by zero", "{{7//0}}": "division by zero", "{{ 1 / 0 }}": "division by zero", "{{ 1 % 0.0 }}": "division by zero", "{{ 1 % false }}": "division by zero",
		"{{ 'a' % 1 }}": "cannot be computed", "{% if 1 not %}a{% endif %}": "not valid",
	} {
		tm, err := Parse(source, nil)
		got := ""
		if err == nil {
			got, err = tm.Render([]Message{{Role: "user", Content: "x"}}, true)
		}
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%s: %q, want %q", source, got, want)
		}
	}
}
