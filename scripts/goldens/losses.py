#!/usr/bin/env python3
"""Losses as torch, transformers and scikit-learn compute them, on the tiny models of distilbert.py and llama.py.

Writes testdata/losses.safetensors (see testdata/README.md for the names), of NEFTune train/neftune/testdata/noise.safetensors, and
of scores train/metrics/testdata/targets.json.
"""

import json
import types

import numpy as np
import tiny
import torch
from safetensors.torch import load_file, save_file
from scipy import stats
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.integrations.neftune import neftune_post_forward_hook
from transformers.trainer_pt_utils import LabelSmoother

ROOT = tiny.TESTDATA.parent
SMOOTHING = 0.1
out = {}


def put(name, value):
    out[name] = torch.as_tensor(value).detach().clone().contiguous()


def classification():
    """cross_entropy with and without weights and smoothing, and its gradient of the logits."""
    g = torch.Generator().manual_seed(1)
    logits, labels = 2 * torch.randn(7, 4, generator=g), torch.tensor([0, 3, 1, 1, 2, 0, 3])
    weights = torch.tensor([0.25, 1.0, 3.5, 1.75])
    put("classify.logits", logits)
    put("classify.labels", labels)
    put("classify.weights", weights)
    for name, settings in {
        "smooth": dict(label_smoothing=SMOOTHING),
        "weighted": dict(weight=weights),
        "both": dict(weight=weights, label_smoothing=SMOOTHING),
    }.items():
        x = logits.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(x, labels, **settings)
        loss.backward()
        put(f"classify.{name}.loss", loss)
        put(f"classify.{name}.grad", x.grad)
    labels = np.array([2, 0, 1, 1, 1, 2, 1, 0, 1, 1, 1])
    put("balanced.labels", labels)
    put("balanced.weights", compute_class_weight("balanced", classes=np.arange(3), y=labels))


def keep_gradients(prefix, model, names):
    found = dict(model.named_parameters())
    for name in names:
        put(f"{prefix}.grad.{name}", found[name].grad)


def causal():
    """What Trainer gets with --label_smoothing_factor, on the batches of llama/gqa."""
    folder = tiny.TESTDATA / "llama" / "gqa"
    golden = load_file(folder / "golden.safetensors")
    for batch in ("full", "right"):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        ids, mask, labels = (golden[f"{batch}.{k}"] for k in ("input_ids", "attention_mask", "labels"))
        loss = LabelSmoother(SMOOTHING)(model(input_ids=ids, attention_mask=mask), labels.clone(), shift_labels=True)
        loss.backward()
        put(f"causal.{batch}.loss", loss)
        keep_gradients(
            f"causal.{batch}",
            model,
            ["lm_head.weight", "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"],
        )


def several_targets():
    """Regression and multi-label classification by problem_type, on the batch padded (or right)."""
    g = torch.Generator().manual_seed(2)
    numbers, classes = torch.randn(3, 3, generator=g), torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 1]])
    put("regression.targets", numbers)
    put("multilabel.targets", classes)
    for family, folder, batch, names in (
        (
            "distilbert",
            "distilbert/tiny",
            "padded",
            ["classifier.weight", "distilbert.transformer.layer.0.attention.q_lin.weight"],
        ),
        ("llama", "llama/seqcls", "right", ["score.weight", "model.layers.0.self_attn.q_proj.weight"]),
    ):
        golden = load_file(tiny.TESTDATA / folder / "golden.safetensors")
        ids, mask = golden[f"{batch}.input_ids"], golden[f"{batch}.attention_mask"]
        for kind, problem, targets in (
            ("regression", "regression", numbers),
            ("multilabel", "multi_label_classification", classes),
        ):
            model = AutoModelForSequenceClassification.from_pretrained(
                tiny.TESTDATA / folder, dtype=torch.float32, problem_type=problem
            ).eval()
            got = model(input_ids=ids, attention_mask=mask, labels=targets)
            got.loss.backward()
            put(f"{kind}.{family}.loss", got.loss)
            put(f"{kind}.{family}.logits", got.logits)
            keep_gradients(f"{kind}.{family}", model, names)


def scores():
    """What scikit-learn and scipy say of made-up predictions."""
    g = np.random.default_rng(3)
    want, got = g.normal(size=(20, 2)), g.normal(size=(20, 2))
    got = 0.6 * want + 0.5 * got
    got[3, 0] = got[4, 0]  # ranks that tie
    want[7, 1] = want[8, 1] = want[9, 1]
    want, got = want.astype(np.float32), got.astype(np.float32)
    numbers = dict(
        want=want.tolist(),
        got=got.tolist(),
        scores=dict(
            mse=metrics.mean_squared_error(want, got),
            mae=metrics.mean_absolute_error(want, got),
            pearson=np.mean([stats.pearsonr(want[:, k], got[:, k])[0] for k in range(2)]),
            spearman=np.mean([stats.spearmanr(want[:, k], got[:, k])[0] for k in range(2)]),
            r2=metrics.r2_score(want, got),
        ),
    )
    labels, chosen = g.random((30, 4)) < 0.35, g.random((30, 4)) < 0.4
    labels[:, 3] = False
    chosen[:, 3] = False  # a label that is nowhere
    several = dict(
        want=labels.tolist(),
        got=chosen.tolist(),
        scores=dict(
            micro_f1=metrics.f1_score(labels, chosen, average="micro", zero_division=0),
            macro_f1=metrics.f1_score(labels, chosen, average="macro", zero_division=0),
            subset_accuracy=metrics.accuracy_score(labels, chosen),
        ),
    )
    path = ROOT / "train" / "metrics" / "testdata" / "targets.json"
    path.write_text(json.dumps(dict(regression=numbers, multilabel=several), default=float) + "\n")


def noise():
    """transformers' hook, on embeddings of two rows of five tokens."""
    torch.manual_seed(4)
    x = torch.randn(2, 5, 8)
    module = types.SimpleNamespace(training=True, neftune_noise_alpha=5.0)
    torch.manual_seed(5)
    path = ROOT / "train" / "neftune" / "testdata" / "noise.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"in": x, "out": neftune_post_forward_hook(module, None, x).contiguous()}, path)


classification()
causal()
several_targets()
scores()
noise()
save_file(out, tiny.TESTDATA / "losses.safetensors")
