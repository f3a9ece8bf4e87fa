#!/usr/bin/env python3
"""Records what transformers makes of small folders whose files say different things, for configure_test.go.

scripts/goldens.sh tokenizer_folders
"""

import gzip
import io
import json
import os
import sys
import tempfile
import warnings

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")

from transformers import AutoTokenizer, logging  # noqa: E402
from transformers.models.gpt2.tokenization_gpt2 import bytes_to_unicode  # noqa: E402

logging.set_verbosity_error()

TEXTS = [
    "",
    "Hello World",
    "Café cafe CAFÉ",
    "中文 x",
    "a NewWord and a newword, it 's n't . Ok !",
    "<s>a ab</s> ab<b><e>",
    " ab  <x>  ab <Y><y> b",
    "[MASK] [mask] [X] [x] [P][Q]",
    "hello <|endoftext|> hello <pad>",
    "▁<PRE> a ▁<EOT>",
    "say ' hi ' , you 've 're 'm ? No .",
    "hell  <mask> o<pad></s>",
]
PAIR = ("Hello ab", "World b")
ROLES = ["pad", "unk", "cls", "sep", "bos", "eos"]


def token(index, content, special=True, normalized=False, lstrip=False, rstrip=False, single_word=False):
    return {
        "id": index,
        "content": content,
        "single_word": single_word,
        "lstrip": lstrip,
        "rstrip": rstrip,
        "normalized": normalized,
        "special": special,
    }


def flags(content, **more):
    t = token(0, content, **more)
    del t["id"]
    return t


def file(model, added=(), normalizer=None, pre_tokenizer=None, post_processor=None, decoder=None, padding=None):
    return {
        "version": "1.0",
        "truncation": None,
        "padding": padding,
        "added_tokens": list(added),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor,
        "decoder": decoder,
        "model": model,
    }


BERT_WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] hello Hello world World cafe café Cafe Café CAFÉ 中 文 中文 new ##word x X [ ] mask p "
    "q a and , it ' s n t . ok Ok ! b < > / y say hi you ve re m ? no No"
).split()
BERT_ADDED = [token(i, w) for i, w in enumerate(BERT_WORDS[:5])]


