#!/usr/bin/env python3
"""Records what HuggingFace's tokenizers do, for model/tokenizer to be compared with.

    pip install tokenizers==0.22.2 transformers==4.57.6 sentencepiece==0.2.3 protobuf

    # the committed fixtures; SHARED is the folder with tokenizers/ and models/
    python3 scripts/goldens/tokenizer.py fixtures model/tokenizer/testdata SHARED
    # the committed recording of the tokenizer that the demo fetches
    python3 scripts/goldens/tokenizer.py record "$GOPEFT_HOME/demo/minilm" model/tokenizer/testdata/minilm.golden.json.gz 110
    # a large recording of one tokenizer, to be compared by
    #   GOPEFT_TOKENIZER_RECORDING=OUT.json.gz go test -run Recording ./model/tokenizer/
    python3 scripts/goldens/tokenizer.py record TOKENIZER OUT.json.gz [COUNT [MORE_TEXT_FILES...]]
    # the speed on one thread, to be compared with go test -bench
    python3 scripts/goldens/tokenizer.py speed TOKENIZER TEXT_FILE

    # the tokenizer's metadata of a GGUF file, which GOPEFT_TOKENIZER_DIR may be instead of a folder
    python3 scripts/goldens/tokenizer.py metadata MODEL.gguf OUT.json

TOKENIZER is a folder with a tokenizer.json, a vocab.txt or a tokenizer.model, a tokenizer.json of
any name, or a GGUF file (SmolLM2's kind). All text here is made up for this purpose.
"""

import base64
import gzip
import io
import json
import os
import random
import struct
import sys
import time
import warnings

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
warnings.filterwarnings("ignore")

from tokenizer_texts import SENTENCES, Corpus  # noqa: E402
from tokenizers import (  # noqa: E402
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

# Tokenizers of every kind, trained on made-up text so that they can be committed.


def tiny(folder):
    lines = SENTENCES * 3 + [Corpus(k).ascii() for k in range(200)]
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for name, lower in (("bert-cased", False), ("bert-uncased", True)):
        t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        t.normalizer = normalizers.BertNormalizer(lowercase=lower)
        t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        t.train_from_iterator(
            lines, trainers.WordPieceTrainer(vocab_size=700, special_tokens=specials, show_progress=False)
        )
        t.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(s, t.token_to_id(s)) for s in ("[CLS]", "[SEP]")],
        )
        t.decoder = decoders.WordPiece()
        yield name, t

    # Added tokens that strip, want a word of their own, are spaces, start alike, or are normalized.
    t = Tokenizer.from_str(t.to_str())
    t.add_tokens(
        [
            AddedToken("\u3000", lstrip=True),
            AddedToken("  ", rstrip=True, lstrip=True, normalized=False),
            AddedToken("É", single_word=True),
            AddedToken("ab", lstrip=True, rstrip=True, normalized=False),
            AddedToken("abc", normalized=False),
            AddedToken("Fox", single_word=True, special=True),
            AddedToken("\n", rstrip=True, normalized=False),
            AddedToken("<mask>", lstrip=True, special=True, normalized=False),
        ]
    )
    yield "bert-added", t

    def spm(**kw):
        bytes_ = [f"<0x{b:02X}>" for b in range(256)]
        seed = Tokenizer(models.BPE())
        seed.pre_tokenizer = pre_tokenizers.Metaspace()
        seed.train_from_iterator(
            lines[:40], trainers.BpeTrainer(vocab_size=500, limit_alphabet=120, show_progress=False)
        )
        model = json.loads(seed.to_str())["model"]
        vocab = {p: i for i, p in enumerate(["<unk>", "<s>", "</s>"] + bytes_ + list(model["vocab"]))}
        t = Tokenizer(
            models.BPE(
                vocab,
                [tuple(m) for m in model["merges"]],
                unk_token="<unk>",
                fuse_unk=True,
                byte_fallback=kw.get("fallback", True),
            )
        )
        t.add_special_tokens([AddedToken(s, normalized=False) for s in ("<unk>", "<s>", "</s>")])
        t.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
        )
        return t

    t = spm()
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    yield "spm-legacy", t
    t = spm()
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    t.add_tokens(
        [
            AddedToken("wordy", single_word=True, normalized=True),
            AddedToken("<|x|>", lstrip=True, rstrip=True, normalized=False),
        ]
    )
    t.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    yield "spm-metaspace", t
    t = spm(fallback=False)  # unknown characters, fused
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    yield "spm-unknown", t

    def level(pre, alphabet=True, **kw):
        t = Tokenizer(models.BPE(**kw))
        t.pre_tokenizer = pre
        initial = pre_tokenizers.ByteLevel.alphabet() if alphabet else []
        t.train_from_iterator(
            lines,
            trainers.BpeTrainer(
                vocab_size=600,
                initial_alphabet=initial,
                limit_alphabet=1000 if alphabet else 90,
                special_tokens=["<|begin_of_text|>", "<|endoftext|>"] + (["<unk>"] if "unk_token" in kw else []),
                show_progress=False,
            ),
        )
        t.decoder = decoders.ByteLevel()
        return t

    llama3 = Regex(LLAMA3)
    t = level(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split(llama3, "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        ),
        ignore_merges=True,
    )
    t.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A",
                pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
                special_tokens=[("<|begin_of_text|>", 0)],
            ),
        ]
    )
    yield "level-llama3", t
    t = level(pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)]))
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    yield "level-digits", t
    t = level(pre_tokenizers.ByteLevel(True))
    t.add_tokens([AddedToken("wordy", single_word=True, normalized=True)])
    t.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("</s>", rstrip=True)])
    t.post_processor = processors.RobertaProcessing(
        ("</s>", t.token_to_id("</s>")), ("<|begin_of_text|>", 0), trim_offsets=True, add_prefix_space=True
    )
    yield "level-prefix", t
    t = level(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(LLAMA3.replace("{1,3}", "")), "isolated"),
                pre_tokenizers.ByteLevel(False, use_regex=False),
            ]
        )
    )
    t.normalizer = normalizers.NFC()
    t.add_tokens([AddedToken("Wordy é", normalized=True)])
    yield "level-nfc", t
    t = level(pre_tokenizers.ByteLevel(False), alphabet=False)  # bytes are missing, and vanish
    t.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    yield "level-gaps", t
    t = level(pre_tokenizers.ByteLevel(False), alphabet=False, unk_token="<unk>")
    yield "level-unknown", t


LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def load(folder):
    """The tokenizer of a folder, as transformers would make it of what is there."""
    if folder.endswith(".gguf"):
        return from_gguf(folder)
    if folder.endswith(".json"):
        folder, name = os.path.split(folder)
        there = {"tokenizer.json"}
    else:
        there, name = set(os.listdir(folder)), "tokenizer.json"
    if "tokenizer.json" in there:
        t = Tokenizer.from_file(os.path.join(folder, name))
        t.no_padding()
        t.no_truncation()
        return t
    if "vocab.txt" in there:
        from transformers import BertTokenizerFast

        return BertTokenizerFast.from_pretrained(folder).backend_tokenizer
    path = os.path.join(folder, "tokenizer.model")
    with open(path, "rb") as f:
        first = f.readline()
    if len(first.split()) == 2 and first.split()[1].isdigit():
        return ranks(path)
    from transformers import LlamaTokenizerFast

    return LlamaTokenizerFast(vocab_file=path, add_prefix_space=True).backend_tokenizer


def ranks(path):
    """LLaMA-3's base64 ranks, converted as transformers' TikTokenConverter does."""
    with open(path, "rb") as f:
        bpe = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in f if line.strip()}
    printable = {}
    extra = 0
    for b in range(256):
        if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174:
            printable[b] = chr(b)
        else:
            printable[b] = chr(256 + extra)
            extra += 1

    def text(b):
        return "".join(printable[x] for x in b)

    merges = []
    for token, rank in bpe.items():
        local = [(token[:i], token[i:], rank) for i in range(1, len(token)) if token[:i] in bpe and token[i:] in bpe]
        merges += sorted(local, key=lambda x: (bpe[x[0]], bpe[x[1]]))
    merges.sort(key=lambda m: m[2])
    t = Tokenizer(
        models.BPE({text(b): r for b, r in bpe.items()}, [(text(a), text(b)) for a, b, _ in merges], ignore_merges=True)
    )
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    t.decoder = decoders.ByteLevel()
    named = {
        0: "begin_of_text",
        1: "end_of_text",
        4: "finetune_right_pad_id",
        6: "start_header_id",
        7: "end_header_id",
        8: "eom_id",
        9: "eot_id",
        10: "python_tag",
    }
    free = iter(range(256))
    t.add_special_tokens(
        [
            AddedToken(
                f"<|{named[i]}|>" if i in named else f"<|reserved_special_token_{next(free)}|>", normalized=False
            )
            for i in range(256)
        ]
    )
    bos = "<|begin_of_text|>"
    t.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, len(bpe))]
    )
    return t


def gguf(path):
    """The metadata of a GGUF file."""
    with open(path, "rb") as f:

        def unpack(fmt):
            return struct.unpack("<" + fmt, f.read(struct.calcsize("<" + fmt)))[0]

        def text():
            return f.read(unpack("Q")).decode()

        def value(kind):
            if kind == 8:
                return text()
            if kind == 9:
                kind, n = unpack("I"), unpack("Q")
                return [value(kind) for _ in range(n)]
            return unpack(
                {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}[kind]
            )

        assert f.read(4) == b"GGUF"
        unpack("I"), unpack("Q")
        found = {}
        for _ in range(unpack("Q")):
            key = text()
            found[key] = value(unpack("I"))
        return found


