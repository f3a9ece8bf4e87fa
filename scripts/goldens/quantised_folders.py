#!/usr/bin/env python3
"""Folders of one tiny LLaMA whose linear maps are quantised, in the formats of five libraries, with what it computes from them.

Writes testdata/quantised_folders/ (see testdata/README.md for the names). The bitsandbytes folders and the compressed-tensors one
are written and computed with by transformers and those libraries. GPTQ's and AWQ's are written down here from their documented
layouts, for their libraries compute on GPUs only; their packers (gptqmodel 7.7.0, autoawq 0.2.9) give the same bytes.

An evaluation of a bitsandbytes model on a CPU leaves later training without gradients, so each folder is trained in a process of
its own.
"""

import json
import subprocess
import sys
import tempfile

import bitsandbytes as bnb
import peft
import tiny
import torch
from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM
from transformers.utils.quantization_config import CompressedTensorsConfig

VOCAB = 96
LENGTH = 12
OUT = "quantised_folders"
SEEN = "model.layers.0.self_attn.k_proj"  # whose dequantised weight is stored
GROUP = 32


def bits4(kind, double, **more):
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.float32,
        **more,
    )


BITSANDBYTES = {
    "nf4": bits4("nf4", False),
    "nf4-double": bits4("nf4", True),
    "nf4-storage": bits4("nf4", True, bnb_4bit_quant_storage=torch.bfloat16),
    "fp4": bits4("fp4", False),
    "int8": BitsAndBytesConfig(load_in_8bit=True),
}
TRAINED = ("nf4-double", "int8")


def plain():
    """The model that all folders are made from."""
    tiny.seed(7)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    return tiny.randomise(LlamaForCausalLM(config), 71, matrix=0.15).eval()


def batch():
    ids = torch.randint(3, VOCAB, (2, LENGTH), generator=torch.Generator().manual_seed(72))
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids.clone())


def load(folder, dtype=torch.float32, **kw):
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, device_map="cpu", attn_implementation="eager", **kw
    )


def maps(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and ".layers." in n}


@torch.no_grad()
def weights(model):
    """What the quantised maps stand for, in fp32."""
    out = {}
    for name, m in maps(model).items():
        w = m.weight
        if isinstance(m, bnb.nn.Linear4bit):
            w.quant_state.dtype = torch.float32  # not rounded to the dtype that the weights came in
            out[name] = dequantize_4bit(w.data, w.quant_state)
        else:
            out[name] = int8_vectorwise_dequant(w.data, w.SCB)
    return out


@torch.no_grad()
def dequantised(values, other):
    """The model other with those weights in its maps, computed with as any."""
    model = plain()
    for name, p in model.named_parameters():
        module = name.removesuffix(".weight")
        p.copy_(values[module] if module in values else other.get_parameter(name))
    return model


def observe(model):
    r = model(**batch(), use_cache=False)
    return tiny.named("full", batch() | dict(logits=r.logits, loss=r.loss))


def lora(model):
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    for p in model.parameters():
        p.requires_grad_(False)
    model = peft.get_peft_model(model, config)
    g = torch.Generator().manual_seed(73)
    with torch.no_grad():
        for _, p in tiny.trainable(model):
            p.data = 0.2 * torch.randn(p.shape, generator=g)
    return model


def gradients(model):
    """In train mode, without dropout; the names are those of the adapter's file."""
    model = lora(model).train()
    loss = model(**batch(), use_cache=False).loss
    loss.backward()
    rename = lambda n: n.replace(".default", "")  # noqa: E731
    return model, {"train.loss": loss} | {f"grad.{n}": p.grad for n, p in tiny.trainable(model, rename)}


def seen(values):
    return {f"dequantised.{SEEN}.weight": values[SEEN]}


def write_bitsandbytes(name):
    d = tiny.folder(OUT, name)
    # Loading in another dtype than that which codes are labelled with, transformers would cast them.
    dtype = torch.bfloat16 if name == "nf4-storage" else torch.float32
    with tempfile.TemporaryDirectory() as tmp:
        plain().save_pretrained(tmp)
        load(tmp, dtype, quantization_config=BITSANDBYTES[name]).save_pretrained(d)
    (d / "generation_config.json").unlink()
    model = load(d, dtype)
    values = weights(model)
    if name == "nf4-storage":
        model = dequantised(values, model)
    out = seen(values) | observe(model.train())  # bitsandbytes evaluates with a kernel that rounds to bf16
    if name in TRAINED:
        with tempfile.TemporaryDirectory() as tmp:
            subprocess.run([sys.executable, __file__, "train", str(d), f"{tmp}/out"], check=True)
            out |= load_file(f"{tmp}/out")
    tiny.store(d / "golden.safetensors", out)


