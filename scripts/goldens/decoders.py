#!/usr/bin/env python3
"""Tiny checkpoints of decoders beside LLaMA's family, with what transformers computes from them.

Writes testdata/<family>/<variant> for each of FAMILIES, or those named; batches and names of tensors are those of llama.py.
"""

import argparse
import functools

import llama
import tiny
import torch
import transformers

COMMON = dict(vocab_size=llama.VOCAB, pad_token_id=0, bos_token_id=1, eos_token_id=2, attn_implementation="eager")
ROTARY = COMMON | dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)

# By folder: how the names of transformers' classes begin, their settings, and what is more in the variants. The first variant
# is what classifiers and the proofs of methods start from.
FAMILIES = {
    "qwen3": (
        "Qwen3",
        ROTARY | dict(head_dim=6, rope_theta=1e6, tie_word_embeddings=False),
        {
            "base": {},
            "tied": dict(tie_word_embeddings=True, attention_bias=True, head_dim=4),
            "window": dict(use_sliding_window=True, sliding_window=4, max_window_layers=1),
        },
    ),
    "gpt2": (
        "GPT2",
        COMMON | dict(n_embd=16, n_layer=2, n_head=4, n_positions=64),
        {
            "base": {},
            "scaled": dict(n_inner=24, scale_attn_by_inverse_layer_idx=True, tie_word_embeddings=False),
        },
    ),
    "phi3": (
        "Phi3",
        ROTARY,
        {
            "base": {},
            # Texts of up to 8 tokens turn by the short factors, longer ones by the long.
            "long": dict(
                original_max_position_embeddings=8,
                rope_scaling=dict(type="longrope", short_factor=[1.0, 1.5], long_factor=[1.5, 6.0]),
            ),
            "partial": dict(partial_rotary_factor=0.5, sliding_window=4),
        },
    ),
    "olmo2": ("Olmo2", ROTARY, {"base": {}}),
    "smollm3": ("SmolLM3", ROTARY, {"base": dict(no_rope_layer_interval=2, tie_word_embeddings=True)}),
    "granite": (
        "Granite",
        ROTARY,
        {
            "base": dict(
                embedding_multiplier=3.0,
                attention_multiplier=0.3,
                residual_multiplier=0.6,
                logits_scaling=2.0,
            ),
        },
    ),
    "gemma2": (
        "Gemma2",
        ROTARY
        | dict(
            head_dim=6,
            query_pre_attn_scalar=5,
            sliding_window=4,
            attn_logit_softcapping=5.0,
            final_logit_softcapping=4.0,
        ),
        {"base": {}},
    ),
    "gemma3": (
        "Gemma3Text",
        ROTARY | dict(head_dim=6, query_pre_attn_scalar=5, sliding_window=4, sliding_window_pattern=2),
        {"base": {}},
    ),
}

# Where the name of a class is another one.
CLASSES = {
    "GPT2ForCausalLM": "GPT2LMHeadModel",
    "Gemma3TextForCausalLM": "Gemma3ForCausalLM",
}


def make(family, variant, task, seed, **more):
    name, settings, variants = FAMILIES[family]
    config = getattr(transformers, name + "Config")(**settings | variants[variant] | more)
    tiny.seed(7)
    model = getattr(transformers, CLASSES.get(name + task, name + task))(config)
    tiny.randomise(model, seed)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if ".ln_" in key and key.endswith("weight"):
                p.add_(1)
            if name.startswith("Gemma") and "norm" in key:
                p.sub_(1)
    return model.eval()


def decoded(family, variant):
    """The first model whose greedy continuations are clear, and these."""
    for seed in range(200, 260):
        model = make(family, variant, "ForCausalLM", seed)
        try:
            if variant == "long":  # "short" grows past the original length, "full" starts beyond it
                return model, llama.decodings(model, ("short", "full"), 24, short())
            return model, llama.decodings(model)
        except ValueError:
            continue
    raise SystemExit(f"{family}/{variant}: no seed gives clear continuations")


def short():
    return {"short": {k: v[:, :6] for k, v in llama.batches()["full"].items()}}


def write(family):
    variants = list(FAMILIES[family][2])
    for variant in variants:
        model, tokens = decoded(family, variant)
        d = tiny.folder(family, variant)
        model.save_pretrained(d)
        extra = short() if variant == "long" else {}
        tiny.store(d / "golden.safetensors", llama.observe(model, extra) | tokens)
        if variant == variants[0]:
            adam = functools.partial(torch.optim.Adam, lr=1e-3)
            tiny.store(d / "adam.safetensors", tiny.train(model, llama.batches()["right"], adam, steps=1))
    if not hasattr(transformers, FAMILIES[family][0] + "ForSequenceClassification"):
        return tiny.finish(tiny.TESTDATA / family)
    classifier = make(family, variants[0], "ForSequenceClassification", 199, num_labels=3)
    d = tiny.folder(family, "seqcls")
    classifier.save_pretrained(d)
    tiny.store(d / "golden.safetensors", llama.observe_classifier(classifier))
    tiny.finish(tiny.TESTDATA / family)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("families", nargs="*", default=list(FAMILIES))
    for f in p.parse_args().families:
        write(f)
