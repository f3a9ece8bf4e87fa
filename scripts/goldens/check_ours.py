#!/usr/bin/env python3
"""Loads what gopeft wrote with the real libraries (transformers, peft, adapters) and compares what they compute.

    check_ours.py [FOLDER]

Without a folder it has the Go tests TestExportForPython and TestExportAgainForPython write one. Run it under the cgo settings (scripts/env.sh) in the
environment that scripts/goldens.sh makes. Differences are relative to the largest logit where that is above 1.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import adapters
import llama
import peft_files
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

FAMILIES = {
    "distilbert-seqcls": ("distilbert", "seqcls"),
    "bert-seqcls": ("bert", "seqcls"),
    "roberta-seqcls": ("roberta", "seqcls"),
    "llama-seqcls": ("llama", "seqcls"),
    "llama-causal": ("llama", "causal"),
    "gqa-causal": ("gqa", "causal"),
    "biased-causal": ("biased", "causal"),
    "tied-causal": ("tied", "causal"),
    "qwen3-causal": ("qwen3", "causal"),
    "gpt2-causal": ("gpt2", "causal"),
    "gpt2-seqcls": ("gpt2", "seqcls"),
    "phi3-causal": ("phi3", "causal"),
}


def load(folder, family, task, dtype):
    """The model with the adapter, as its own library loads it."""
    make, _ = (peft_files.FAMILIES | peft_files.MORE)[family, task]
    base = make().to(dtype).eval()
    config = folder / "adapter_config.json"
    if not config.exists():
        cls = AutoModelForSequenceClassification if task == "seqcls" else AutoModelForCausalLM
        model, info = cls.from_pretrained(folder, output_loading_info=True)
        if info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"]:
            raise SystemExit(f"{folder}: {info}")
        return model.eval()
    settings = json.loads(config.read_text())
    if "peft_type" in settings:
        tokens = max((max(ids) for ids in (settings.get("trainable_token_indices") or {}).values()), default=0)
        if tokens >= base.config.vocab_size:
            base.resize_token_embeddings(tokens + 1, mean_resizing=False)
        return PeftModel.from_pretrained(base, str(folder)).eval()
    adapters.init(base)
    info = {}
    name = base.load_adapter(str(folder), loading_info=info)
    wrong = {
        k: v
        for k, v in info.items()
        if "error" in k or "unexpected" in k or ("missing" in k and v and any(name in x for x in v))
    }
    if any(wrong.values()):
        raise SystemExit(f"{folder}: {wrong}")
    base.set_active_adapters(name)
    return base.to(dtype).eval()


def logits(model, batch, family, task, prompting):
    if prompting == "prompt" and task == "seqcls":
        return pooled(model, batch, family)
    extra = {}
    if family not in peft_files.ENCODERS and not prompting:
        extra = dict(position_ids=llama.positions(batch["attention_mask"]), use_cache=False)
    out = model(**batch, **extra).logits
    if task == "causal":
        out = llama.at_real_tokens(out[:, -batch["input_ids"].shape[1] :], batch["attention_mask"])
    return out


def pooled(model, batch, family):
    """The head behind a soft prompt reading the token it reads without one."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    prompt = model.get_prompt(len(ids))
    k = prompt.shape[1]
    x = torch.cat([prompt, model.word_embeddings(ids)], 1)
    m = torch.cat([torch.ones(len(ids), k, dtype=mask.dtype), mask], 1)
    base = model.base_model
    if family in peft_files.ENCODERS:
        return peft_files.behind_prompt(base, family, x, m, k)
    decoder = base.transformer if family == "gpt2" else base.model
    h = decoder(inputs_embeds=x, attention_mask=m, use_cache=False).last_hidden_state
    return base.score(h[torch.arange(len(ids)), k + mask.sum(1) - 1])


def difference(a, b):
    return ((a - b).abs().max() / max(1.0, b.abs().max().item())).item()


def greedy(model, ids, n):
    """n new tokens per row; without a cache under the adapters library, whose adapters see it wrongly.
    A prefix of that library computes something else in generate() than in forward(), which is what it was trained with."""
    cache = isinstance(model, PeftModel) or not getattr(model, "active_adapters", None)
    if not cache:
        for _ in range(n):
            step = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, -1:].argmax(-1)
            ids = torch.cat([ids, step], 1)
        return ids[:, -n:]
    return model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=False, pad_token_id=0
    )[:, -n:]


@torch.no_grad()
def check(folder, family, task):
    """The largest differences in fp32, under bf16 autocast, and with the base in bf16; then whether tokens agree."""
    prompting = next((p for p in ("prompt", "prefix") if folder.name.startswith(p)), None)
    worst = {}
    for name, dtype in (("ours", torch.float32), ("bf16", torch.bfloat16)):
        path = folder / f"{name}.safetensors"
        if not path.exists():
            continue
        ours = load_file(path)
        model = load(folder, family, task, dtype)
        for b in {k.split(".")[0] for k in ours}:
            batch = {k: ours[f"{b}.{k}"] for k in ("input_ids", "attention_mask")}
            if prompting and b == "left":
                continue
            try:
                got = logits(model, batch, family, task, prompting).float()
                worst[name] = max(worst.get(name, 0), difference(ours[f"{b}.logits"], got))
            except RuntimeError as e:
                if name == "ours":
                    raise
                worst[name] = f"their own error: {str(e).splitlines()[0][:60]}"
                continue
            if name == "ours":
                with torch.autocast("cpu", torch.bfloat16):
                    got = logits(model, batch, family, task, prompting).float()
                worst["autocast"] = max(worst.get("autocast", 0), difference(ours[f"{b}.autocast"], got))
        if name == "ours" and "full.new_ids" in ours:
            model.generation_config.eos_token_id = None  # all tokens count
            worst["tokens"] = torch.equal(greedy(model, ours["full.input_ids"], 24), ours["full.new_ids"])
    return worst


def main():
    with tempfile.TemporaryDirectory() as tmp:
        top = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else tmp)
        if len(sys.argv) < 2:
            root = pathlib.Path(__file__).resolve().parents[2]
            subprocess.run(
                ["go", "test", "-count=1", "-run", "TestExport.*ForPython", "./peft"],
                cwd=root,
                check=True,
                env=os.environ | {"GOPEFT_EXPORT": tmp},
            )
        failed = 0
        for family, (f, task) in FAMILIES.items():
            for folder in sorted((top / family).iterdir() if (top / family).is_dir() else ()):
                r = check(folder, f, task)
                bad = r["ours"] > 1e-5 or not r.get("tokens", True)
                failed += bad
                print(
                    f"{'FAILED' if bad else 'ok':7}{family}/{folder.name:20}",
                    "  ".join(f"{k} {v:.1e}" if isinstance(v, float) else f"{k} {v}" for k, v in r.items()),
                    flush=True,
                )
        sys.exit(f"{failed} failed" if failed else 0)


if __name__ == "__main__":
    main()
