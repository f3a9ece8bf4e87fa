#!/usr/bin/env python3
"""Chat templates written for this purpose, one per group of constructs that published ones use, as transformers renders them.

Writes model/chat/testdata/golden.json: a list of {name, template, cases: [{messages, begin, text or error or fails}]}.
"""

import datetime
import json

import tiny
from jinja2.exceptions import TemplateError
from transformers.utils import chat_template_utils

OUT = tiny.TESTDATA.parent / "model" / "chat" / "testdata"
TOKENS = dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>")

TEMPLATES = {
    "turns with a default system": """{% for m in messages %}{% if loop.first and m['role'] != 'system' %}{{ '<|open|>system\\nBe kind.<|shut|>\\n' }}{% endif %}
{{ '<|open|>' + m['role'] + '\\n' + m['content'] + '<|shut|>' + '\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<|open|>assistant\\n' }}{% endif %}""",
    "system folded into the first turn": """{% if messages[0]['role'] == 'system' %}
    {% set turns = messages[1:] %}
    {% set system = messages[0]['content'].strip() %}
{% else %}
    {% set turns = messages %}
    {% set system = false %}
{% endif %}
{% for m in turns %}
    {% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must take turns: user, assistant, user, ...') }}
    {% endif %}
    {% if loop.index0 == 0 and system %}
        {% set content = '<<' + system + '>>\\n' + m['content'] %}
    {% else %}
        {% set content = m['content'] %}
    {% endif %}
    {% if m['role'] == 'user' %}
        {{ bos_token + '[ASK] ' + content.strip() + ' [/ASK]' }}
    {% elif m['role'] == 'assistant' %}
        {{ ' ' + content | trim + ' ' + eos_token }}
    {% endif %}
{% endfor %}""",
    "whitespace control": """{{- bos_token }}
{#- a comment -#}
{%- for m in messages %}
    {%- set head = '<' ~ m.role ~ '>\\n\\n' %}
  {{- head + m.content | trim }}
{%- endfor -%}
   tail
{%- if add_generation_prompt %}
    {{- '<assistant>\\n\\n' -}}
{%- endif %}
""",
    "namespace and slices": """{%- set ns = namespace(last=-1, count=0, text='') -%}
{%- for m in messages[::-1] -%}
  {%- if m.role == 'user' and ns.last < 0 -%}{%- set ns.last = messages|length - loop.index0 - 1 -%}{%- endif -%}
  {%- set ns.count = ns.count + 1 -%}
{%- endfor -%}
{{ ns.last }}/{{ ns.count }}
{% for m in messages[-2:] %}{{ loop.index }} of {{ loop.length }}: {{ m.content[:4] }}{{ ';' if not loop.last else '.' }}{% endfor %}
""",
    "macros": """{% macro turn(role, text='', close=true) %}<{{ role | upper }}>{{ text }}{% if close %}</{{ role | upper }}>{% endif %}{% endmacro %}
{% macro down(n) %}{{ n }}{% if n > 0 %},{{ down(n - 1) }}{% endif %}{% endmacro %}
{% for m in messages %}{{ turn(m.role, text=m.content) }}
{% endfor %}{{ turn('assistant', close=false) if add_generation_prompt }}{{ down(3) }}""",
    "tests and filters": """{% if tools is defined and tools is not none %}tools{% endif %}{% if not documents %}no documents{% endif %}
{% if custom is defined %}custom{% else %}{{ custom | default('plain') }}{% endif %}
{% for m in messages if m.role != 'system' %}{{ m.role | title }}={{ m.content | replace('a', '<a>') | length }} {{ m['content'] is string }} {{ m.name is defined }}
{% else %}nobody{% endfor %}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | map(attribute='role') | join('-') }} {{ 'user' in messages[-1].role }} {{ 3 // 2 }} {{ 7 % 4 }}
{{ messages[-1].content.split(' ')[-1] }} {{ messages[-1].content.startswith('W') }} {{ messages[-1].content.lower() }}|{{ messages[-1].content.strip('?. ') }}|""",
    "json and dates": """Today: {{ strftime_now('%d %b %Y') }}
{{ messages[-1].content | tojson }}
{{ messages[0] | tojson }} {{ [1, 'two', none, true, 1.5] | tojson }}
{{ {'k': [1, 2]} | tojson(indent=2) }} {{ [] | tojson }}""",
    "loop controls, blocks and raw": """{% set banner %}== {{ messages | length }} =={% endset %}{{ banner }}
{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{% if loop.index > 3 %}{% break %}{% endif %}
{% generation %}{{ m.content }}{% endgeneration %}|{% endfor %}
{% raw %}{{ not a variable }}{% endraw %}{% for i in range(3) %}{{ i }}{% endfor %}{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}
{% with x = 5 %}{{ x }}{% endwith %}{{ 'yes' if add_generation_prompt and true else 'no' }}""",
    "characters, keys and pairs": """{% for c in messages[0].content %}{{ loop.index0 }}{{ c }}{{ messages[0].content[loop.index0 - 1] }}{% endfor %}
{% for k in {'b': 1, 'a': 2} %}{{ k }}{% endfor %}{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}={{ v }}{{ ',' if not loop.last }}{% endfor %}
{% for m in messages %}{% for k, v in m.items() %}{{ k }}:{{ v }};{% endfor %}{% for k, v in m | items %}{{ v }}{% endfor %}{% endfor %}
{% for m in messages | reverse %}{{ m.role }}{% if loop.first %}!{% endif %} {% endfor %}{% for i in [3, 1, 2] | reverse %}{{ i }}{% endfor %}
{% for m in messages if 'A' in m.content | upper %}{{ loop.index }}{% else %}none{% endfor %}""",
    "bodies": """{% set shout | upper | trim %} {{ messages[0].content }} {% endset %}{{ shout }}
{% filter replace('e', '3') | upper %}{{ messages[-1].content }}{% endfilter %}
{% macro wrap(tag) %}<{{ tag }}>{{ caller() }}</{{ tag }}>{% endmacro %}{% call wrap('b') %}{{ messages[0].role }}{% endcall %}
{% macro pair(a, b='-') %}{{ a }}{{ b }}{% endmacro %}{% set ns = namespace(f=pair, n=0) %}{{ ns.f('x') }}{{ ns.f('x', b='y') }}
{% with a = 1, b = [1, 2] %}{{ a }}{{ b[-1] }}{% endwith %}{% set missing = 'x' if false %}{{ missing is defined }}
{% for m in messages %}{% set ns.n = ns.n + m.content | length %}{{ loop.cycle('odd', 'even') }}{% endfor %}{{ ns['n'] }}""",
    "thoughts": """{% for m in messages %}{% set content = m.content %}{% set thought = '' %}
{% if 'l' in content %}{% set thought = content.split('l')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}{% set content = content.split('l')[-1].lstrip('\\n') %}{% endif %}
{{- m.role + ': ' + (thought ~ '|').strip() + content.strip() }}{% if content.strip() == '' or content.lower() in ['hello', 'b'] %}!{% endif %}
{% endfor %}""",
    "broken lines": """{%-
if messages and
   messages[0].role in
   ['user',
'system'] -%}
first {{
messages[0].role
-}}
.
{% endif %}
{{ {
'a':
1}['a'] }}{% set text = '' if messages | length > 9 or
not
messages else 'two
lines' %}{{ text }}""",
}

