#!/usr/bin/env python3
"""Log-likelihoods of labels behind prompts, with and without examples in them, as transformers computes them in one pass over each text.

Writes testdata/prompted/: a tokenizer of 48 tokens for the model testdata/llama/rope-llama3, of which some begin with a space, and
golden.json. Its cases have a template as gopeft writes it, the label words, the examples, and for each text: the prompt, its ids as far
as all labels share them, and for each word the sum of the log-likelihoods of its tokens and their number. A word's tokens are where the
ids of the prompt with it part from those of the prompt alone; the earliest place of any word counts for all.
"""

import json

import tiny
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaForCausalLM

LETTERS = "abcdefghilmnoprstuvwyĠ.:,Ċ"  # the last of each kind stand for a space and a line's end
MERGES = [
    ("Ġ", "p"),
    ("Ġ", "n"),
    ("o", "s"),
    ("i", "t"),
    ("Ġp", "os"),
    ("i", "v"),
    ("n", "e"),
    ("g", "a"),
    ("t", "iv"),
    ("Ġ", "g"),
    ("Ġg", "o"),
]

FOUR = [("a fine movie", 1), ("dull and slow", 0), ("not so good", 0), ("i was moved", 1)]
TEXTS = ["the best of films", "a waste of time and a dull movie", "", "it was so so, not as good as the other"]


def tokenizer():
    tokens = ["<unk>", "<s>", "</s>", *LETTERS]
    for a, b in MERGES:
        if a + b not in tokens:
            tokens.append(a + b)
    tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=MERGES, unk_token="<unk>"))
    # A space belongs to the word behind it, as with GPT-2 and its kin.
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tok.add_special_tokens([AddedToken(t, special=True) for t in ("<unk>", "<s>", "</s>")])
    assert tok.get_vocab_size() <= 48, tok.get_vocab_size()
    return tok


def cases():
    """Name, template as gopeft has it, words, examples, and a function that writes a text, with its label or up to it."""

    def plain(text, label=None):
        return f"review: {text}\nmood:" + (f"{label}\n\n" if label else "")

    def spaced(text, label=None):
        return f"review: {text}\nmood: " + (f"{label}\n\n" if label else "")

    def ending(text, label=None):
        return f"{text} is " + (f"{label}.\n" if label else "")

    def listing(text, label=None):
        return f"is it  bad,  good: {text}\nit is" + (f"{label}\n\n" if label else "")

    def short(text, label=None):
        return f"{text}\nmood: " + (f"{label}\n\n" if label else "")

    yield "no examples", r"review: {text}\nmood:{label}", [" negative", " positive"], [], plain
    yield "four examples", r"review: {text}\nmood: {label}", ["negative", "positive"], FOUR, spaced
    yield "lines of their own", r"{text} is {label}.\n", ["bad", "good", "so so"], FOUR[:2], ending
    yield "a list of labels", r"is it {labels}: {text}\nit is{label}", [" bad", " good"], FOUR[:3], listing
    yield "one token and many", r"{text}\nmood: {label}", ["p", "n", "negative and slow"], FOUR[:2], short


@torch.no_grad()
def score(model, tok, prompt, words):
    alone = tok.encode(prompt).ids
    whole = [tok.encode(prompt + w).ids for w in words]
    shared = min(
        next((i for i, (a, b) in enumerate(zip(alone, ids)) if a != b), min(len(alone), len(ids))) for ids in whole
    )
    sums, counts = [], []
    for ids in whole:
        logp = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        sums.append(sum(float(logp[i - 1, ids[i]]) for i in range(shared, len(ids))))
        counts.append(len(ids) - shared)
    return alone[:shared], sums, counts


def main():
    out = tiny.folder("prompted")
    tok = tokenizer()
    tok.save(str(out / "tokenizer.json"))
    model = LlamaForCausalLM.from_pretrained(
        tiny.TESTDATA / "llama" / "rope-llama3", dtype=torch.float32, attn_implementation="eager"
    ).eval()
    golden = []
    for name, template, words, shots, write in cases():
        examples = "".join(write(text, words[label]) for text, label in shots)
        rows = []
        for text in TEXTS:
            prompt = examples + write(text)
            ids, sums, counts = score(model, tok, prompt, words)
            rows.append(dict(text=text, prompt=prompt, prompt_ids=ids, scores=sums, tokens=counts))
        golden.append(
            dict(name=name, template=template, words=words, shots=[dict(text=t, label=i) for t, i in shots], rows=rows)
        )
    (out / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
