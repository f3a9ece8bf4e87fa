#!/usr/bin/env python3
"""Tiny DistilBERT and BERT checkpoints in every form a checkpoint comes in, with what transformers computes from them.

Writes testdata/distilbert/ (see testdata/README.md for the names).
"""

import functools

import tiny
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
)

SHAPE = dict(
    vocab_size=80,
    max_position_embeddings=40,
    dim=16,
    n_layers=3,
    n_heads=4,
    hidden_dim=32,
    num_labels=3,
    pad_token_id=0,
)


def config():
    return DistilBertConfig(**SHAPE, attn_implementation="eager")


def base():
    """The classifier every other fixture starts from (also those of peft and adapters)."""
    tiny.seed(1)
    return tiny.randomise(DistilBertForSequenceClassification(config()), 11).eval()


def batches():
    g = torch.Generator().manual_seed(21)
    ids = torch.randint(3, SHAPE["vocab_size"], (3, 11), generator=g)
    labels = torch.tensor([2, 0, 1])
    full = dict(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
    mask = (torch.arange(11) < torch.tensor([11, 6, 3])[:, None]).long()
    padded = dict(input_ids=ids * mask, attention_mask=mask, labels=labels)
    return dict(full=full, padded=padded)


@torch.no_grad()
def observe(model, with_labels=True):
    """Inputs, every hidden state and, where there is a head, logits and loss."""
    out = {}
    for name, b in batches().items():
        inputs = dict(b) if with_labels else {k: v for k, v in b.items() if k != "labels"}
        r = model(**inputs, output_hidden_states=True)
        out |= tiny.named(name, inputs)
        out |= {f"{name}.hidden_states.{i}": h for i, h in enumerate(r.hidden_states)}
        if "logits" in r:
            out |= {f"{name}.logits": r.logits, f"{name}.loss": r.loss}
    return out


def write_checkpoints():
    model = base()
    d = tiny.folder("distilbert", "tiny")
    model.save_pretrained(d)
    tiny.store(d / "golden.safetensors", observe(model))

    # Without the "distilbert." prefix and without a head, as DistilBertModel saves itself.
    model.distilbert.save_pretrained(tiny.folder("distilbert", "tiny-noprefix"))

    # With the prefix and the language-model head a classifier has no use for, as the published base checkpoints are.
    tiny.seed(2)
    mlm = tiny.randomise(DistilBertForMaskedLM(config()), 12)
    mlm.distilbert.load_state_dict(model.distilbert.state_dict())
    mlm.save_pretrained(tiny.folder("distilbert", "tiny-mlm"))

    model.save_pretrained(tiny.folder("distilbert", "tiny-bin"), safe_serialization=False)
    model.save_pretrained(tiny.folder("distilbert", "tiny-sharded"), max_shard_size="12KB")
    model.save_pretrained(
        tiny.folder("distilbert", "tiny-sharded-bin"), max_shard_size="12KB", safe_serialization=False
    )

    for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        half = base().to(dtype)
        d = tiny.folder("distilbert", f"tiny-{name}")
        half.save_pretrained(d)
        # Computed in fp32 from the rounded weights.
        tiny.store(
            d / "golden.safetensors",
            {k: v for k, v in observe(half.float()).items() if k.endswith((".logits", ".loss"))},
        )


def write_training():
    d = tiny.TESTDATA / "distilbert" / "tiny"
    padded = batches()["padded"]
    for name, optimizer in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        tiny.store(d / f"{name}.safetensors", tiny.train(base(), padded, functools.partial(optimizer, lr=1e-3)))
    last = base()
    for n, p in last.named_parameters():
        p.requires_grad_(n.startswith(("pre_classifier.", "classifier.")))
    tiny.store(d / "last_layers.safetensors", tiny.train(last, padded, functools.partial(torch.optim.Adam, lr=1e-3)))


def bert_config():
    return BertConfig(
        vocab_size=SHAPE["vocab_size"],
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=40,
        type_vocab_size=2,
        pad_token_id=0,
        attn_implementation="eager",
    )


def write_bert():
    tiny.seed(3)
    bert = tiny.randomise(BertModel(bert_config()), 13).eval()
    d = tiny.folder("distilbert", "bert")
    bert.save_pretrained(d)
    tiny.store(d / "golden.safetensors", observe(bert, with_labels=False))

    # The published BERT checkpoints: a "bert." prefix, a language-model head, and norms named gamma and beta.
    mlm = tiny.randomise(BertForMaskedLM(bert_config()), 14)
    mlm.bert.load_state_dict({k: v for k, v in bert.state_dict().items() if not k.startswith("pooler.")})
    d = tiny.folder("distilbert", "bert-mlm")
    mlm.save_pretrained(d)
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in mlm.state_dict().items()
        if k not in ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")
    }
    tiny.store(d / "model.safetensors", old)


if __name__ == "__main__":
    write_checkpoints()
    write_training()
    write_bert()
    tiny.finish(tiny.TESTDATA / "distilbert")
