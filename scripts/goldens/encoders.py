#!/usr/bin/env python3
"""Tiny BERTs and RoBERTas with random weights, and what transformers computes from them.

    encoders.py [FAMILY…]

Writes testdata/<family>/ (see testdata/README.md), all of them or those named.
"""

import sys

import distilbert
import tiny
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)

SHAPE = dict(
    vocab_size=80,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=32,
    num_labels=3,
    attn_implementation="eager",
)


def bert_config():
    return BertConfig(**SHAPE, max_position_embeddings=40, pad_token_id=0)


def roberta_config():
    # Positions begin behind the padding's id.
    return RobertaConfig(**SHAPE, max_position_embeddings=42, pad_token_id=1, type_vocab_size=1)


FAMILIES = {
    "bert": (bert_config, BertForSequenceClassification, BertForMaskedLM),
    "roberta": (roberta_config, RobertaForSequenceClassification, RobertaForMaskedLM),
}


def base(family):
    """The classifier that every other fixture of the family starts from."""
    config, model, _ = FAMILIES[family]
    tiny.seed(31)
    return tiny.randomise(model(config()), 31).eval()


def batches(family):
    """Those of distilbert.py, padded on the left too, and pairs of texts where there are types of tokens."""
    pad = FAMILIES[family][0]().pad_token_id
    out = distilbert.batches()
    ids, labels = out["full"]["input_ids"], out["full"]["labels"]
    for name, mask in (("padded", out["padded"]["attention_mask"]), ("left", out["padded"]["attention_mask"].flip(1))):
        out[name] = dict(input_ids=ids * mask + pad * (1 - mask), attention_mask=mask, labels=labels)
    if family == "bert":
        types = (torch.arange(11) >= torch.tensor([4, 2, 1])[:, None]).long() * out["padded"]["attention_mask"]
        out["pairs"] = out["padded"] | dict(token_type_ids=types)
    return out


@torch.no_grad()
def observe(model, family):
    out = {}
    for name, b in batches(family).items():
        r = model(**b, output_hidden_states=True)
        out |= tiny.named(name, b) | {f"{name}.logits": r.logits, f"{name}.loss": r.loss}
        out |= {f"{name}.hidden_states.{i}": h for i, h in enumerate(r.hidden_states)}
    return out


def write(family):
    model = base(family)
    d = tiny.folder(family, "tiny")
    model.save_pretrained(d)
    b = batches(family)["pairs" if family == "bert" else "padded"]
    model(**b).loss.backward()
    grads = {f"grad.{n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    tiny.store(d / "golden.safetensors", observe(model, family) | grads)

    # The encoder as published base checkpoints have it: with a language-model head, without what a classifier reads.
    config, _, mlm = FAMILIES[family]
    tiny.seed(32)
    published = tiny.randomise(mlm(config()), 32)
    encoder = getattr(model, model.base_model_prefix).state_dict()
    getattr(published, model.base_model_prefix).load_state_dict(
        {k: v for k, v in encoder.items() if not k.startswith("pooler.")}
    )
    published.save_pretrained(tiny.folder(family, "mlm"))
    if family == "bert":  # as BertModel saves itself: no prefix, a pooler, no head
        model.bert.save_pretrained(tiny.folder(family, "noprefix"))


if __name__ == "__main__":
    for family in sys.argv[1:] or FAMILIES:
        tiny.folder(family)
        write(family)
        tiny.finish(tiny.TESTDATA / family)
