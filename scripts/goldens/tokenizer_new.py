#!/usr/bin/env python3
"""Records what transformers makes of new tokens, for with_test.go.

`tokenizer_new.py open FOLDER` prints the ids of the texts as AutoTokenizer reads them with a folder that gopeft wrote.
"""

import json
import pathlib
import sys
import tempfile

from tokenizer_folders import FOLDERS
from transformers import AutoTokenizer

NEW = ["<part>", "NewWord", "ab cd", "中x"]
TEXTS = ["", "hello <part> world", "a NewWord newword", "ab cd<part>ab", " ab  cd 中x x", "<s>ab NewWordab</s>"]
NAMES = ["distilbert", "fast: new special tokens", "fast: listed tokens", "llama: begin and end"]


def ids(tokenizer):
    return [tokenizer(text)["input_ids"] for text in TEXTS]


def record(name):
    with tempfile.TemporaryDirectory() as d:
        for file, content in FOLDERS[name].items():
            (pathlib.Path(d) / file).write_text(content)
        tokenizer = AutoTokenizer.from_pretrained(d)
        if tokenizer.add_tokens(NEW) != len(NEW):
            raise SystemExit(f"{name}: not all of the tokens are new")
        return {
            "name": name,
            "files": FOLDERS[name],
            "new": tokenizer.convert_tokens_to_ids(NEW),
            "ids": ids(tokenizer),
            "decoded": [tokenizer.decode(x, clean_up_tokenization_spaces=False) for x in ids(tokenizer)],
        }


if __name__ == "__main__":
    if sys.argv[1] == "open":
        print(json.dumps(ids(AutoTokenizer.from_pretrained(sys.argv[2]))))
    else:
        fixture = {"tokens": NEW, "texts": TEXTS, "folders": [record(name) for name in NAMES]}
        pathlib.Path(sys.argv[1]).write_text(json.dumps(fixture, ensure_ascii=False, indent=1) + "\n")
