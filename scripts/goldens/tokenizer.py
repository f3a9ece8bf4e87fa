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

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,  # noqa: E402
                        pre_tokenizers, processors, trainers)

SENTENCES = """
The quick brown fox jumps over the lazy dog, doesn't it? I've seen it; they'll say we're wrong.
He said: "It's 12,345.67 dollars -- or 8% of 1e10!" (see page 42, footnote #7).
Der Fluß fließt über Österreich; Straßenbahnhaltestellenschild, weiß der Kuckuck.
L'élève naïf a mangé un œuf à Noël, où ça ? C'est déjà l'été, Zoë !
El niño comió piñas en la montaña. ¿Cuándo volverás? ¡Mañana!
Não há coração sem emoção, disse a avó às três irmãs.
Zażółć gęślą jaźń. Příliš žluťoučký kůň úpěl ďábelské ódy.
Árvíztűrő tükörfúrógép. Şişli'de ılık bir İSTANBUL sabahı, IĞDIR.
Съешь ещё этих мягких французских булок, да выпей чаю. Ёлка и йод.
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. ΟΔΥΣΣΕΥΣ, ἀρχὴ ᾧ ᾳ ΐ.
שָׁלוֹם עוֹלָם, מה שלומך היום? יִשְׂרָאֵל
السَّلامُ عَلَيْكُمْ، كيف حالك؟ ١٢٣٤٥ لا إله
नमस्ते दुनिया, क्या हाल है? क़िस्मत १२३ हिन्दी में लिखा
নমস্কার পৃথিবী। কেমন আছো? বাংলা ড় ঢ় য়
வணக்கம் உலகம், எப்படி இருக்கிறீர்கள்?
สวัสดีชาวโลก วันนี้อากาศดีมาก น้ำ ก็ ๑๒๓
ສະບາຍດີ ຊາວໂລກ. བཀྲ་ཤིས་བདེ་ལེགས། ཱི ཱུ
ሰላም ለዓለም። გამარჯობა მსოფლიო. Բարեւ աշխարհ:
你好,世界!今天天气很好,我们去公园玩吧。繁體字與簡體字混排 123 abc。
今日は良い天気ですね。カタカナとひらがな、漢字が混ざっている文章。ﾊﾝｶｸ がぎぐ が
안녕하세요 세계! 오늘 날씨가 정말 좋네요. 각 한글
Xin chào thế giới, tiếng Việt có nhiều dấu: ẩ ễ ộ ự ỹ.
👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪🇫🇷 1️⃣ ❤️ 😀😃 🤷🏼‍♂️ ☺ ✈️ 🦄
for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; } // O(n)
def f(x: list[int]) -> dict:\n    return {k: v**2 for k, v in enumerate(x) if v != 0}
SELECT name, COUNT(*) FROM users WHERE age >= 18 AND city <> 'Köln' GROUP BY name;
# Heading\n\n* item **bold** _it_\n* [link](https://example.org/a?b=c&d=%20#e)\n\n```go\nx := <-ch\n```
<div class="a">Tom &amp; Jerry&nbsp;</div>\t<br/>\r\n\r\n  <!-- done -->
user@example.com wrote on 2024-02-30T25:61Z: C:\\temp\\new.txt $HOME/~tmp ${x} @@@ ### !!! ??? ...
ABC123def456 x86_64 v1.2.3-rc.4+build.5 0xDEADBEEF 1234567890123456789 ½ ² ³ Ⅷ ① ٣ ৫
THEY'LL SHOUT 'TIS I'D WE'VE YOU'RE SHE'S it's'nt 'll 'Ve 'ſ x's'
ﬁ ﬂ ﬀ Å Å K Ω ǆ ǅ ĳ ŉ ẞ ß ſ ﬆ ﬅ ℌ ℕ ™ ㎏ ㍿ Ａｂｃ　１２３！
""".strip("\n").replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r").split("\n")

SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2000\u2003\u2009\u2028\u2029\u202f\u205f\u3000\u200b\u2060\ufeff\u180e"
CONTROLS = "".join(map(chr, list(range(0, 32)) + list(range(0x7F, 0xA0)))) + "\u200c\u200d\u200e\u202e\u2066\ufffd\ufffe\uffff\xad\u061c"
MARKS = "\u0300\u0301\u0308\u0323\u0327\u0328\u0344\u0345\u035c\u0334\u05b0\u05bc\u064b\u0651\u093c\u094d\u0bcd\u0e38\u0eb8\u0f71\u0f72\u0f73\u0f75\u0f81\u3099\u302a\u302e\u1d165\U0001d165\U0001d16d\u20dd\u0488\ua806\U0001e94a\u1ab0\u1dce\u0d4d\u09be\u09c7"
BASES = "aeiouAEIOUnsczyKÅäéñǖṩứạơưיאلكड़কতোைொഒകൊ가각한각ᅥᄒがはウ\U0001d157\U0001d158\u1100\u1161\u11a7\u11a8\u0b47\u0b56\u1025\u102e"
EMOJI = "😀👩👨👧💻❤🏳🌈🏽🇩🇪🤷♂♀⃣©™☺✈🦄\u200d\ufe0f\ufe0e\U000e0067\U000e007f"
ASCII = "".join(map(chr, range(32, 127)))
MARKUP = ["[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "[cls]", "[CLS", "<s>", "</s>", "<unk>", "<s", "</s", "<S>", "<0x0A>",
          "<|begin_of_text|>", "<|eot_id|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eot", "<mask>", "wordy", "<|x|>", "▁", "##", "##a", "Ġ"]


class Corpus:
    """Random strings of many kinds; the same seed gives the same strings."""

    def __init__(self, seed, markup=(), texts=()):
        self.r = random.Random(seed)
        self.markup = list(markup) + MARKUP
        self.texts = list(texts)
        self.kinds = [self.sentence, self.sentence, self.mutated, self.mixed, self.letters, self.marks,
                      self.emoji, self.controls, self.points, self.block, self.long_word, self.special,
                      self.special, self.ascii, self.digits, self.whitespace]

    def strings(self, count):
        fixed = ["", " ", "  ", "\n", "a", "A", "é", "e\u0301", "\u0301", "▁", "\x00", "\ufffd", "'", "''", " '", "[", "<"] + SENTENCES
        fixed += self.markup
        out = list(dict.fromkeys(fixed))
        if self.texts:
            out += [self.r.choice(self.texts) for _ in range(count // 5)]
        while len(out) < count:
            s = self.r.choice(self.kinds)()
            out.append("".join(c for c in s if not 0xD800 <= ord(c) <= 0xDFFF))
        return out[:count]

    def some(self, alphabet, low, high):
        return "".join(self.r.choice(alphabet) for _ in range(self.r.randint(low, high)))

    def sentence(self):
        return self.r.choice(["", " ", "", "\n"]) + self.r.choice(SENTENCES) + self.r.choice(["", " ", "\n", ""])

    def mutated(self):
        s = list(self.r.choice(self.texts or SENTENCES)[:200])
        for _ in range(self.r.randint(1, 6)):
            at = self.r.randint(0, len(s))
            pick = self.r.random()
            if pick < .3:
                s.insert(at, self.r.choice(SPACES + CONTROLS))
            elif pick < .5:
                s.insert(at, self.r.choice(MARKS))
            elif pick < .7 and at < len(s):
                s[at] = s[at].swapcase()
            elif pick < .8:
                s.insert(at, self.r.choice(ASCII) * self.r.randint(1, 5))
            elif at < len(s):
                del s[at]
        return "".join(s)

    def mixed(self):
        parts = []
        for _ in range(self.r.randint(2, 6)):
            s = self.r.choice(SENTENCES)
            at = self.r.randint(0, len(s))
            parts.append(s[at:at + self.r.randint(1, 20)])
        return self.r.choice(["", " ", "  ", "-"]).join(parts)

    def letters(self):
        start = self.r.choice([0x41, 0xC0, 0x100, 0x1E00, 0x370, 0x400, 0x5D0, 0x620, 0x900, 0xE00, 0x1F00, 0x3040, 0x4E00, 0xAC00, 0xF900, 0x10400, 0x1D400, 0x20000, 0x2F800])
        return " ".join("".join(chr(start + self.r.randint(0, 0xA0)) for _ in range(self.r.randint(1, 8))) for _ in range(self.r.randint(1, 5)))

    def marks(self):
        out = []
        for _ in range(self.r.randint(1, 10)):
            out.append(self.r.choice(BASES + " ") if self.r.random() < .9 else "")
            out.append(self.some(MARKS, 0, 4))
        return "".join(out)

    def emoji(self):
        return self.some(EMOJI + " a", 1, 12)

    def controls(self):
        return self.some(CONTROLS + SPACES + "ab,é中", 1, 20)

    def points(self):
        top = self.r.choice([0x80, 0x250, 0x3000, 0x10000, 0x20000, 0x110000])
        return "".join(chr(self.r.randrange(top)) for _ in range(self.r.randint(1, 20)))

    def block(self):
        top = self.r.choice([0x30, 0x200, 0x460, 0x460, 0x2200])
        start = self.r.randrange(top) * 128
        return self.r.choice(["", " ", "a", "\n"]).join(chr(c) for c in range(start, min(start + self.r.choice([32, 128]), 0x110000)) if not 0xD800 <= c <= 0xDFFF)

    def long_word(self):
        n = self.r.choice([39, 40, 41, 60, 99, 100, 101, 200, 1000])
        return self.some(self.r.choice(["a", "ab", "abcdefghijklmnopqrstuvwxyz", "é", "中文字", "0123456789", "aé中👍", " ", "=-", "the ing"]), n, n)

    def special(self):
        out = []
        for _ in range(self.r.randint(1, 6)):
            out.append(self.r.choice([self.r.choice(self.markup), self.r.choice(self.markup), self.some(SPACES, 0, 3), self.some("ab_é,1", 0, 4), " "]))
        return "".join(out)

    def ascii(self):
        return self.some(ASCII + "  ", 1, 60)

    def digits(self):
        return self.some("0123456789,. ", 1, 20) + self.some("٣৫½²Ⅷ①一二x ", 0, 6)

    def whitespace(self):
        return self.some(SPACES + "  \n\n\r\n\t", 1, 8) + self.some("a1.", 0, 3) + self.some(" \n\r\t", 0, 5)


# Tokenizers of every kind, trained on made-up text so that they can be committed.

def tiny(folder):
    lines = SENTENCES * 3 + [Corpus(k).ascii() for k in range(200)]
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for name, lower in (("bert-cased", False), ("bert-uncased", True)):
        t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        t.normalizer = normalizers.BertNormalizer(lowercase=lower)
        t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        t.train_from_iterator(lines, trainers.WordPieceTrainer(vocab_size=700, special_tokens=specials, show_progress=False))
        t.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(s, t.token_to_id(s)) for s in ("[CLS]", "[SEP]")])
        t.decoder = decoders.WordPiece()
        yield name, t

    # Added tokens that strip, want a word of their own, are spaces, start alike, or are normalized.
    t = Tokenizer.from_str(t.to_str())
    t.add_tokens([AddedToken("\u3000", lstrip=True), AddedToken("  ", rstrip=True, lstrip=True, normalized=False), AddedToken("É", single_word=True),
                  AddedToken("ab", lstrip=True, rstrip=True, normalized=False), AddedToken("abc", normalized=False), AddedToken("Fox", single_word=True, special=True),
                  AddedToken("\n", rstrip=True, normalized=False), AddedToken("<mask>", lstrip=True, special=True, normalized=False)])
    yield "bert-added", t

    def spm(**kw):
        bytes_ = [f"<0x{b:02X}>" for b in range(256)]
        seed = Tokenizer(models.BPE())
        seed.pre_tokenizer = pre_tokenizers.Metaspace()
        seed.train_from_iterator(lines[:40], trainers.BpeTrainer(vocab_size=500, limit_alphabet=120, show_progress=False))
        model = json.loads(seed.to_str())["model"]
        vocab = {p: i for i, p in enumerate(["<unk>", "<s>", "</s>"] + bytes_ + list(model["vocab"]))}
        t = Tokenizer(models.BPE(vocab, [tuple(m) for m in model["merges"]], unk_token="<unk>", fuse_unk=True, byte_fallback=kw.get("fallback", True)))
        t.add_special_tokens([AddedToken(s, normalized=False) for s in ("<unk>", "<s>", "</s>")])
        t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
        return t

    t = spm()
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    yield "spm-legacy", t
    t = spm()
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    t.add_tokens([AddedToken("wordy", single_word=True, normalized=True), AddedToken("<|x|>", lstrip=True, rstrip=True, normalized=False)])
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    yield "spm-metaspace", t
    t = spm(fallback=False)  # unknown characters, fused
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.decoder = decoders.Metaspace()
    yield "spm-unknown", t

    def level(pre, alphabet=True, **kw):
        t = Tokenizer(models.BPE(**kw))
        t.pre_tokenizer = pre
        initial = pre_tokenizers.ByteLevel.alphabet() if alphabet else []
        t.train_from_iterator(lines, trainers.BpeTrainer(
            vocab_size=600, initial_alphabet=initial, limit_alphabet=1000 if alphabet else 90,
            special_tokens=["<|begin_of_text|>", "<|endoftext|>"] + (["<unk>"] if "unk_token" in kw else []), show_progress=False))
        t.decoder = decoders.ByteLevel()
        return t

    llama3 = Regex(LLAMA3)
    t = level(pre_tokenizers.Sequence([pre_tokenizers.Split(llama3, "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]), ignore_merges=True)
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1", special_tokens=[("<|begin_of_text|>", 0)])])
    yield "level-llama3", t
    t = level(pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)]))
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    yield "level-digits", t
    t = level(pre_tokenizers.ByteLevel(True))
    t.add_tokens([AddedToken("wordy", single_word=True, normalized=True)])
    t.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("</s>", rstrip=True)])
    t.post_processor = processors.RobertaProcessing(("</s>", t.token_to_id("</s>")), ("<|begin_of_text|>", 0), trim_offsets=True, add_prefix_space=True)
    yield "level-prefix", t
    t = level(pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3.replace("{1,3}", "")), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]))
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
    text = lambda b: "".join(printable[x] for x in b)
    merges = []
    for token, rank in bpe.items():
        local = [(token[:i], token[i:], rank) for i in range(1, len(token)) if token[:i] in bpe and token[i:] in bpe]
        merges += sorted(local, key=lambda x: (bpe[x[0]], bpe[x[1]]))
    merges.sort(key=lambda m: m[2])
    t = Tokenizer(models.BPE({text(b): r for b, r in bpe.items()}, [(text(a), text(b)) for a, b, _ in merges], ignore_merges=True))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    named = {0: "begin_of_text", 1: "end_of_text", 4: "finetune_right_pad_id", 6: "start_header_id", 7: "end_header_id", 8: "eom_id", 9: "eot_id", 10: "python_tag"}
    free = iter(range(256))
    t.add_special_tokens([AddedToken(f"<|{named[i]}|>" if i in named else f"<|reserved_special_token_{next(free)}|>", normalized=False) for i in range(256)])
    bos = "<|begin_of_text|>"
    t.post_processor = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, len(bpe))])
    return t