# What templates write into expressions: each is a golden of its own, with x the content of the only message.
CONTENT = " Key: a,b,,c "
EXPRESSIONS = r"""
x.strip() == 'Key: a,b,,c'
'   '.strip() == ''
x.strip().lower() in ['key: a,b,,c', 'other']
x.split(':')[0] == ' Key'
x.split(':')[0].strip() ~ '|' ~ x.split(':')[1].rstrip() ~ '|' ~ x.lstrip() ~ '|'
x.split() | join('|')
x.split(',') | join('|')
x.split(',', 1) | join('|')
x.split(',', maxsplit=2) | join('|')
x.split(sep=',', maxsplit=0) | join('|')
x.rsplit(',', 1) | join('|')
x.rsplit(',') | length
'aaa'.rsplit('aa') | join('|')
' a b  c '.split(none, 1) | join('|') ~ '|'
' a b  c '.rsplit(none, 1) | join('|') ~ '|'
' a b  c '.split(none, 0) | join('|') ~ '|'
' a b  c '.rsplit() | join('|') ~ '|'
' a b  c '.split(' ') | join('|')
''.split() | length
''.split(',') | length
x.split('')
x.split(1)
x.split(',', 1, 2)
'a\nb\r\nc\n'.splitlines() | join('|')
'a\nb\r\nc\n'.splitlines(true) | length
''.splitlines() | length
'x' in x.split(',')
'b' in x.split(',')
'xyx'.strip('x') ~ 'xyx'.lstrip('x') ~ 'xyx'.rstrip('x')
'abcba'.strip('ab')
'ä€b€ä'.strip('ä€')
'a'.strip(1)
''.endswith('x')
''.startswith('')
'abc'.startswith('b', 1)
'abc'.startswith('', 4)
'abc'.endswith('b', 0, 2)
'abc'.startswith(('x', 'ab'))
'abc'.endswith(('x', 'y'))
'abc'.startswith(1)
''.find('x')
'häh€'.find('€')
'abab'.find('b', 2)
'abab'.find('b', -1)
'abab'.find('a', -1)
'abab'.find('', 4)
'abab'.find('', 5)
'abab'.rfind('ab')
'abab'.rfind('')
'aaaa'.count('aa')
'abc'.count('')
'abcabc'.count('a', 1)
'abcabc'.count('a', 1, 3)
'a-b-c'.replace('-', '+')
'a-b-c'.replace('-', '+', 1)
'abc'.replace('', '.')
'abc'.replace('', '.', 2)
'abc'.replace('b', '', -1)
'abc'.replace('b')
'abc' | replace('b', '-')
'aaa' | replace('a', 'b', 2)
'aaa' | replace('a', 'b', count=1)
', '.join(['a', 'b'])
'-'.join('abc')
'-'.join(['a', 1])
'-'.join([])
'-'.join({'a': 1, 'b': 2})
'a=b=c'.partition('=')
'a=b=c'.rpartition('=')
'abc'.partition('=')
'abc'.rpartition('=')[2]
'a=b'.partition('=')[2] == 'b'
'abc'.removeprefix('a') ~ 'abc'.removeprefix('b') ~ 'abc'.removesuffix('c') ~ 'abc'.removesuffix('')
"they're bill's FRIENDS".title()
"they're bill-goat's (new) foo_bar a/b FRIENDS" | title
'éCOLE ßa'.capitalize() ~ 'éCOLE' | capitalize
'' | capitalize
'ßa ŉx ΑΣ'.title() ~ 'ßa ŉx ΑΣ' | title
'ΑΣ'.capitalize() ~ '-AB'.capitalize() ~ ' ab c1d'.title() ~ ''.title()
'straße ΣΑΣ ŉ'.upper() ~ 'ΣΑΣ İ'.lower()
'straße' | upper ~ ('ΣΑΣ' | lower)
'12'.isdigit() ~ '1²'.isdigit() ~ '1½'.isdigit() ~ ''.isdigit() ~ '١'.isdigit()
'aé'.isalpha() ~ 'a1'.isalpha() ~ 'a1½'.isalnum() ~ 'a '.isalnum() ~ ''.isalnum()
' \t\n'.isspace() ~ 'a '.isspace() ~ ''.isspace()
'ab1'.islower() ~ 'aB'.islower() ~ '1'.islower() ~ 'AB1'.isupper() ~ 'ǅ'.isupper() ~ 'ª'.islower()
x.nothing()
'a'.lower(1)
'a'.lower().upper() is string
(x ~ 'y').strip().endswith('y')
('a,b' ~ ',c').split(',')[-1]
(x | trim).split(' ')[1]
x | trim | length
'xyx' | trim('x')
5 | trim
{'b': 1, 'a': 2}.items() | list
{'b': 1, 'a': 2} | items | list
{'b': 1, 'a': 2}.keys() | join(',')
{'b': 1, 'a': 2}.values() | join(',')
{'b': 1, 'a': 2} | dictsort
{'b': 1, 'a': 2} | dictsort(false, 'value')
{'b': 1, 'A': 2, 'c': 0} | dictsort(reverse=true)
{2: 'x', 1: 'y'}.items() | list
{2: 'x', 1: 'y'}[1]
{'b': 1, 'a': 2}.get('a') == 2
{'a': 2}.get('x', 'other')
{'a': 2}.get('x') is none
{'a': 2}['x'] is defined
{'a': 2}.x is defined
{'b': 1, 'a': 2}.copy() | tojson
dict(b=1, a=2) | tojson
dict(z=1, y=dict(x=2, w=3), a=[1])
messages[0].items() | list | length
messages[0].keys() | join(',')
messages[0] | tojson
messages[0]
messages[0].get('role') ~ messages[0].get('name', '?')
messages[0].pop('role')
[3, 1, 2] | reverse | join(',')
['b', 'C', 'a'] | reverse | list
[] | reverse | list
'añb€' | reverse
{'b': 1, 'a': 2} | reverse | list
5 | reverse
'a' in 'ABC' | lower
'a' not in 'ABC' | lower
'A' in 'ABC' | lower or 'b' in 'AB' | lower and true
('b' in ['a', 'b'] | join('') | upper) ~ '!'
'B' in ['a', 'b'] | map('upper') | list
'ab' in 'a' + 'b'
'c' in 'ab' ~ 'c' | upper
'yes' if 'c' in 'ab' ~ 'c' else 'no'
3 in [1, 2] + [3]
not 'a' in 'ABC' | lower
{'k': 'a' in 'ABC' | lower}['k']
'a' in ('ABC' | lower)
'1' in ['x', 'y', '1'][1:] | join
'häh€'[1]
'häh€'[-1]
'häh€'[-4]
'häh€'[1 + 2]
'häh€'[0 - 2]
'häh€'[4] is defined
'häh€'[-5] is defined
'häh€'[1:3]
'häh€'[::-1]
'häh€'.1
[1, 2, 3][-3]
[1, 2, 3][0 - 1]
[1, 2, 3][0 - 3]
[1, 2, 3][-4] is defined
[1, 2, 3][3] is defined
[1, 2, 3].2
[[1, 2], [3, 4]][-1][0]
[[1, 2], [3, 4]][[0, 1][-1]][1 - 2]
messages[messages | length - 1]['role']
messages[loop] is defined
messages[0]['content'][1]
messages[-1].content.split(':')[-1].strip().split(',')[-1]
'häh€' | list | length
'häh€' | join('.')
'häh€' | map('upper') | join
'häh€' | first ~ 'häh€' | last
'cäb' | sort | join
'\u2028' | tojson
'a\u2028b\u2029c"\\\t\b\f\x01\x7f/<>&\'é🙂' | tojson
{'a': 'é🙂'} | tojson(ensure_ascii=true)
{'b': [1.0, 2.5, true, none], 'a': {}} | tojson
{'b': 1, 'a': [1, {'c': 2}]} | tojson(indent=2, sort_keys=true)
{'b': 1, 'a': [1, 2]} | tojson(separators=(',', ':'))
1 + true
1 + 2.5
'a' + 1
'a' + none
'a' + nothing
[1] + [2] + [3] == [1, 2, 3]
'a' ~ 1 ~ 2.5 ~ true
[1, 'a', 2.0, true]
(1, 2)[1]
namespace(a=[1, 2]).a[1]
not(x)
(1)in[1]
1 in [1] and(2 in [2])or(false)
""".strip().splitlines()

