#!/usr/bin/env python3
"""Adapter folders saved by AdapterHub's `adapters` on the tiny DistilBERT, and what it computes with them.

Writes testdata/adapterhub/distilbert-<method>/ (see testdata/README.md). Every trained number is drawn at random first.
"""
import functools
import types

import adapters
import distilbert
import tiny
import torch
from adapters import DistilBertAdapterModel, DoubleSeqBnConfig, PrefixTuningConfig, SeqBnConfig

NAME = "imdb"
OPTIMIZER = functools.partial(torch.optim.Adam, lr=1e-2)

METHODS = {
    "houlsby": DoubleSeqBnConfig(reduction_factor=4),
    "pfeiffer": SeqBnConfig(reduction_factor=4),
    "prefix": PrefixTuningConfig(prefix_length=5, bottleneck_size=12),
    "prefix-flat": PrefixTuningConfig(prefix_length=5, flat=True),
}


def static():
    """The classifier of transformers with its own head."""
    model = distilbert.base()
    model.name_or_path = "distilbert/tiny"
    adapters.init(model)
    return model


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


@torch.no_grad()
def randomise(model, n):
    g = torch.Generator().manual_seed(n)
    for _, p in tiny.trainable(model):
        p.copy_((0.4 if p.ndim > 1 or p.numel() > 64 else 0.1) * torch.randn(p.shape, generator=g))


def write(folder, make, config, n, safetensors=True):
    tiny.seed(n)
    model = make()
    model.add_adapter(NAME, config=config)
    model.train_adapter(NAME)
    model.eval()
    randomise(model, n)
    d = tiny.folder("adapterhub", folder)
    model.save_adapter(str(d), NAME, with_head=True, use_safetensors=safetensors)

    def forward(b):
        r = model(**b)
        return types.SimpleNamespace(logits=r.logits, loss=r.loss)

    out = {}
    with torch.no_grad():
        for name, b in distilbert.batches().items():
            r = forward(b)
            out |= tiny.named(name, b) | {f"{name}.logits": r.logits, f"{name}.loss": r.loss}
    padded = distilbert.batches()["padded"]
    out |= tiny.train(model, padded, OPTIMIZER, every_step=False, loss_of=lambda: forward(padded).loss)
    tiny.store(d / "golden.safetensors", out)


if __name__ == "__main__":
    tiny.folder("adapterhub")
    for i, (method, config) in enumerate(METHODS.items()):
        # Its prefixes share tensors between layers, which safetensors refuses to write.
        write(f"distilbert-{method}", static, config, 200 + i, safetensors=not method.startswith("prefix"))
    write("distilbert-houlsby-bin", static, METHODS["houlsby"], 200, safetensors=False)
    write("distilbert-houlsby-flexible-head", flexible, METHODS["houlsby"], 210)
    tiny.finish(tiny.TESTDATA / "adapterhub")