def train(folder, path):
    model, out = gradients(load(folder))
    tiny.store(path, out)
    adapter = tiny.folder(OUT, "adapter")
    model.save_pretrained(adapter)
    (adapter / "README.md").unlink()
    f = adapter / "adapter_config.json"
    c = json.loads(f.read_text())
    c["target_modules"].sort()
    c["base_model_name_or_path"] = "nf4-double"
    f.write_text(json.dumps(c, indent=2, sort_keys=True) + "\n")


def grouped(w, symmetric):
    """Whole numbers 0…15 [out, in], scales [out, groups] in fp16, zero points [out, groups]."""
    g = w.view(w.shape[0], -1, GROUP)
    if symmetric:
        scale = (g.abs().amax(-1) / 7).half().float()
        zero = torch.full_like(scale, 8)
    else:
        low, high = g.amin(-1).clamp(max=0), g.amax(-1).clamp(min=0)
        scale = ((high - low) / 15).half().float()
        zero = (-low / scale).round().clamp(1, 15)
    q = ((g / scale[..., None]).round() + zero[..., None]).clamp(0, 15)
    value = (q - zero[..., None]) * scale[..., None]
    return q.int().view_as(w), scale.half(), zero.int(), value.view_as(w)


def packed(x, order=range(8)):
    """Eight numbers of the last dimension to a 32-bit word, the first of the order lowest."""
    x = x.view(*x.shape[:-1], -1, 8).long()
    word = sum(x[..., n] << 4 * i for i, n in enumerate(order))
    return (word - (word >> 31 << 32)).int().contiguous()


def gptq(w, version):
    q, scale, zero, value = grouped(w, symmetric=version == 1)
    parts = dict(
        qweight=packed(q).T.contiguous(),
        qzeros=packed(zero.T - (1 if version == 1 else 0)),
        scales=scale.T.contiguous(),
        g_idx=torch.arange(w.shape[1], dtype=torch.int32) // GROUP,
    )
    return parts, value


def awq(w):
    q, scale, zero, value = grouped(w, symmetric=False)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    return dict(qweight=packed(q.T, order), qzeros=packed(zero.T, order), scales=scale.T.contiguous()), value


def compressed(w, symmetric):
    q, scale, zero, value = grouped(w, symmetric)
    parts = dict(weight_packed=packed(q), weight_scale=scale, weight_shape=torch.tensor(w.shape))
    if not symmetric:
        parts["weight_zero_point"] = packed(zero.T).T.contiguous()
    return parts, value


def compressed_config(symmetric):
    return dict(
        quant_method="compressed-tensors",
        format="pack-quantized",
        quantization_status="compressed",
        ignore=["lm_head"],
        config_groups=dict(
            group_0=dict(
                targets=["Linear"],
                weights=dict(num_bits=4, type="int", symmetric=symmetric, strategy="group", group_size=GROUP),
            )
        ),
    )


def gptq_config(**more):
    return dict(quant_method="gptq", bits=4, group_size=GROUP, desc_act=False, **more)


PACKED = {
    "gptq": (lambda w: gptq(w, 1), gptq_config(sym=True)),
    "gptq-v2": (lambda w: gptq(w, 2), gptq_config(sym=False, checkpoint_format="gptq_v2")),
    "awq": (awq, dict(quant_method="awq", bits=4, group_size=GROUP, zero_point=True, version="gemm")),
    "compressed-tensors": (lambda w: compressed(w, True), compressed_config(True)),
    "compressed-tensors-zeros": (lambda w: compressed(w, False), compressed_config(False)),
}


def write_packed(name):
    pack, config = PACKED[name]
    d = tiny.folder(OUT, name)
    model = plain()
    quantised = {n: pack(m.weight.detach()) for n, m in maps(model).items()}
    values = {n: value for n, (_, value) in quantised.items()}
    rest = {n: p.half() for n, p in model.named_parameters() if n.removesuffix(".weight") not in values}
    tensors = dict(rest)
    for n, (parts, _) in quantised.items():
        tensors |= tiny.named(n, parts)
    tiny.store(d / "model.safetensors", tensors)
    made = dict(quantization_config=config, dtype="float16", architectures=["LlamaForCausalLM"])
    c = model.config.to_diff_dict() | made
    (d / "config.json").write_text(json.dumps(c, indent=2, sort_keys=True) + "\n")
    model.load_state_dict(rest, strict=False)
    if name == "compressed-tensors":  # which does not unpack zero points
        model = load(d, quantization_config=CompressedTensorsConfig(run_compressed=False))
    else:
        model = dequantised(values, model)
    tiny.store(d / "golden.safetensors", seen(values) | observe(model))


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        train(*sys.argv[2:])
        sys.exit()
    tiny.folder(OUT)
    for name in BITSANDBYTES:
        write_bitsandbytes(name)
    for name in PACKED:
        write_packed(name)
    tiny.finish(tiny.TESTDATA / OUT)
