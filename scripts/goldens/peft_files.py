#!/usr/bin/env python3
"""Adapter folders saved by peft on the tiny models, and what peft computes with them.

    peft_files.py [FOLDER…]

Writes testdata/peft/<family>-<task>-<method>/ (see testdata/README.md), all of them or those named. Every trained number is drawn at random first, so that no
method is at its neutral starting point. Where peft's own treatment of a pooled classifier is not the one wanted (prompt tuning), the
values of golden.safetensors come from the same weights pooled at the right token, and peft's own from compat.safetensors.
"""

import functools
import json
import sys
import tempfile
import types

import distilbert
import encoders
import llama
import tiny
import torch
from peft import (
    AdaLoraConfig,
    AdaptionPromptConfig,
    BOFTConfig,
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    OFTConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from peft.tuners.boft import layer as boft_layer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

K = 5  # virtual tokens, adapter length
UNCONVERTED = ("pissa-trained", "olora-trained")  # whose base peft changes again when it reads them
NEW = [48, 49, 50]  # tokens behind the LLaMAs' vocabulary
COMPUTED = ("adalora", "vera", "pissa")  # which gopeft reads as the LoRA that computes the same
OPTIMIZER = functools.partial(torch.optim.Adam, lr=1e-2)


class BlockDiagonal:
    """What peft's extension for BOFT, which needs a GPU's compiler, computes: blocks [n, d, h, h] along the diagonals of [n, d·h, d·h]."""

    apply = staticmethod(lambda blocks: torch.stack([torch.block_diag(*level.unbind()) for level in blocks]))


boft_layer.get_fbd_cuda = lambda: True
boft_layer.FastBlockDiag = BlockDiagonal

FAMILIES = {
    ("distilbert", "seqcls"): (distilbert.base, "distilbert/tiny"),
    ("llama", "seqcls"): (llama.classifier, "llama/seqcls"),
    ("llama", "causal"): (llama.base, "llama/base"),
    ("gqa", "causal"): (llama.gqa, "llama/gqa"),
    ("bert", "seqcls"): (functools.partial(encoders.base, "bert"), "bert/tiny"),
    ("roberta", "seqcls"): (functools.partial(encoders.base, "roberta"), "roberta/tiny"),
}
# Models for what peft does otherwise on them.
MORE = {("biased", "causal"): (llama.biased, "llama/biases"), ("tied", "causal"): (llama.tied, "llama/tied")}


def stored(folder, task=AutoModelForCausalLM):
    """A checkpoint of decoders.py."""
    return lambda: task.from_pretrained(tiny.TESTDATA / folder, attn_implementation="eager").eval()


# Other decoders, with what there is to see of them: maps that the checkpoint holds as one, or transposed.
DECODERS = {
    ("gpt2", "causal"): (stored("gpt2/base"), "gpt2/base"),
    ("gpt2", "seqcls"): (stored("gpt2/seqcls", AutoModelForSequenceClassification), "gpt2/seqcls"),
    ("qwen3", "causal"): (stored("qwen3/base"), "qwen3/base"),
    ("phi3", "causal"): (stored("phi3/base"), "phi3/base"),
}
MORE |= DECODERS
TASK_TYPE = {"seqcls": "SEQ_CLS", "causal": "CAUSAL_LM"}
LLAMA_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Names(types.SimpleNamespace):
    """What a family calls its linear maps, norms and head."""


DISTILBERT = Names(
    q="q_lin",
    v="v_lin",
    up="lin1",
    down="lin2",
    linear=["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"],
    ia3=dict(target_modules=["k_lin", "v_lin", "lin2"], feedforward_modules=["lin2"]),
    norms=["sa_layer_norm", "output_layer_norm"],
    head=["pre_classifier", "classifier"],
)
BERT = Names(
    q="query",
    v="value",
    up="intermediate.dense",
    down=r".*layer\.\d+\.output\.dense",  # the end alone is attention's too
    linear=["query", "key", "value", "output.dense", "intermediate.dense"],
    ia3=dict(
        target_modules=r".*\.(key|value|\d+\.output\.dense)",
        feedforward_modules=[f"{i}.output.dense" for i in range(3)],
    ),
    norms=["output.LayerNorm"],
    head=["classifier"],
)
ENCODERS = {"distilbert": DISTILBERT, "bert": BERT, "roberta": BERT}
# What is tried on the families that were made after DistilBERT's: the rest is the same code there.
ENCODER_METHODS = ("prompt", "lora", "rslora", "dora", "ia3", "lora-bias", "lora-tokens", "norms", "oft")


def decoder_methods(family, task):
    t = TASK_TYPE[task]
    few, down, every = {
        "gpt2": (["c_attn"], "mlp.c_proj", ["c_attn", "c_proj", "c_fc"]),
        "qwen3": (["q_proj", "v_proj"], "down_proj", LLAMA_LINEAR),
        "phi3": (["qkv_proj"], "down_proj", ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
    }[family]
    turned = dict(fan_in_fan_out=family == "gpt2")
    lora = functools.partial(LoraConfig, task_type=t, r=4, lora_alpha=16, lora_dropout=0.0, **turned)
    out = {"lora": lora(target_modules=few)}
    if task == "causal":
        out |= {
            "rslora": lora(target_modules=every, use_rslora=True),
            "lora-patterns": lora(target_modules=every, layers_to_transform=[1], rank_pattern={few[0]: 2}),
            "dora": lora(target_modules=[*few, down], use_dora=True),
            "ia3": IA3Config(task_type=t, target_modules=[*few, down], feedforward_modules=[down], **turned),
            "prompt": PromptTuningConfig(task_type=t, num_virtual_tokens=K),
            "prefix": PrefixTuningConfig(task_type=t, num_virtual_tokens=K),
        }
    if family == "gpt2" and task == "causal":
        out["norms"] = LNTuningConfig(task_type=t, target_modules=["ln_1", "ln_2", "ln_f"])
    return out


def methods(family, task):
    """Method name → configuration, for what peft can do with that family."""
    if (family, task) in DECODERS:
        return decoder_methods(family, task)
    t = TASK_TYPE[task]
    names = ENCODERS.get(family)
    head = dict(modules_to_save=[*names.head]) if names else {}
    lora = functools.partial(LoraConfig, task_type=t, r=4, lora_alpha=16, lora_dropout=0.0, **head)
    few = [names.q, names.v] if names else ["q_proj", "v_proj"]
    dims = dict(token_dim=16, num_layers=3, num_attention_heads=4) if names else {}
    dora = "q_proj v_proj down_proj".split()
    if names:
        dora = [names.q, names.down] if family == "distilbert" else rf".*\.{names.q}|{names.down}"
    out = {
        "prompt": PromptTuningConfig(task_type=t, num_virtual_tokens=K, **dims, **head),
        "lora": lora(target_modules=few),
        "rslora": lora(target_modules=names.linear if names else LLAMA_LINEAR, use_rslora=True),
        "dora": lora(target_modules=dora, use_dora=True),
        "ia3": IA3Config(task_type=t, **names.ia3, **head)
        if names
        else IA3Config(
            task_type=t, target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
        ),
    }
    if names:
        out |= {
            "lora-bias": lora(target_modules=few, bias="all"),
            "lora-bias-few": lora(target_modules=few, bias="lora_only"),
        }
    tokens = [3, 7, 11, 20]
    words = "word_embeddings" if names else "embed_tokens"
    grown = {words: NEW} if names or family == "tied" else {words: NEW, "lm_head": NEW}
    out |= {
        "lora-tokens": lora(target_modules=few, trainable_token_indices={words: tokens}),
        "lora-new-tokens": lora(target_modules=few, trainable_token_indices=grown),
        "lora-embedding": lora(
            target_modules=[few[0], words] + ([] if names or family == "tied" else ["lm_head"]),
            rank_pattern={few[0]: 2},
            alpha_pattern={words: 6},
        ),
        "lora-patterns": lora(
            target_modules=few, layers_to_transform=[0, 2], rank_pattern={few[0]: 2}, alpha_pattern={few[1]: 5}
        ),
        "pissa": lora(target_modules=few, init_lora_weights="pissa"),
        "pissa-trained": lora(target_modules=few, init_lora_weights="pissa"),
        "olora-trained": lora(
            target_modules=few, init_lora_weights="olora", rank_pattern={few[0]: 2}, alpha_pattern={few[0]: 5}
        ),
        "lora-saved": lora(target_modules=few, **({} if names else dict(modules_to_save=[words, "lm_head"]))),
    }
    few_more = [*few, names.up if names else "up_proj"]
    out |= {
        "adalora": AdaLoraConfig(
            task_type=t, target_modules=few, init_r=5, target_r=3, lora_alpha=6, total_step=10, **head
        ),
        "norms": LNTuningConfig(task_type=t, target_modules=names.norms if names else None, **head),
        "oft": OFTConfig(task_type=t, target_modules=few_more, oft_block_size=8, **head),
        "oft-shared": OFTConfig(task_type=t, target_modules=few, oft_block_size=4, block_share=True, **head),
        "boft": BOFTConfig(task_type=t, target_modules=few_more, boft_block_size=8, **head),
        "boft-butterflies": BOFTConfig(
            task_type=t, target_modules=few, boft_block_size=2, boft_n_butterfly_factor=3, **head
        ),
        "vera": VeraConfig(task_type=t, target_modules=few_more, r=6, **head),
    }
    tables = ("lora-tokens", "lora-new-tokens", "lora-embedding", "lora-saved")
    if task == "seqcls" and not names:
        for method in (
            *tables,
            *COMPUTED,
            *UNCONVERTED,
            "lora-patterns",
            "norms",
            "oft",
            "oft-shared",
            "boft",
            "boft-butterflies",
        ):
            out.pop(method)
    if not names:
        out |= {
            "prefix": PrefixTuningConfig(task_type=t, num_virtual_tokens=K),
            "prefix-projection": PrefixTuningConfig(
                task_type=t, num_virtual_tokens=K, prefix_projection=True, encoder_hidden_size=12
            ),
            "adaption": AdaptionPromptConfig(task_type=t, adapter_len=K, adapter_layers=2 if family == "llama" else 1),
        }
    if family == "gqa":
        out = {
            k: out[k] for k in ("prefix", "prefix-projection", "adaption", "rslora", "ia3", "lora", "dora", "prompt")
        }
    if names:
        out.pop("lora-saved")
        out.pop("lora-new-tokens")
        out.pop("pissa")  # whose converted folder has no head
    if family not in ("distilbert", "llama", "gqa", "tied", "biased"):
        out = {k: out[k] for k in ENCODER_METHODS}
    if family == "tied":
        out = {k: out[k] for k in tables}
    if family == "biased":
        out = {"adaption": out["adaption"]}  # which adds the output map's bias twice
    return out


def batches_of(family, task):
    """The batches that a fixture has, but for pairs of texts, and the one that steps are taken on."""
    if family in ENCODERS:
        out = distilbert.batches() if family == "distilbert" else encoders.batches(family)
        return {k: b for k, b in out.items() if k != "pairs"}, "padded"
    return llama.batches(task), "right"


def behind_prompt(base, family, x, mask, k):
    """An encoder's logits where its head reads what it reads without the k vectors of a prompt in front of the text in x."""
    h = base.base_model(inputs_embeds=x, attention_mask=mask).last_hidden_state[:, k:]
    if family == "distilbert":
        return base.classifier(torch.relu(base.pre_classifier(h[:, 0])))
    if family == "bert":
        return base.classifier(base.bert.pooler(h))
    return base.classifier(h)


# Where the usual seed has gradients so near to zero that Adam moves by chance.
SEEDS = {("bert", "dora"): 103, ("bert", "rslora"): 119}


@torch.no_grad()
def randomise(model, n):
    g = torch.Generator().manual_seed(n)
    for name, p in tiny.trainable(model):
        noise = torch.randn(p.shape, generator=g)
        if "ia3_l" in name:
            p.copy_(1 + 0.4 * noise)
        elif "magnitude" in name:
            p.mul_(1 + 0.2 * noise)
        elif "norm" in name:
            p.copy_(1 + 0.3 * noise if name.endswith("weight") else 0.1 * noise)
        elif "oft_R" in name:
            p.copy_((0.3 if "boft" in name else 0.1) * noise)
        elif "boft_s" in name:
            p.copy_(1 + 0.2 * noise)
        elif "lora_E" in name or "vera_lambda" in name:
            p.copy_(0.5 * noise)
        elif "lora_" in name:
            p.copy_(0.15 * noise if "adalora" not in str(type(model.base_model)) else 0.5 * noise)
        elif "adaption_gate" in name:
            p.copy_(0.5 + 0.2 * noise)
        elif "classifier" in name or "score" in name:
            p.copy_(0.4 * noise)
        elif p.ndim > 1:
            p.copy_(0.7 * noise)
        else:
            p.copy_(0.1 * noise)


def file_name(projection):
    """Name of a parameter in the saved file. With a projection the file holds the product only; its parts are named as in peft."""

    def rename(name):
        if name.startswith("prompt_encoder.default."):
            rest = name.removeprefix("prompt_encoder.default.")
            return rest if projection else "prompt_embeddings"
        name = (
            name.replace(".modules_to_save.default", "")
            .replace(".default", "")
            .replace("magnitude_vector.weight", "magnitude_vector")
        )
        return name.replace(".base_layer", "")

    return rename


def pooled(model, batch, family):
    """Prompt tuning with the head reading the token it reads without a prompt: [CLS], or the last real one."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    x = torch.cat([model.get_prompt(len(ids)), model.word_embeddings(ids)], 1)
    m = torch.cat([torch.ones(len(ids), K, dtype=mask.dtype), mask], 1)
    base = model.base_model
    if family in ENCODERS:
        logits = behind_prompt(base, family, x, m, K)
    else:
        h = base.model(inputs_embeds=x, attention_mask=m, use_cache=False).last_hidden_state
        logits = base.score(h[torch.arange(len(ids)), K + mask.sum(1) - 1])
    return types.SimpleNamespace(logits=logits, loss=torch.nn.functional.cross_entropy(logits, batch["labels"]))


def initial(model):
    """A folder with PiSSA's first values, with which peft writes what was trained as a LoRA of the unchanged base."""
    folder = tempfile.mkdtemp()
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(folder)
    model.peft_config["default"].init_lora_weights = "pissa"
    return folder


def grow(make):
    """A model with rows for the new tokens, which the adapter's take the place of."""

    def made():
        model = make()
        model.resize_token_embeddings(NEW[-1] + 1, mean_resizing=False)
        return model

    return made


def with_new(batch):
    """A batch with each of the new tokens in the place of an old one."""
    ids, labels = batch["input_ids"].clone(), batch["labels"].clone()
    for i, token in enumerate(NEW):
        at = 2 * i + 1 if batch["attention_mask"][i, 0] else -1 - i  # a token that is there, whatever the padding
        at = min(at, int(batch["attention_mask"][i].sum()) - 1) if at > 0 else at
        ids[i, at] = token
        if labels[i, at] != -100:
            labels[i, at] = token
    return batch | dict(input_ids=ids, labels=labels)


def prune(model, batch):
    """Steps of AdaLoRA's schedule, after which some ranks are left out of the file."""
    for step in range(1, 11):
        model(**batch).loss.backward()
        model.base_model.update_and_allocate(step)
        model.zero_grad()


def write(family, task, method, cfg):
    make, base_name = (FAMILIES | MORE)[family, task]
    prompting = method.startswith(("prompt", "prefix"))
    batches, trained_on = batches_of(family, task)
    if method == "lora-new-tokens":
        make, batches = grow(make), {name: with_new(b) for name, b in batches.items()}
    if prompting:
        # peft counts positions through the padding between prompt and text, so a row there depends on its padding.
        batches.pop("left", None)
    first = {}
    for n in range(SEEDS.get((family, method), 100), 140):
        tiny.seed(n)
        model = make()
        model.name_or_path = base_name
        model = get_peft_model(model, cfg).eval()
        for name, p in model.named_parameters():
            if "original_module" in name:  # trained for bias="all", but not in use
                p.requires_grad_(False)
        conversion = {}
        if method == "pissa":
            conversion = dict(path_initial_model_for_weight_conversion=initial(model))
        randomise(model, n)
        if method == "adalora":
            prune(model, batches["full"])
        if task == "seqcls" or family in ("biased", "tied"):  # whose generation ends early
            break
        if family == "gpt2" and prompting:  # which peft gives positions that the model does not have
            break
        # transformers 5 generates with a cache as if there were no prompt before the text, unlike peft's forward pass.
        kw = dict(use_cache=False) if prompting and (family, task) in DECODERS else {}
        try:
            first = llama.decodings(model, ("full",) if prompting else ("full", "left"), extra=batches, **kw)
            break
        except ValueError:
            continue
    else:
        raise SystemExit(f"{family}-{task}-{method}: no seed decodes without near ties")

    d = tiny.folder("peft", f"{family}-{task}-{method}")
    model.save_pretrained(d, **conversion)
    if method == "adalora" or method in UNCONVERTED:  # what it pruned is gone; the base is changed as read
        model = PeftModel.from_pretrained(make(), d, is_trainable=method in UNCONVERTED).eval()
    if (family, task, method) == ("llama", "causal", "lora"):
        binary = tiny.folder("peft", "llama-causal-lora-bin")
        model.save_pretrained(binary, safe_serialization=False)

    rename = file_name(method == "prefix-projection")
    names = {n for n, _ in tiny.trainable(model, rename)}
    if method not in ("prefix-projection", *COMPUTED):
        # For bias="all" the head's biases are saved three times.
        saved = {
            rename(k)
            for k in get_peft_model_state_dict(model)
            if ".original_module." not in k and ".modules_to_save." not in k and not k.endswith(".base_layer.weight")
        }
        if names != saved:
            raise SystemExit(f"{d.name}: trained {sorted(names - saved)}, saved {sorted(saved - names)}")

    def peft_forward(b):
        extra = (
            {}
            if prompting or family in ENCODERS
            else dict(position_ids=llama.positions(b["attention_mask"]), use_cache=False)
        )
        # AdaLoRA's own forward adds a penalty to the loss.
        return (model.base_model.model if method == "adalora" else model)(**b, **extra)

    def observe(forward):
        out = {}
        with torch.no_grad():
            for name, b in batches.items():
                r = forward(b)
                logits = r.logits
                if task == "causal":
                    logits = llama.at_real_tokens(logits[:, -b["input_ids"].shape[1] :], b["attention_mask"])
                out |= tiny.named(name, b) | {f"{name}.logits": logits, f"{name}.loss": r.loss}
        return out

    start = {n: p.detach().clone() for n, p in tiny.trainable(model)}

    def experiment(forward):
        with torch.no_grad():
            for n, p in tiny.trainable(model):
                p.copy_(start[n])
        out = observe(forward)
        if method in COMPUTED:
            return out
        b = batches[trained_on]
        return out | tiny.train(model, b, OPTIMIZER, every_step=False, loss_of=lambda: forward(b).loss, rename=rename)

    out = {}
    if method == "prefix-projection":
        out = {f"init.{rename(n)}": p.clone() for n, p in start.items()}
    if method == "prompt" and task == "seqcls":
        tiny.store(d / "compat.safetensors", experiment(peft_forward))
        out |= experiment(lambda b: pooled(model, b, family))
    else:
        out |= experiment(peft_forward)
    tiny.store(d / "golden.safetensors", out | first)


def finish():
    root = tiny.TESTDATA / "peft"
    for card in root.glob("*/README.md"):
        card.unlink()
    for f in root.glob("*/adapter_config.json"):  # sets, saved in an order that differs from run to run
        c = json.loads(f.read_text())
        for k in ("target_modules", "feedforward_modules", "modules_to_save"):
            if isinstance(c.get(k), list):
                c[k].sort()
        f.write_text(json.dumps(c, indent=2, sort_keys=True))
    tiny.finish(root)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        tiny.folder("peft")
    for family, task in FAMILIES | MORE:
        for method, cfg in methods(family, task).items():
            folder = f"{family}-{task}-{method}"
            if len(sys.argv) == 1 or folder in sys.argv[1:]:
                print(folder, flush=True)
                write(family, task, method, cfg)
    finish()
