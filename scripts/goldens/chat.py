#!/usr/bin/env python3
"""Chat templates written for this purpose, one per group of constructs that published ones use, as transformers renders them.

Writes model/chat/testdata/golden.json: a list of {name, template, cases: [{messages, begin, text or error}]}.
"""
import datetime
import json
import pathlib

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
}

CHATS = [
    [("user", "Hello")],
    [("system", " You are  terse. "), ("user", "Why is the sky blue? "), ("assistant", "Air.\nIt scatters."), ("user", "What else?")],
    [("user", "Ünïcode 你好 🙂 \"quoted\" & <tag> 'x' \\n"), ("assistant", ""), ("user", "  W a\tb\n\n")],
    [("user", "a"), ("user", "b")],
    [("assistant", "I begin")],
]


class Date(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2025, 3, 7, 9, 5, 2)


def main():
    chat_template_utils.datetime = Date
    out = []
    for name, template in TEMPLATES.items():
        cases = []
        for chat in CHATS:
            messages = [dict(role=r, content=c) for r, c in chat]
            for begin in (False, True):
                case = dict(messages=messages, begin=begin)
                try:
                    compiled = chat_template_utils._compile_jinja_template(template)
                    case["text"] = compiled.render(messages=messages, add_generation_prompt=begin, tools=None, documents=None, **TOKENS)
                except TemplateError as e:
                    case["error"] = str(e)
                cases.append(case)
        out.append(dict(name=name, template=template, cases=cases))
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "golden.json").write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