def bert(lowercase=True, strip_accents=None, chinese=True, added=BERT_ADDED, padding=None):
    return file(
        {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {w: i for i, w in enumerate(BERT_WORDS)},
        },
        added,
        {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": chinese,
            "strip_accents": strip_accents,
            "lowercase": lowercase,
        },
        {"type": "BertPreTokenizer"},
        {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        {"type": "WordPiece", "prefix": "##", "cleanup": True},
        padding,
    )


def spm(post_processor=None, added=None, prefix=True):
    words = (
        ["<unk>", "<s>", "</s>"]
        + [f"<0x{b:02X}>" for b in range(256)]
        + ["▁", "a", "b", "e", "l", "o", "▁a", "ab", "▁ab", "el"]
    )
    normalizer = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
    return file(
        {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {w: i for i, w in enumerate(words)},
            "merges": [["▁", "a"], ["a", "b"], ["▁a", "b"], ["e", "l"]],
        },
        added if added is not None else [token(i, w) for i, w in enumerate(words[:3])],
        {
            "type": "Sequence",
            "normalizers": normalizer + [{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}],
        },
        None,
        post_processor,
        {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
    )


def template(*pieces):
    known = {"<s>": 1, "</s>": 2}
    single = [
        {"SpecialToken": {"id": p, "type_id": 0}} if p in known else {"Sequence": {"id": p, "type_id": 0}}
        for p in pieces
    ]
    pair = single + [{"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": {k: {"id": k, "ids": [v], "tokens": [k]} for k, v in known.items()},
    }


def level(prefix=False, added=()):
    words = list(bytes_to_unicode().values()) + ["he", "ll"]
    piece = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True}
    return file(
        {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {w: i for i, w in enumerate(words)},
            "merges": [["h", "e"], ["l", "l"]],
        },
        added,
        None,
        piece,
        piece,
        piece,
    )


ROBERTA_ADDED = [token(258 + i, w, lstrip=w == "<mask>") for i, w in enumerate("<s> <pad> </s> <unk> <mask>".split())]


def roberta(prefix=False, added=ROBERTA_ADDED):
    t = level(prefix, added)
    t["model"]["vocab"] |= {a["content"]: a["id"] for a in ROBERTA_ADDED}
    t["post_processor"] = {
        "type": "RobertaProcessing",
        "sep": ["</s>", 260],
        "cls": ["<s>", 258],
        "trim_offsets": True,
        "add_prefix_space": prefix,
    }
    return t


def folder(tokenizer, config=None, special=None, added=None, model=None):
    files = {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": config,
        "special_tokens_map.json": special,
        "added_tokens.json": added,
        "config.json": model,
    }
    return {name: json.dumps(content, ensure_ascii=False) for name, content in files.items() if content is not None}


def old(config, special=None, added=None):
    """A folder without a tokenizer.json."""
    files = folder(None, config, special, added)
    files["vocab.txt"] = "\n".join(BERT_WORDS) + "\n"
    return files


FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}
BERT = {"tokenizer_class": "BertTokenizer"}
ROBERTA = {"tokenizer_class": "RobertaTokenizer"}
LLAMA = {"tokenizer_class": "LlamaTokenizer"}
NEW_WORD = token(len(BERT_WORDS), "NewWord", special=False, normalized=True)

FOLDERS = {
    # how BERT normalizes
    "bert: the default is lowercase": folder(bert(lowercase=False), BERT),
    "bert: lowercase no": folder(bert(), {**BERT, "do_lower_case": False}),
    "bert: lowercase no, with a normalized added token": folder(
        bert(added=BERT_ADDED + [NEW_WORD]), {**BERT, "do_lower_case": False}
    ),
    "bert: lowercase yes, with a normalized added token": folder(
        bert(lowercase=False, added=BERT_ADDED + [NEW_WORD]), {**BERT, "do_lower_case": True}
    ),
    "bert: accents stay": folder(bert(), {**BERT, "strip_accents": False}),
    "bert: accents go": folder(
        bert(lowercase=False), {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False, "strip_accents": True}
    ),
    "bert: accents by default": folder(bert(strip_accents=False), BERT),
    "bert: no Chinese words": folder(bert(), {**BERT, "tokenize_chinese_chars": False}),
    "bert: all as the file has it": folder(
        bert(), {**BERT, "do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
    ),
    "distilbert": folder(bert(lowercase=False), {"tokenizer_class": "DistilBertTokenizerFast", "do_lower_case": True}),
    "bert: the class from config.json": folder(
        bert(lowercase=False), {"model_max_length": 512}, model={"model_type": "bert"}
    ),
    "bert: tidied": folder(bert(), {**BERT, "clean_up_tokenization_spaces": True}),
    "fast: the normalizer is the file's": folder(bert(), {**FAST, "do_lower_case": False}),
    # special tokens
    "fast: new special tokens": folder(
        bert(),
        {
            **FAST,
            "cls_token": "[CLS]",
            "pad_token": "[P]",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "additional_special_tokens": ["<x>", "[MASK]", "<b>"],
        },
    ),
    "bert: defaults that the file lacks": folder(
        bert(added=BERT_ADDED[:4]), {**BERT, "pad_token": "[Q]", "mask_token": None}
    ),
    "fast: listed tokens": folder(
        bert(),
        {
            **FAST,
            "eos_token": "</s>",
            "mask_token": "[MASK]",
            "bos_token": "<s>",
            "added_tokens_decoder": {
                "4": flags("[MASK]", lstrip=True),
                "80": flags("<x>", special=False, normalized=True),
                "70": flags("</s>", special=False, rstrip=True),
                "90": flags("<Y>", special=False, normalized=True),
            },
        },
    ),
    "fast: old files": folder(
        bert(),
        {**FAST, "pad_token": "[PAD]", "eos_token": "<e>"},
        {
            "pad_token": "[P]",
            "bos_token": flags("<s>", lstrip=True, normalized=True),
            "additional_special_tokens": ["<x>", flags("<b>", rstrip=True)],
        },
        {"<Y>": 60, "[X]": 59, "[P]": 61},
    ),
    "fast: the map is not read": folder(
        bert(), {**FAST, "pad_token": "[PAD]", "added_tokens_decoder": {}}, {"pad_token": "[P]", "eos_token": "<e>"}
    ),
    "fast: plain tokens with a role": folder(
        bert(added=BERT_ADDED + [token(50, "<s>", special=False), token(51, "</s>", special=False)]),
        {**FAST, "bos_token": "<s>", "eos_token": "</s>", "added_tokens_decoder": {"50": flags("<s>", special=False)}},
    ),
    "fast: plain tokens with a role, of old files": folder(
        bert(added=BERT_ADDED + [token(50, "<s>", special=False)]), {**FAST, "bos_token": "<s>"}
    ),
    "fast: extra special tokens": folder(
        bert(), {**FAST, "sep_token": "[SEP]", "extra_special_tokens": {"z_token": "<x>", "a_token": "<b>"}}
    ),
    "fast: the token of a padding section": folder(
        bert(
            padding={
                "strategy": "BatchLongest",
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "[P]",
            }
        ),
        FAST,
    ),
    "fast: objects": folder(
        bert(),
        {**FAST, "bos_token": {"__type": "AddedToken", **flags("<s>", special=False, normalized=True, lstrip=True)}},
    ),
    # the tokens around a text
    "llama: begin by default": folder(spm(), LLAMA),
    "llama: begin and end": folder(spm(), {**LLAMA, "add_bos_token": True, "add_eos_token": True}),
    "llama: neither": folder(spm(template("<s>", "A", "</s>")), {**LLAMA, "add_bos_token": False}),
    "llama: end alone": folder(spm(template("<s>", "A")), {**LLAMA, "add_bos_token": False, "add_eos_token": True}),
    "llama: null is false": folder(spm(template("<s>", "A")), {**LLAMA, "add_bos_token": None}),
    "llama: other tokens": folder(
        spm(),
        {
            "tokenizer_class": "LlamaTokenizerFast",
            "bos_token": "<b>",
            "eos_token": "<e>",
            "pad_token": "<pad>",
            "add_eos_token": True,
        },
    ),
    "llama: the class from config.json": folder(spm(), {"model_max_length": 512}, model={"model_type": "llama"}),
    "mistral: the class from config.json": folder(spm(), {}, model={"model_type": "mistral"}),
    "llama: another class from config.json": folder(
        spm(), {}, model={"model_type": "llama", "tokenizer_class": "PreTrainedTokenizerFast"}
    ),
    "llama: tidied": folder(spm(), {**LLAMA, "clean_up_tokenization_spaces": True}),
    "fast: the template is the file's": folder(
        spm(template("<s>", "A")), {**FAST, "add_bos_token": False, "add_eos_token": True, "eos_token": "</s>"}
    ),
    "code llama": folder(spm(), {"tokenizer_class": "CodeLlamaTokenizer", "add_eos_token": True, "fill_token": None}),
    "code llama: without infilling": folder(
        spm(),
        {
            "tokenizer_class": "CodeLlamaTokenizerFast",
            "prefix_token": None,
            "middle_token": None,
            "suffix_token": None,
            "eot_token": None,
            "fill_token": None,
            "additional_special_tokens": ["<x>"],
        },
    ),
    # byte-level ones
    "level: no space in front by default": folder(level(prefix=True), FAST),
    "level: a space in front": folder(level(), {**FAST, "add_prefix_space": True}),
    "level: null leaves it": folder(level(prefix=True), {**FAST, "add_prefix_space": None}),
    "gpt2": folder(level(prefix=True), {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}),
    "gpt2: with a space": folder(
        level(added=[token(258, "<|endoftext|>")]),
        {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True, "bos_token": None},
    ),
    "qwen2": folder(
        level(), {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<e>", "clean_up_tokenization_spaces": True}
    ),
    "roberta": folder(roberta(), ROBERTA),
    "roberta: a space in front": folder(roberta(), {**ROBERTA, "add_prefix_space": True}),
    "roberta: no space in front by default": folder(roberta(prefix=True), {"tokenizer_class": "RobertaTokenizerFast"}),
    "roberta: the class from config.json": folder(
        roberta(), {"model_max_length": 512}, model={"model_type": "roberta"}
    ),
    "roberta: defaults that the file lacks": folder(roberta(added=ROBERTA_ADDED[:3]), {**ROBERTA, "pad_token": "<p>"}),
    "roberta: other tokens": folder(roberta(), {**ROBERTA, "mask_token": "<x>", "cls_token": "<b>"}),
    # without a tokenizer.json
    "vocab.txt: old files": old(
        {**BERT, "do_lower_case": True},
        {"pad_token": "[P]", "cls_token": "[CLS]", "additional_special_tokens": ["[X]"]},
        {"newword": 47, "[X]": 46, "[P]": 48},
    ),
    "vocab.txt: new special tokens": old(
        {**BERT, "pad_token": "[P]", "bos_token": "<s>"},
        {"additional_special_tokens": ["<x>", flags("a", lstrip=True)]},
    ),
    "vocab.txt: listed tokens": old(
        {
            **BERT,
            "do_lower_case": False,
            "clean_up_tokenization_spaces": True,
            "added_tokens_decoder": {
                **{str(i): flags(w) for i, w in enumerate(BERT_WORDS[:5])},
                "46": flags("NewWord", special=False, normalized=True),
            },
        }
    ),
}


def record(name, files):
    with tempfile.TemporaryDirectory() as d:
        for n, content in files.items():
            with open(os.path.join(d, n), "w", encoding="utf-8") as f:
                f.write(content)
        tok = AutoTokenizer.from_pretrained(d)
    assert tok.is_fast
    cases = []
    for text in TEXTS:
        e = tok(text, return_offsets_mapping=True)
        ids = e["input_ids"]
        cases.append(
            {
                "text": text,
                "ids": ids,
                "offsets": [x for o in e["offset_mapping"] for x in o],
                "decoded": tok.decode(ids),
                "skipped": tok.decode(ids, skip_special_tokens=True),
            }
        )
    pair = tok.backend_tokenizer.encode(*PAIR)  # CodeLLaMA would make an infilling of it
    roles = {r: getattr(tok, r + "_token_id") for r in ROLES}
    return {
        "name": name,
        "files": files,
        "cases": cases,
        "pair": pair.ids,
        "types": pair.type_ids,
        "roles": {r: i for r, i in roles.items() if i is not None},
        "size": len(tok),
    }


def main():
    recorded = {"a": PAIR[0], "b": PAIR[1], "folders": [record(n, f) for n, f in FOLDERS.items()]}
    raw = io.BytesIO()
    with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as z:
        z.write(json.dumps(recorded, ensure_ascii=False).encode())
    with open(sys.argv[1], "wb") as f:
        f.write(raw.getvalue())
    print(len(FOLDERS), "folders,", len(raw.getvalue()), "bytes")


if __name__ == "__main__":
    main()
