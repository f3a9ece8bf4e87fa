#!/usr/bin/env python3
"""Tiny LLaMA-family checkpoints, one per way in which their configurations differ, with what transformers computes from them.

Writes testdata/llama/ (see testdata/README.md for the names). The stories need the 260k-parameter model, which is not part of this
repository: --stories, else $GOPEFT_SHARED/models/llama-stories260k, else ../shared/data/models/llama-stories260k.
"""

import argparse
import functools
import json
import os
import pathlib

import tiny
import torch
from tokenizers import Tokenizer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

VOCAB = 48
SHAPE = dict(
    vocab_size=VOCAB,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    attn_implementation="eager",
)
LENGTH = 11

VARIANTS = {
    "gqa": (LlamaForCausalLM, LlamaConfig, dict(num_key_value_heads=2, rope_theta=500000.0, rms_norm_eps=1e-6)),
    "tied": (LlamaForCausalLM, LlamaConfig, dict(tie_word_embeddings=True)),
    "biases": (LlamaForCausalLM, LlamaConfig, dict(attention_bias=True, mlp_bias=True)),
    "head-dim": (LlamaForCausalLM, LlamaConfig, dict(head_dim=6, num_key_value_heads=2)),
    "rope-linear": (LlamaForCausalLM, LlamaConfig, dict(rope_scaling=dict(rope_type="linear", factor=2.0))),
    # 11 tokens exceed 8 positions: the base grows; the batch "short" does not reach them, so it stays.
    "rope-dynamic": (
        LlamaForCausalLM,
        LlamaConfig,
        dict(max_position_embeddings=8, rope_scaling=dict(rope_type="dynamic", factor=2.0)),
    ),
    # Four frequencies, one in each of the bands kept and interpolated, two in the band divided.
    "rope-llama3": (
        LlamaForCausalLM,
        LlamaConfig,
        dict(
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=512,
            rope_scaling=dict(
                rope_type="llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=64,
            ),
        ),
    ),
    "mistral": (MistralForCausalLM, MistralConfig, dict(num_key_value_heads=2, sliding_window=4)),
    "qwen2": (
        Qwen2ForCausalLM,
        Qwen2Config,
        dict(num_key_value_heads=2, rope_theta=1000000.0, tie_word_embeddings=True),
    ),
}


def config(**changes):
    return LlamaConfig(**SHAPE | dict(num_hidden_layers=3) | changes)


def base():
    """The causal model every fixture of peft/ starts from."""
    tiny.seed(4)
    return tiny.randomise(LlamaForCausalLM(config()), 41).eval()


def gqa():
    cls, cfg, changes = VARIANTS["gqa"]
    tiny.seed(5)
    return tiny.randomise(cls(cfg(**SHAPE | changes)), 107).eval()


def biased():
    """Biases on every linear map of the blocks."""
    return variant(list(VARIANTS).index("biases"))


def tied():
    return variant(list(VARIANTS).index("tied"))


def variant(i):
    cls, cfg, changes = list(VARIANTS.values())[i]
    tiny.seed(50 + i)
    return tiny.randomise(cls(cfg(**SHAPE | changes)), 60 + i).eval()


def classifier():
    """The same decoder with a head of three labels."""
    tiny.seed(6)
    m = tiny.randomise(LlamaForSequenceClassification(config(num_labels=3)), 43).eval()
    m.model.load_state_dict(base().model.state_dict())
    return m


def batches(task="causal"):
    """Three rows without padding and padded on either side; no real token is the padding id 0.

    Causal labels: -100 at padding, at the first real token (nothing real predicts it) and over the first 4 tokens of row 0, a prompt.
    """
    g = torch.Generator().manual_seed(44)
    ids = torch.randint(3, VOCAB, (3, LENGTH), generator=g)
    lengths = torch.tensor([LENGTH, 7, 4])[:, None]
    place = torch.arange(LENGTH)
    out = {}
    for name, mask in (
        ("full", torch.ones_like(ids)),
        ("right", (place < lengths).long()),
        ("left", (place >= LENGTH - lengths).long()),
    ):
        start = mask.argmax(1)
        real = torch.zeros_like(ids)
        labels = torch.full_like(ids, -100)
        for r in range(3):
            n = int(mask[r].sum())
            row = slice(int(start[r]), int(start[r]) + n)
            real[r, row] = ids[r, :n]
            labels[r, row] = ids[r, :n]
            labels[r, start[r] : start[r] + (4 if r == 0 else 1)] = -100
        out[name] = dict(input_ids=real, attention_mask=mask, labels=labels)
        if task == "seqcls":
            out[name]["labels"] = torch.tensor([1, 2, 0])
    return out


