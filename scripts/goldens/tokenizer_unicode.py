#!/usr/bin/env python3
"""Freezes the Unicode tables that the HuggingFace tokenizers library works with.

The library mixes several Unicode versions (its normalizer knows Unicode 9, its regular
expressions and its case mapping are newer) and none of them is Go's, so model/tokenizer carries
its own tables. They are read off the library's behaviour, one code point at a time, rather than
from Unicode's files: what the library does is what the Go code has to do.

    pip install tokenizers==0.22.2
    python3 scripts/goldens/tokenizer_unicode.py model/tokenizer/unicode_tables.go
"""

import sys

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

VERSION = "0.22.2"
POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
TEXT = "".join(map(chr, POINTS))
HANGUL = range(0xAC00, 0xAC00 + 11172)

# The bits of a class mask, in the order of the constants of unicode.go.
BITS = [
    "letter",
    "number",
    "regexSpace",
    "whitespace",
    "numeric",
    "punctuation",
    "nonspacing",
    "dropped",
    "word",
    "mark",
    "normalizes",
    "lowers",
]


def kept(pre_tokenizer):
    """The code points that survive a pre-tokenizer which removes some of TEXT."""
    found = set()
    for _, (start, end) in pre_tokenizer.pre_tokenize_str(TEXT):
        found.update(POINTS[start:end])
    return found


def matching(pattern):
    return set(POINTS) - kept(pre_tokenizers.Split(Regex(pattern), behavior="removed"))


def alone(pre_tokenizer, lead):
    """The code points that a pre-tokenizer puts in a piece of their own when `lead` precedes."""
    return {c for c in POINTS if [p for p, _ in pre_tokenizer.pre_tokenize_str(lead + chr(c))] == [lead, chr(c)]}


def combining_classes(nfd):
    """The canonical combining class of every code point, found by how it sorts among marks
    whose classes are fixed by Unicode's stability policy."""
    known = {
        1: 0x334,
        7: 0x93C,
        8: 0x3099,
        9: 0x94D,
        84: 0xC55,
        91: 0xC56,
        103: 0xE38,
        107: 0xE48,
        118: 0xEB8,
        122: 0xEC8,
        129: 0xF71,
        130: 0xF72,
        132: 0xF74,
        202: 0x321,
        214: 0x1DCE,
        216: 0x31B,
        218: 0x302A,
        220: 0x316,
        222: 0x59A,
        224: 0x302E,
        226: 0x1D16D,
        228: 0x302B,
        230: 0x301,
        232: 0x302C,
        233: 0x35C,
        234: 0x35D,
        240: 0x345,
    }
    known.update({10 + i: 0x5B0 + i for i in range(10)})  # Hebrew points, 10 to 19
    known.update({20: 0x5BB, 21: 0x5BC, 22: 0x5BD, 23: 0x5BF, 24: 0x5C1, 25: 0x5C2, 26: 0xFB1E})
    known.update({27 + i: 0x64B + i for i in range(8)})  # Arabic, 27 to 34
    known.update({35: 0x670, 36: 0x711})
    classes = {}
    for c in POINTS:
        text = chr(c)
        if nfd.normalize_str(text) != text:
            continue  # it decomposes: never seen after decomposition
        if nfd.normalize_str("a" + chr(0x345) + text) != "a" + text + chr(0x345) and c != 0x345:
            continue  # a mark of class 240 does not move behind it: class 0
        # A mark of class k in front of c moves behind it exactly when 0 < class(c) < k, so the
        # class is the largest known k that stays in front.
        classes[c] = max(k for k, m in known.items() if nfd.normalize_str("a" + chr(m) + text) == "a" + chr(m) + text)
        # ... and the next larger known one must move.
        above = [k for k in known if k > classes[c]]
        if above:
            m = chr(known[min(above)])
            assert nfd.normalize_str("a" + m + text) == "a" + text + m, hex(c)
        # Equality with the known class: c in front of a mark of that class stays, too.
        m = chr(known[classes[c]])
        assert nfd.normalize_str("a" + text + m) == "a" + text + m, hex(c)
    return classes


def runs(value_of):
    out, last = [], None
    for c in range(0x110000):
        v = value_of(c)
        if v != last:
            out.append((c, v))
            last = v
    return out


def lower_runs(mapping):
    """Runs (lo, hi, stride, delta) of code points that map to one code point each."""
    out = []
    for c in sorted(mapping):
        delta = mapping[c] - c
        if out and out[-1][3] == delta:
            lo, hi, stride, _ = out[-1]
            if lo == hi and c - hi <= 2:
                out[-1] = (lo, c, c - hi, delta)
                continue
            if c - hi == stride:
                out[-1] = (lo, c, stride, delta)
                continue
        out.append((c, c, 1, delta))
    return out


def rows(items, per_line):
    for i in range(0, len(items), per_line):
        yield "\t" + " ".join(items[i : i + per_line]) + "\n"


