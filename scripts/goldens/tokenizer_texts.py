"""The texts that tokenizers are compared on: sentences of many languages, and random strings."""

import random

SENTENCES = (
    """
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
""".strip("\n")
    .replace("\\n", "\n")
    .replace("\\t", "\t")
    .replace("\\r", "\r")
    .split("\n")
)

SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2000\u2003\u2009\u2028\u2029\u202f\u205f\u3000\u200b\u2060\ufeff\u180e"
CONTROLS = (
    "".join(map(chr, list(range(0, 32)) + list(range(0x7F, 0xA0))))
    + "\u200c\u200d\u200e\u202e\u2066\ufffd\ufffe\uffff\xad\u061c"
)
MARKS = "\u0300\u0301\u0308\u0323\u0327\u0328\u0344\u0345\u035c\u0334\u05b0\u05bc\u064b\u0651\u093c\u094d\u0bcd\u0e38\u0eb8\u0f71\u0f72\u0f73\u0f75\u0f81\u3099\u302a\u302e\u1d165\U0001d165\U0001d16d\u20dd\u0488\ua806\U0001e94a\u1ab0\u1dce\u0d4d\u09be\u09c7"
BASES = "aeiouAEIOUnsczyKÅäéñǖṩứạơưיאلكड़কতোைொഒകൊ가각한각ᅥᄒがはウ\U0001d157\U0001d158\u1100\u1161\u11a7\u11a8\u0b47\u0b56\u1025\u102e"
EMOJI = "😀👩👨👧💻❤🏳🌈🏽🇩🇪🤷♂♀⃣©™☺✈🦄\u200d\ufe0f\ufe0e\U000e0067\U000e007f"
ASCII = "".join(map(chr, range(32, 127)))
MARKUP = [
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[PAD]",
    "[UNK]",
    "[cls]",
    "[CLS",
    "<s>",
    "</s>",
    "<unk>",
    "<s",
    "</s",
    "<S>",
    "<0x0A>",
    "<|begin_of_text|>",
    "<|eot_id|>",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|eot",
    "<mask>",
    "wordy",
    "<|x|>",
    "▁",
    "##",
    "##a",
    "Ġ",
]


class Corpus:
    """Random strings of many kinds; the same seed gives the same strings."""

    def __init__(self, seed, markup=(), texts=()):
        self.r = random.Random(seed)
        self.markup = list(markup) + MARKUP
        self.texts = list(texts)
        self.kinds = [
            self.sentence,
            self.sentence,
            self.mutated,
            self.mixed,
            self.letters,
            self.marks,
            self.emoji,
            self.controls,
            self.points,
            self.block,
            self.long_word,
            self.special,
            self.special,
            self.ascii,
            self.digits,
            self.whitespace,
        ]

    def strings(self, count):
        fixed = [
            "",
            " ",
            "  ",
            "\n",
            "a",
            "A",
            "é",
            "e\u0301",
            "\u0301",
            "▁",
            "\x00",
            "\ufffd",
            "'",
            "''",
            " '",
            "[",
            "<",
        ] + SENTENCES
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
            if pick < 0.3:
                s.insert(at, self.r.choice(SPACES + CONTROLS))
            elif pick < 0.5:
                s.insert(at, self.r.choice(MARKS))
            elif pick < 0.7 and at < len(s):
                s[at] = s[at].swapcase()
            elif pick < 0.8:
                s.insert(at, self.r.choice(ASCII) * self.r.randint(1, 5))
            elif at < len(s):
                del s[at]
        return "".join(s)

    def mixed(self):
        parts = []
        for _ in range(self.r.randint(2, 6)):
            s = self.r.choice(SENTENCES)
            at = self.r.randint(0, len(s))
            parts.append(s[at : at + self.r.randint(1, 20)])
        return self.r.choice(["", " ", "  ", "-"]).join(parts)

    def letters(self):
        start = self.r.choice(
            [
                0x41,
                0xC0,
                0x100,
                0x1E00,
                0x370,
                0x400,
                0x5D0,
                0x620,
                0x900,
                0xE00,
                0x1F00,
                0x3040,
                0x4E00,
                0xAC00,
                0xF900,
                0x10400,
                0x1D400,
                0x20000,
                0x2F800,
            ]
        )
        return " ".join(
            "".join(chr(start + self.r.randint(0, 0xA0)) for _ in range(self.r.randint(1, 8)))
            for _ in range(self.r.randint(1, 5))
        )

    def marks(self):
        out = []
        for _ in range(self.r.randint(1, 10)):
            out.append(self.r.choice(BASES + " ") if self.r.random() < 0.9 else "")
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
        return self.r.choice(["", " ", "a", "\n"]).join(
            chr(c) for c in range(start, min(start + self.r.choice([32, 128]), 0x110000)) if not 0xD800 <= c <= 0xDFFF
        )

    def long_word(self):
        n = self.r.choice([39, 40, 41, 60, 99, 100, 101, 200, 1000])
        return self.some(
            self.r.choice(
                ["a", "ab", "abcdefghijklmnopqrstuvwxyz", "é", "中文字", "0123456789", "aé中👍", " ", "=-", "the ing"]
            ),
            n,
            n,
        )

    def special(self):
        out = []
        for _ in range(self.r.randint(1, 6)):
            out.append(
                self.r.choice(
                    [
                        self.r.choice(self.markup),
                        self.r.choice(self.markup),
                        self.some(SPACES, 0, 3),
                        self.some("ab_é,1", 0, 4),
                        " ",
                    ]
                )
            )
        return "".join(out)

    def ascii(self):
        return self.some(ASCII + "  ", 1, 60)

    def digits(self):
        return self.some("0123456789,. ", 1, 20) + self.some("٣৫½²Ⅷ①一二x ", 0, 6)

    def whitespace(self):
        return self.some(SPACES + "  \n\n\r\n\t", 1, 8) + self.some("a1.", 0, 3) + self.some(" \n\r\t", 0, 5)
