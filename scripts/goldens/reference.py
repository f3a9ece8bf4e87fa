#!/usr/bin/env python3
"""Methods that no library implements on the tiny models, written down in plain torch, and what they compute.

    reference.py [FOLDER…]

Writes testdata/reference/<family>-<task>-<method>/golden.safetensors (see testdata/README.md), all of them or those named. Every
trained number is drawn at random first.
"""

import functools
import math
import sys
import types

import llama
import peft_files
import tiny
import torch
from torch import nn
from transformers.models.llama import modeling_llama

OPTIMIZER = functools.partial(torch.optim.Adam, lr=1e-2)
LENGTH = 4  # of adaption prompts
HEADS = ("pre_classifier.", "classifier.", "score.")


class Affine(nn.Module):
    """LLaMA-Adapter v2 on a linear map: scale · (W·x + b + bias)."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.adapter_bias = nn.Parameter(torch.zeros(inner.out_features))
        self.adapter_scale = nn.Parameter(torch.ones(inner.out_features))

    def forward(self, x):
        return self.adapter_scale * (self.inner(x) + self.adapter_bias)


def linear_maps(model):
    """Parent, attribute and name of every linear map of the blocks."""
    return [
        (model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], name)
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear) and ".layer" in name
    ]


def branch(attention, q, k_map, v_map):
    """gate · softmax(q·kᵀ/√d)·v over the keys and values that the block's own maps make of its prompt; q is [B, H, S, d]."""

    def heads(m):
        x = getattr(m, "inner", m)(attention.adaption_prompt)
        x = x.view(1, LENGTH, -1, q.shape[-1]).transpose(1, 2)
        return x.repeat_interleave(q.shape[1] // x.shape[1], dim=1)

    weights = torch.softmax(q @ heads(k_map).transpose(2, 3) / math.sqrt(q.shape[-1]), dim=-1)
    gate = attention.adaption_gate
    return (torch.tanh(gate) if attention.tanh else gate) * (weights @ heads(v_map))


def prompted_eager(module, query, key, value, mask, _eager=modeling_llama.eager_attention_forward, **kw):
    out, weights = _eager(module, query, key, value, mask, **kw)  # [B, S, H, d]
    if hasattr(module, "adaption_prompt"):
        out = out + branch(module, query, module.k_proj, module.v_proj).transpose(1, 2)
    return out, weights


modeling_llama.eager_attention_forward = prompted_eager  # where queries are rotated already


def add_prompts(model, family, layers, tanh):
    """LLaMA-Adapter in the top layers, a gate per head."""
    encoder = family in peft_files.ENCODERS
    if encoder:
        blocks = model.base_model.transformer.layer if family == "distilbert" else model.base_model.encoder.layer
    else:
        blocks = model.model.layers
    for block in blocks[len(blocks) - layers :]:
        a = block.attention if encoder else block.self_attn
        n = model.config.num_attention_heads
        a.adaption_prompt = nn.Parameter(torch.zeros(1, LENGTH, model.config.hidden_size))
        a.adaption_gate = nn.Parameter(torch.zeros(1, n, 1, 1))
        a.tanh = tanh
        if encoder:
            q, k, v, o = (
                (a.q_lin, a.k_lin, a.v_lin, a.out_lin)
                if family == "distilbert"
                else (a.self.query, a.self.key, a.self.value, a.output.dense)
            )

            def keep(_, __, out, a=a, n=n):
                a.queries = out.view(*out.shape[:2], n, -1).transpose(1, 2)

            def join(_, args, a=a, k=k, v=v):
                return (args[0] + branch(a, a.queries, k, v).transpose(1, 2).flatten(2),)

            q.register_forward_hook(keep)
            o.register_forward_pre_hook(join)


def bitfit(model, family):
    """Every bias, and new ones on linear maps that have none."""
    for parent, attribute, _ in linear_maps(model):
        m = getattr(parent, attribute)
        if m.bias is None:
            m.bias = nn.Parameter(torch.zeros(m.out_features))
    return lambda name: name.endswith(".bias")


def adapter(model, family, layers, tanh):
    add_prompts(model, family, layers, tanh)
    return lambda name: "adaption_" in name


def v2(model, family):
    for parent, attribute, _ in linear_maps(model):
        setattr(parent, attribute, Affine(getattr(parent, attribute)))
    if hasattr(model, "lm_head"):
        model.lm_head = Affine(model.lm_head)
    add_prompts(model, family, 99, False)
    return lambda name: "adaption_" in name or ".adapter_" in name or "norm" in name.lower()


METHODS = {
    "bitfit": bitfit,
    "llama-adapter": functools.partial(adapter, layers=2, tanh=False),
    "llama-adapter-tanh": functools.partial(adapter, layers=1, tanh=True),
    "llama-adapter-v2": v2,
}


@torch.no_grad()
def randomise(model, n):
    g = torch.Generator().manual_seed(n)
    for name, p in tiny.trainable(model):
        noise = torch.randn(p.shape, generator=g)
        if "adapter_scale" in name or "norm" in name.lower() and name.endswith("weight"):
            p.copy_(1 + 0.2 * noise)
        elif "adaption_gate" in name:
            p.copy_(0.5 + 0.2 * noise)
        elif "adaption_prompt" in name:
            p.copy_(0.7 * noise)
        else:
            p.copy_((0.4 if p.ndim > 1 else 0.1) * noise)


def write(family, task, method, n):
    tiny.seed(n)
    model = peft_files.FAMILIES[family, task][0]()
    trained = METHODS[method](model, family)
    for name, p in model.named_parameters():
        p.requires_grad_(trained(name) or name.startswith(HEADS))
    model.eval()
    randomise(model, n)
    out = {f"init.{name}": p.detach().clone() for name, p in tiny.trainable(model)}

    def forward(b):
        extra = (
            {}
            if family in peft_files.ENCODERS
            else dict(position_ids=llama.positions(b["attention_mask"]), use_cache=False)
        )
        r = model(**b, **extra)
        logits = llama.at_real_tokens(r.logits, b["attention_mask"]) if task == "causal" else r.logits
        return types.SimpleNamespace(logits=logits, loss=r.loss)

    batches, trained_on = peft_files.batches_of(family, task)
    with torch.no_grad():
        for name, b in batches.items():
            r = forward(b)
            out |= tiny.named(name, b) | {f"{name}.logits": r.logits, f"{name}.loss": r.loss}
    b = batches[trained_on]
    out |= tiny.train(model, b, OPTIMIZER, every_step=False, loss_of=lambda: forward(b).loss)
    tiny.store(tiny.folder("reference", f"{family}-{task}-{method}") / "golden.safetensors", out)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        tiny.folder("reference")
    for i, (family, task) in enumerate(peft_files.FAMILIES):
        for j, method in enumerate(METHODS):
            if len(sys.argv) == 1 or f"{family}-{task}-{method}" in sys.argv[1:]:
                write(family, task, method, 300 + 10 * i + j)
    tiny.finish(tiny.TESTDATA / "reference")