def gguf(path):
    """The metadata of a GGUF file."""
    with open(path, "rb") as f:
        unpack = lambda fmt: struct.unpack("<" + fmt, f.read(struct.calcsize("<" + fmt)))[0]
        text = lambda: f.read(unpack("Q")).decode()

        def value(kind):
            if kind == 8:
                return text()
            if kind == 9:
                kind, n = unpack("I"), unpack("Q")
                return [value(kind) for _ in range(n)]
            return unpack({0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}[kind])

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
    t = Tokenizer(models.BPE({token: i for i, token in enumerate(meta["tokens"])}, [tuple(m.split(" ")) for m in meta["merges"]]))
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken(token, normalized=False) for token, kind in zip(meta["tokens"], meta["token_type"]) if kind == 3])
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
        cases.append({"text": text, "ids": e.ids, "offsets": [x for o in e.offsets for x in o],
                      "decoded": t.decode(e.ids, skip_special_tokens=False), "skipped": t.decode(e.ids)})
    pairs = []
    short = [x for x in texts if len(x) < 300]
    for _ in range(max(20, len(texts) // 50)):
        a, b = r.choice(short), r.choice(short)
        length = r.choice([0, 0, 4, 5, 7, 8, 12, 13, 30])
        if length:
            t.enable_truncation(length)
        else:
            t.no_truncation()
        case = {"a": a, "b": b, "max": length, "special": r.random() < .8}
        for key, e in (("single", t.encode(a, add_special_tokens=case["special"])),
                       ("pair", t.encode(a, b, add_special_tokens=case["special"]))):
            case[key] = {"ids": e.ids, "types": e.type_ids, "offsets": [x for o in e.offsets for x in o], "mask": e.special_tokens_mask}
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
    folders = {name: os.path.join(shared, "tokenizers", name) for name in sorted(os.listdir(os.path.join(shared, "tokenizers")))}
    folders.update({name: os.path.join(shared, "models", name) for name in sorted(os.listdir(os.path.join(shared, "models")))})
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
    for name, run in (("encode", lambda: [t.encode(x).ids for x in lines]),
                      ("encode_batch_fast", lambda: [e.ids for e in t.encode_batch_fast(lines)])):
        best = 1e9
        for _ in range(5):
            start = time.process_time()
            run()
            best = min(best, time.process_time() - start)
        print(f"{folder} {name}: {size / best / 1e6:.2f} MB/s")


if __name__ == "__main__":
    {"fixtures": fixtures, "record": record, "speed": speed, "metadata": metadata}[sys.argv[1]](*sys.argv[2:])