def from_gguf(path):
    """SmolLM2's tokenizer of its GGUF file."""
    meta = {k.removeprefix("tokenizer.ggml."): v for k, v in gguf(path).items()}
    assert meta["model"] == "gpt2" and meta["pre"] == "smollm", (meta["model"], meta["pre"])
    t = Tokenizer(
        models.BPE({token: i for i, token in enumerate(meta["tokens"])}, [tuple(m.split(" ")) for m in meta["merges"]])
    )
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens(
        [AddedToken(token, normalized=False) for token, kind in zip(meta["tokens"], meta["token_type"]) if kind == 3]
    )
    return t


def metadata(path, out):
    with open(out, "w") as f:
        json.dump({k: v for k, v in gguf(path).items() if k.startswith("tokenizer.")}, f)


def recording(t, texts, seed=1):
    """ids, offsets and decodings of all texts, and of some pairs and truncations of them."""
    r = random.Random(seed)
    cases = []
    for text in texts:
        e = t.encode(text)
        cases.append(
            {
                "text": text,
                "ids": e.ids,
                "offsets": [x for o in e.offsets for x in o],
                "decoded": t.decode(e.ids, skip_special_tokens=False),
                "skipped": t.decode(e.ids),
            }
        )
    pairs = []
    short = [x for x in texts if len(x) < 300]
    for _ in range(max(20, len(texts) // 50)):
        a, b = r.choice(short), r.choice(short)
        length = r.choice([0, 0, 4, 5, 7, 8, 12, 13, 30])
        if length:
            t.enable_truncation(length)
        else:
            t.no_truncation()
        case = {"a": a, "b": b, "max": length, "special": r.random() < 0.8}
        for key, e in (
            ("single", t.encode(a, add_special_tokens=case["special"])),
            ("pair", t.encode(a, b, add_special_tokens=case["special"])),
        ):
            case[key] = {
                "ids": e.ids,
                "types": e.type_ids,
                "offsets": [x for o in e.offsets for x in o],
                "mask": e.special_tokens_mask,
            }
        pairs.append(case)
    t.no_truncation()
    return {"cases": cases, "pairs": pairs}


def write(path, value):
    raw = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9, mtime=0) as f:
        f.write(raw)
    with open(path, "wb") as f:
        f.write(buffer.getvalue())
    print(f"{path}: {len(value.get('cases', []))} texts, {len(buffer.getvalue())} bytes")


def fixtures(out, shared):
    made = {}
    for name, t in tiny(out):
        made[name] = t.to_str()
        t = Tokenizer.from_str(made[name])
        write(os.path.join(out, f"tiny-{name}.golden.json.gz"), recording(t, Corpus(name, t_markup(t)).strings(110)))
    write(os.path.join(out, "tiny.json.gz"), made)
    folders = {
        name: os.path.join(shared, "tokenizers", name)
        for name in sorted(os.listdir(os.path.join(shared, "tokenizers")))
    }
    folders.update(
        {name: os.path.join(shared, "models", name) for name in sorted(os.listdir(os.path.join(shared, "models")))}
    )
    for name, folder in folders.items():
        t = load(folder)
        write(os.path.join(out, f"{name}.golden.json.gz"), recording(t, Corpus(name, t_markup(t)).strings(110)))


def t_markup(t):
    return sorted(x.content for x in t.get_added_tokens_decoder().values())[:12]


def record(folder, out, count=20000, *more):
    texts = []
    for path in more:
        with open(path, encoding="utf-8", errors="replace") as f:
            texts += [line[:3000] for line in f]
    t = load(folder)
    write(out, recording(t, Corpus(os.path.basename(folder), t_markup(t), texts).strings(int(count))))


def speed(folder, path):
    t = load(folder)
    with open(path, encoding="utf-8", errors="replace") as f:
        lines = f.read().split("\n")
    size = sum(len(x.encode()) for x in lines)
    for name, run in (
        ("encode", lambda: [t.encode(x).ids for x in lines]),
        ("encode_batch_fast", lambda: [e.ids for e in t.encode_batch_fast(lines)]),
    ):
        best = 1e9
        for _ in range(5):
            start = time.process_time()
            run()
            best = min(best, time.process_time() - start)
        print(f"{folder} {name}: {size / best / 1e6:.2f} MB/s")


if __name__ == "__main__":
    {"fixtures": fixtures, "record": record, "speed": speed, "metadata": metadata}[sys.argv[1]](*sys.argv[2:])