def main():
    assert tokenizers.__version__ == VERSION, tokenizers.__version__
    nfd, nfc, lower = normalizers.NFD(), normalizers.NFC(), normalizers.Lowercase()
    clean = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False
    )
    accents = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False
    )
    marks = normalizers.StripAccents()

    sets = {
        "letter": matching(r"\p{L}"),
        "number": matching(r"\p{N}"),
        "regexSpace": matching(r"\s"),
        "whitespace": set(POINTS) - kept(pre_tokenizers.WhitespaceSplit()),
        "numeric": alone(pre_tokenizers.Digits(individual_digits=True), "a"),
        "punctuation": alone(pre_tokenizers.BertPreTokenizer(), "a"),
        "dropped": {c for c in POINTS if clean.normalize_str(chr(c)) == ""},
        "mark": {c for c in POINTS if marks.normalize_str(chr(c)) == ""},
        "word": {c for c in POINTS if len(pre_tokenizers.Whitespace().pre_tokenize_str("a" + chr(c))) == 1},
    }
    sets["word"] -= sets["whitespace"]
    # What clean_text does not drop it keeps, or turns into a space when it is white space.
    for c in set(POINTS) - sets["dropped"]:
        want = " " if c in sets["whitespace"] else chr(c)
        assert clean.normalize_str(chr(c)) == want, hex(c)

    decomposed = {c: nfd.normalize_str(chr(c)) for c in POINTS if c not in HANGUL}
    decomposed = {c: d for c, d in decomposed.items() if d != chr(c)}
    sets["nonspacing"] = {
        c for c in POINTS if c not in decomposed and c not in HANGUL and accents.normalize_str(chr(c)) == ""
    }
    classes = combining_classes(nfd)
    composes = {}
    for c, d in decomposed.items():
        head = nfc.normalize_str(d[:-1])
        if len(d) > 1 and len(head) == 1 and nfc.normalize_str(d) == chr(c):
            composes[c] = (ord(head), ord(d[-1]))
    sets["normalizes"] = set(classes) | set(decomposed) | set(HANGUL)
    # A pair's second half matters to composition even when it is a starter without decomposition.
    sets["normalizes"] |= {second for _, second in composes.values()}
    sets["normalizes"] |= set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))

    lowered = {c: lower.normalize_str(chr(c)) for c in POINTS}
    lowered = {c: low for c, low in lowered.items() if low != chr(c)}
    sets["lowers"] = set(lowered)
    single = {c: ord(low) for c, low in lowered.items() if len(low) == 1}
    many = {c: low for c, low in lowered.items() if len(low) > 1}
    assert many == {0x130: "i\u0307"}, many

    folds = {c: matching(f"(?i:{c})") - {ord(c), ord(c.upper())} for c in "strevmld"}
    assert {k: v for k, v in folds.items() if v} == {"s": {0x17F}}, folds

    masks = {}
    for bit, name in enumerate(BITS):
        for c in sets[name]:
            masks[c] = masks.get(c, 0) | 1 << bit
    with open(sys.argv[1], "w") as out:
        out.write(
            f"// Code generated by scripts/goldens/tokenizer_unicode.py from tokenizers {VERSION}. DO NOT EDIT.\n\n"
        )
        out.write("package tokenizer\n\n")
        out.write("// classRuns lists where the class mask changes: code point, mask from there on.\n")
        out.write("var classRuns = [...]uint64{\n")
        out.writelines(
            rows([f"{c:#x}<<16 | {m:#x}," if m else f"{c:#x} << 16," for c, m in runs(lambda c: masks.get(c, 0))], 6)
        )
        out.write("}\n\n// combiningRuns lists where the canonical combining class changes, likewise.\n")
        out.write("var combiningRuns = [...]uint64{\n")
        out.writelines(
            rows([f"{c:#x}<<16 | {k}," if k else f"{c:#x} << 16," for c, k in runs(lambda c: classes.get(c, 0))], 8)
        )
        out.write("}\n\n// lowerRuns lists simple lower-case mappings: from, to, stride, difference.\n")
        out.write("var lowerRuns = [...][4]int32{\n")
        out.writelines(rows([f"{{{a:#x}, {b:#x}, {s}, {d}}}," for a, b, s, d in lower_runs(single)], 4))
        out.write(
            "}\n\n// decompositions lists full canonical decompositions: code point, count (negative where the\n"
            "// last code point composes again with what the others compose to), the code points.\n"
        )
        out.write("var decompositions = [...]int32{\n")
        out.writelines(
            rows(
                [
                    f"{c:#x}, {-len(d) if c in composes else len(d)}, " + ", ".join(f"{ord(x):#x}" for x in d) + ","
                    for c, d in sorted(decomposed.items())
                ],
                4,
            )
        )
        out.write("}\n")


if __name__ == "__main__":
    main()
