#!/usr/bin/env python3
"""Adapter folders saved by AdapterHub's `adapters` on the tiny models, and what it computes with them.

    adapterhub.py [FOLDER…]

Writes testdata/adapterhub/<model>-<method>/ (see testdata/README.md), all of them or those named. Every trained number is drawn at
random first. Under adapters 0.2.2 (torch 2.1.0, transformers 4.40.2), whose prefixes have as many heads as the queries, it writes
testdata/adapterhub-0.2/ in place of those: what that version does otherwise.
"""

import functools
import sys
import types

import adapters
import distilbert
import encoders
import llama
import peft_files
import tiny
import torch
from adapters import BertAdapterModel, DistilBertAdapterModel, DoubleSeqBnConfig, PrefixTuningConfig, SeqBnConfig
from transformers import AutoModelForCausalLM

NAME = "imdb"
OLD = adapters.__version__.startswith("0.")
TOP = "adapterhub-0.2" if OLD else "adapterhub"
OPTIMIZER = functools.partial(torch.optim.Adam, lr=1e-2)

METHODS = {
    "houlsby": DoubleSeqBnConfig(reduction_factor=4),
    "pfeiffer": SeqBnConfig(reduction_factor=4),
    "prefix": PrefixTuningConfig(prefix_length=5, bottleneck_size=12),
    "prefix-flat": PrefixTuningConfig(prefix_length=5, flat=True),
}


def static(make, name):
    """A model of transformers with its own head; a language model's is not trained."""

    def made():
        model = make()
        model.name_or_path = name
        adapters.init(model)
        return model

    return made


def flexible():
    """AdapterHub's own class, whose head has the adapter's name: two layers with tanh between."""
    model = DistilBertAdapterModel(distilbert.config())
    # Strict but for its alias of the word embeddings.
    weights = distilbert.base().distilbert.state_dict()
    weights["prompt_tuning.base_model_embeddings.weight"] = weights["embeddings.word_embeddings.weight"]
    model.distilbert.load_state_dict(weights)
    model.name_or_path = "distilbert/tiny"
    model.add_classification_head(NAME, num_labels=3)
    return model


def flexible_bert():
    """The same of a BERT, whose pooler the head leaves alone."""
    model = BertAdapterModel(encoders.bert_config())
    weights = encoders.base("bert").bert.state_dict()
    weights["prompt_tuning.base_model_embeddings.weight"] = weights["embeddings.word_embeddings.weight"]
    model.bert.load_state_dict(weights)
    model.name_or_path = "bert/tiny"
    model.add_classification_head(NAME, num_labels=3)
    return model


@torch.no_grad()
def randomise(model, n):
    g = torch.Generator().manual_seed(n)
    for _, p in tiny.trainable(model):
        p.copy_((0.4 if p.ndim > 1 or p.numel() > 64 else 0.1) * torch.randn(p.shape, generator=g))


def write(folder, make, config, n, task="distilbert", safetensors=True, head=None):
    """task is that of a LLaMA, or the family of an encoder. A language model's head is saved where it is "frozen" or "trained"."""
    if len(sys.argv) > 1 and folder not in sys.argv[1:]:
        return
    tiny.seed(n)
    model = make()
    model.add_adapter(NAME, config=config)
    model.train_adapter(NAME)
    if task == "causal":
        model.lm_head.requires_grad_(head == "trained")
    model.eval()
    randomise(model, n)
    d = tiny.folder(TOP, folder)
    model.save_adapter(str(d), NAME, with_head=task != "causal" or head is not None, use_safetensors=safetensors)

    def forward(b):
        extra = (
            {}
            if task in peft_files.ENCODERS
            else dict(position_ids=llama.positions(b["attention_mask"]), use_cache=False)
        )
        r = model(**b, **extra)
        logits = llama.at_real_tokens(r.logits, b["attention_mask"]) if task == "causal" else r.logits
        return types.SimpleNamespace(logits=logits, loss=r.loss)

    out = {}
    batches, trained_on = peft_files.batches_of(task, task)
    with torch.no_grad():
        for name, b in batches.items():
            r = forward(b)
            out |= tiny.named(name, b) | {f"{name}.logits": r.logits, f"{name}.loss": r.loss}
    b = batches[trained_on]
    out |= tiny.train(model, b, OPTIMIZER, every_step=False, loss_of=lambda: forward(b).loss)
    tiny.store(d / "golden.safetensors", out)


def gpt2_base():
    # Under another attention the library's prefixes do nothing here.
    model = AutoModelForCausalLM.from_pretrained(tiny.TESTDATA / "gpt2" / "base", attn_implementation="eager").eval()
    model.config._name_or_path = "gpt2/base"
    return model


def write_all():
    bert = static(distilbert.base, "distilbert/tiny")
    for i, (method, config) in enumerate(METHODS.items()):
        # Its prefixes share tensors between layers, which safetensors refuses to write.
        write(f"distilbert-{method}", bert, config, 200 + i, safetensors=not method.startswith("prefix"))
    write("distilbert-houlsby-bin", bert, METHODS["houlsby"], 200, safetensors=False)
    write("distilbert-houlsby-flexible-head", flexible, METHODS["houlsby"], 210)
    for family in ("bert", "roberta"):
        encoder = static(functools.partial(encoders.base, family), f"{family}/tiny")
        for i, (method, config) in enumerate(METHODS.items()):
            write(f"{family}-{method}", encoder, config, 250 + i, family, safetensors=not method.startswith("prefix"))
    write("bert-houlsby-flexible-head", flexible_bert, METHODS["houlsby"], 260, "bert")
    causal = static(llama.base, "llama/base")
    for task, decoder in (("causal", causal), ("seqcls", static(llama.classifier, "llama/seqcls"))):
        for i, (method, config) in enumerate(METHODS.items()):
            write(f"llama-{task}-{method}", decoder, config, 220 + i, task, safetensors=not method.startswith("prefix"))
    for head in ("frozen", "trained"):
        write(f"llama-causal-pfeiffer-{head}-head", causal, METHODS["pfeiffer"], 230, "causal", head=head)
    gpt2 = static(gpt2_base, "gpt2/base")
    for i, (method, config) in enumerate(METHODS.items()):
        write(f"gpt2-causal-{method}", gpt2, config, 250 + i, "causal", safetensors=not method.startswith("prefix"))
    write_grouped()


def write_grouped():
    """Prefixes of a model whose queries share keys and values."""
    for i, method in enumerate(("prefix", "prefix-flat")):
        write(
            f"gqa-causal-{method}",
            static(llama.gqa, "llama/gqa"),
            METHODS[method],
            240 + i,
            "causal",
            safetensors=False,
        )


if __name__ == "__main__":
    if len(sys.argv) == 1:
        tiny.folder(TOP)
    if OLD:
        write_grouped()
        write(
            "llama-causal-houlsby", static(llama.base, "llama/base"), METHODS["houlsby"], 220, "causal", head="frozen"
        )
    else:
        write_all()
    tiny.finish(tiny.TESTDATA / TOP)
