#!/usr/bin/env python3
"""Checkpoints of litgpt's LLaMA-Adapter v2 on the tiny models, and what litgpt computes with them.

Writes testdata/litgpt/v2-<fused map>.safetensors and .golden.safetensors on llama/gqa. litgpt's maps of queries, keys and values
are called attn.attn in earlier versions (heads in turn) and attn.qkv in later ones: run it under one version of each, with
litgpt==0.5.3 and litgpt==0.5.8 (and lightning==2.5.6).
"""

import llama
import tiny
import torch
from litgpt import adapter_v2

NAMES = {
    "self_attn.o_proj": "attn.proj",
    "mlp.gate_proj": "mlp.fc_1",
    "mlp.up_proj": "mlp.fc_2",
    "mlp.down_proj": "mlp.proj",
}


def config():
    c = llama.gqa().config
    return adapter_v2.Config(
        name="tiny",
        block_size=64,
        n_layer=c.num_hidden_layers,
        n_head=c.num_attention_heads,
        n_embd=c.hidden_size,
        n_query_groups=c.num_key_value_heads,
        vocab_size=c.vocab_size,
        padded_vocab_size=c.vocab_size,
        intermediate_size=c.intermediate_size,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=c.rms_norm_eps,
        mlp_class_name="LLaMAMLP",
        rope_base=int(getattr(c, "rope_theta", 500000)),
        adapter_prompt_length=4,
        adapter_start_layer=1,
    )


def fused(q, k, v, interleaved, c):
    """The maps of queries, keys and values as one."""
    if not interleaved:
        return torch.cat([q, k, v])
    groups = [x.view(c.n_query_groups, -1, c.head_size, c.n_embd) for x in (q, k, v)]
    return torch.cat(groups, 1).reshape(-1, c.n_embd)


def weights(model, c):
    """llama/gqa under litgpt's names."""
    w = llama.gqa().state_dict()
    own = "qkv" if any(".attn.qkv." in k for k in model.state_dict()) else "attn"
    out = {"lm_head.linear.weight": w["lm_head.weight"], "transformer.wte.weight": w["model.embed_tokens.weight"]}
    out["transformer.ln_f.weight"] = w["model.norm.weight"]
    for i in range(c.n_layer):
        theirs, ours = f"model.layers.{i}.", f"transformer.h.{i}."
        q, k, v = (w[f"{theirs}self_attn.{x}_proj.weight"] for x in "qkv")
        out[f"{ours}attn.{own}.linear.weight"] = fused(q, k, v, own == "attn", c)
        out |= {f"{ours}{b}.linear.weight": w[f"{theirs}{a}.weight"] for a, b in NAMES.items()}
        out[f"{ours}norm_1.weight"] = w[f"{theirs}input_layernorm.weight"]
        out[f"{ours}norm_2.weight"] = w[f"{theirs}post_attention_layernorm.weight"]
    return own, out


@torch.no_grad()
def main():
    c = config()
    model = adapter_v2.GPT(c).eval()
    own, w = weights(model, c)
    missing, unexpected = model.load_state_dict(w, strict=False)
    if unexpected or any(adapter_v2.adapter_filter(k, None) is False for k in missing):
        raise SystemExit(f"missing {missing}, unexpected {unexpected}")
    g = torch.Generator().manual_seed(500)
    state = {k: v for k, v in model.state_dict().items() if adapter_v2.adapter_filter(k, v)}
    for k, p in state.items():
        noise = torch.randn(p.shape, generator=g)
        if "adapter_wte" in k:
            p.copy_(0.7 * noise)
        elif "gating" in k:
            p.copy_(0.5 + 0.2 * noise)
        elif "bias" in k:
            p.copy_(0.1 * noise)
        else:
            p.copy_(p + 0.2 * noise)
    ids = llama.batches()["full"]["input_ids"]
    d = tiny.TESTDATA / "litgpt"
    d.mkdir(exist_ok=True)
    tiny.store(d / f"v2-{own}.safetensors", state)
    tiny.store(
        d / f"v2-{own}.golden.safetensors",
        {"full.input_ids": ids, "full.attention_mask": torch.ones_like(ids), "full.logits": model(ids)},
    )
    tiny.finish(d)


if __name__ == "__main__":
    main()