CHATS = [
    [("user", "Hello")],
    [
        ("system", " You are  terse. "),
        ("user", "Why is the sky blue? "),
        ("assistant", "Air.\nIt scatters."),
        ("user", "What else?"),
    ],
    [("user", "Ünïcode 你好 🙂 \"quoted\" & <tag> 'x' \\n"), ("assistant", ""), ("user", "  W a\tb\n\n")],
    [("user", "a"), ("user", "b")],
    [("assistant", "I begin")],
]


class Date(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2025, 3, 7, 9, 5, 2)


def render(template, chat, begin):
    messages = [dict(role=r, content=c) for r, c in chat]
    case = dict(messages=messages, begin=begin)
    try:
        compiled = chat_template_utils._compile_jinja_template(template)
        case["text"] = compiled.render(
            messages=messages, add_generation_prompt=begin, tools=None, documents=None, **TOKENS
        )
    except Exception as e:
        if type(e) is TemplateError:  # what the template raises
            case["error"] = str(e)
        else:
            case["fails"] = True
    return case


def main():
    chat_template_utils.datetime = Date
    out = []
    for name, template in TEMPLATES.items():
        out.append(
            dict(
                name=name,
                template=template,
                cases=[render(template, chat, begin) for chat in CHATS for begin in (False, True)],
            )
        )
    for expression in EXPRESSIONS:
        template = "{% set x = messages[0].content %}{{ " + expression + " }}"
        out.append(dict(name=expression, template=template, cases=[render(template, [("user", CONTENT)], False)]))
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "golden.json").write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
