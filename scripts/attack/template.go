package main

import (
	"math/rand/v2"
	"strings"
)

var (
	templateAtoms = []string{"messages", "message", "message['role']", "message.content", "bos_token", "undefined_name", "loop.index0", "x", "0", "1", "-1", "7", "9223372036854775807", "1e308", "'a'", "''",
		"'é\\n'", "true", "none", "[]", "[1,2]", "{}", "{'a': 1}", "namespace(n=0)", "range(3)", "range(10000000)", "messages[0]", "messages[-1]['content']", "add_generation_prompt", "tools", "raise_exception('no')", "strftime_now('%Y')"}
	templateOperators = []string{"+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "and", "or", "in", "not in", "is", "is not", "|", "."}
	templateFilters   = []string{"trim", "length", "upper", "tojson", "join(',')", "first", "last", "list", "int", "string", "default('x')", "replace('a', 'b')", "reverse", "sort", "indent(4)", "selectattr('role')", "map(attribute='x')", "batch(2)"}
	templateTests     = []string{"defined", "none", "string", "mapping", "iterable", "divisibleby(0)", "odd", "number", "sequence", "undefined"}
)

func pick(r *rand.Rand, list []string) string { return list[r.IntN(len(list))] }

// expression is one that may or may not be right.
func expression(r *rand.Rand, depth int) string {
	if depth > 4 {
		return pick(r, templateAtoms)
	}
	a := func() string { return expression(r, depth+1) }
	switch r.IntN(12) {
	case 0, 1:
		return a() + " " + pick(r, templateOperators) + " " + a()
	case 2:
		return "(" + a() + ")"
	case 3:
		return a() + " | " + pick(r, templateFilters)
	case 4:
		return a() + " is " + pick(r, templateTests)
	case 5:
		return "not " + a()
	case 6:
		return a() + "[" + a() + "]"
	case 7:
		return a() + "[" + a() + ":" + a() + "]"
	case 8:
		return a() + " if " + a() + " else " + a()
	case 9:
		return "[" + a() + ", " + a() + "]"
	}
	return pick(r, templateAtoms)
}

// template is a chat template made of what templates are made of, now and then with a piece too much or too little.
func template(r *rand.Rand, depth int) string {
	var b strings.Builder
	for range 1 + r.IntN(4) {
		inner := func() string {
			if depth > 3 {
				return "x"
			}
			return template(r, depth+1)
		}
		switch r.IntN(11) {
		case 0:
			b.WriteString("{% for message in " + expression(r, 1) + " %}" + inner() + "{% endfor %}")
		case 1:
			b.WriteString("{% if " + expression(r, 1) + " %}" + inner() + "{% elif " + expression(r, 2) + " %}" + inner() + "{% else %}" + inner() + "{% endif %}")
		case 2:
			b.WriteString("{%- set x = " + expression(r, 1) + " -%}")
		case 3:
			b.WriteString("{% macro m(a, b=1) %}" + inner() + "{% endmacro %}{{ m(" + expression(r, 2) + ") }}")
		case 4:
			b.WriteString("{# " + pick(r, templateAtoms) + " #}")
		case 5:
			b.WriteString(pick(r, []string{"{% if 1 not %}", "{{", "{%", "{% endif %}", "{% for %}", "{{ 1%0 }}", "{{ 7//0 }}", "{% raw %}{{{% endraw %}", "{% set x.y = 1 %}", "{{ '%s' % 1 }}", "{% break %}", "{% generation %}", "\x1b[31m", "\x00"}))
		case 6:
			b.WriteString("{% for a in range(99999) %}{% for b in range(99999) %}" + inner() + "{% endfor %}{% endfor %}")
		case 7:
			b.WriteString(" words ")
		default:
			b.WriteString("{{ " + expression(r, 0) + " }}")
		}
	}
	return b.String()
}