def positions(mask):
    """Counted from the first real token."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def at_real_tokens(x, mask):
    return x * mask[..., None].to(x.dtype)


@torch.no_grad()
def observe(model, extra=()):
    out = {}
    for name, b in (batches() | dict(extra)).items():
        r = model(**b, position_ids=positions(b["attention_mask"]), output_hidden_states=True, use_cache=False)
        out |= tiny.named(name, b)
        out |= {f"{name}.logits": at_real_tokens(r.logits.float(), b["attention_mask"]), f"{name}.loss": r.loss.float()}
        if name == "right":
            out |= {
                f"{name}.hidden_states.{i}": at_real_tokens(h.float(), b["attention_mask"])
                for i, h in enumerate(r.hidden_states)
            }
    return out


@torch.no_grad()
def greedy(model, batch, tokens, **kw):
    """New ids of greedy decoding, and the smallest distance between the best and the second logit on the way."""
    r = model.generate(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        do_sample=False,
        max_new_tokens=tokens,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
        **kw,
    )
    new = r.sequences[:, -len(r.logits) :]
    live = torch.ones(len(new), dtype=torch.bool)
    margin = float("inf")
    for i, logits in enumerate(r.logits):
        top = logits.float().topk(2).values
        if live.any():
            margin = min(margin, float((top[:, 0] - top[:, 1])[live].min()))
        live &= new[:, i] != kw.get("eos_token_id", 2)
    return new, margin


def decodings(model, rows=("full", "left"), tokens=24, extra=(), **kw):
    out = {}
    for name in rows:
        ids, margin = greedy(model, (batches() | dict(extra))[name], tokens, **kw)
        if ids.shape[1] != tokens or (ids == 2).any():
            raise ValueError(f"{name}: greedy decoding stopped early; change the seed")
        if margin < 2e-4:
            raise ValueError(f"{name}: two logits are {margin:.1e} apart; change the seed")
        out[f"generate.{name}.new_ids"] = ids
    return out


def write_base():
    model = base()
    d = tiny.folder("llama", "base")
    model.save_pretrained(d)
    out = observe(model) | decodings(model)
    # The token that the first row of "left" emits tenth, taken as the end: that row stops there and is padded with 0.
    eos = int(out["generate.left.new_ids"][0, 9])
    out["generate.eos.token_id"] = eos
    out["generate.eos.new_ids"], _ = greedy(model, batches()["left"], 24, eos_token_id=eos)
    tiny.store(d / "golden.safetensors", out)
    right = batches()["right"]
    tiny.store(d / "adam.safetensors", tiny.train(base(), right, functools.partial(torch.optim.Adam, lr=1e-3)))

    bf16 = base().to(torch.bfloat16)
    d = tiny.folder("llama", "base-bf16")
    bf16.save_pretrained(d)
    # Loaded again: .to(bfloat16) rounds the table of rotary frequencies too, which no checkpoint holds.
    rounded = {}
    for prefix, dtype in (("bf16.", torch.bfloat16), ("", torch.float32)):
        loaded = LlamaForCausalLM.from_pretrained(d, dtype=dtype, attn_implementation="eager").eval()
        rounded |= {prefix + k: v for k, v in observe(loaded).items() if k.endswith((".logits", ".loss"))}
    tiny.store(d / "golden.safetensors", rounded)

    model.model.save_pretrained(tiny.folder("llama", "base-noprefix"))
    model.save_pretrained(tiny.folder("llama", "base-sharded"), max_shard_size="16KB")


def write_variants():
    for i, name in enumerate(VARIANTS):
        model = gqa() if name == "gqa" else variant(i)
        d = tiny.folder("llama", name)
        model.save_pretrained(d)
        extra = {}
        if name == "rope-dynamic":
            extra["short"] = {k: v[:, :6] for k, v in batches()["full"].items()}
        out = observe(model, extra)
        if name in ("gqa", "mistral"):
            out |= decodings(model)
        if name == "rope-dynamic":  # "short" grows past the original length, "full" starts beyond it
            out |= decodings(model, ("short", "full"), 24, extra)
        tiny.store(d / "golden.safetensors", out)


@torch.no_grad()
def observe_classifier(model):
    out = {}
    for name, b in batches("seqcls").items():
        r = model(**b, position_ids=positions(b["attention_mask"]), use_cache=False)
        out |= tiny.named(name, b) | {f"{name}.logits": r.logits, f"{name}.loss": r.loss}
    return out


def write_classifier():
    model = classifier()
    d = tiny.folder("llama", "seqcls")
    model.save_pretrained(d)
    tiny.store(d / "golden.safetensors", observe_classifier(model))


PROMPTS = """Once upon a time
Once upon a time, there was a little girl named Lily
One day, a boy went to the park
Tom and Ben were
The dog
She was very happy
"Hello," said the cat
Mom said,
There was a big red ball
It was raining
The sun
In the forest, there lived
Tim had a toy car
Lily and her mom
A bird wanted to fly
He saw a big
They played all day
The little fish
I like
Max""".split("\n")


def write_stories(folder):
    """Greedy continuations by a real model; a continuation ends before any step that rounding could decide."""
    tok = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    rows = []
    for p in PROMPTS:
        ids = tok.encode(p).ids
        inputs = torch.tensor([ids])
        r = model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            do_sample=False,
            max_new_tokens=64,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        new = r.sequences[0, len(ids) :].tolist()
        for i, logits in enumerate(r.logits):
            top = logits[0].topk(2).values
            if float(top[0] - top[1]) < 1e-3:
                new = new[:i]
                break
        rows.append(dict(prompt=p, prompt_ids=ids, new_ids=new, text=tok.decode(ids + new)))
    (tiny.TESTDATA / "llama" / "stories260k.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    shared = os.environ.get("GOPEFT_SHARED") or tiny.TESTDATA.parent.parent / "shared" / "data"
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--stories", type=pathlib.Path, default=pathlib.Path(shared) / "models" / "llama-stories260k")
    a = p.parse_args()
    write_base()
    write_variants()
    write_classifier()
    if a.stories.is_dir():
        write_stories(a.stories)
    else:
        print(f"no {a.stories}: the stories are left as they are")
    tiny.finish(tiny.TESTDATA / "llama")
