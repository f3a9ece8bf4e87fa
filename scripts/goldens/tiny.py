"""Shared by the fixture scripts: reproducible tiny models, one way of naming what is stored."""

import json
import os
import pathlib
import random
import shutil
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
warnings.filterwarnings("ignore")

import numpy as np
import torch
from safetensors.torch import save_file

TESTDATA = pathlib.Path(__file__).resolve().parents[2] / "testdata"

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


def seed(n):
    random.seed(n)
    np.random.seed(n)
    torch.manual_seed(n)


def folder(*parts):
    """An empty folder under testdata/."""
    d = TESTDATA.joinpath(*parts)
    shutil.rmtree(d, ignore_errors=True)
    d.mkdir(parents=True)
    return d


@torch.no_grad()
def randomise(module, n, matrix=0.3, only=lambda name: True):
    """Draws every parameter: large enough that attention is far from uniform, no bias zero, no norm the identity.

    The padding row of the embeddings is drawn too: trained checkpoints have one that is not zero.
    """
    g = torch.Generator().manual_seed(n)
    for name, p in module.named_parameters():
        if not only(name):
            continue
        noise = torch.randn(p.shape, generator=g)
        if "norm" in name.lower() and name.endswith("weight"):
            p.copy_(1 + 0.2 * noise)
        elif "embed" in name:
            p.copy_(0.7 * noise)
        elif p.ndim > 1:
            p.copy_(matrix * noise)
        else:
            p.copy_(0.1 * noise)
    return module


def store(path, tensors):
    """A flat safetensors file; scalars keep shape []."""
    flat = {}
    for k, v in tensors.items():
        flat[k] = torch.as_tensor(v).detach().clone().contiguous()
    save_file(flat, str(path), metadata={"format": "pt"})


def named(prefix, tensors):
    return {f"{prefix}.{k}": v for k, v in tensors.items()}


def trainable(model, rename=lambda name: name):
    return [(rename(n), p) for n, p in model.named_parameters() if p.requires_grad]


def train(model, batch, optimizer, steps=3, every_step=True, loss_of=None, rename=lambda name: name):
    """The same batch `steps` times. Names: loss.{n} before step n+1, grad.* of the first step, step{n}.* the weights after n
    steps (after the last one alone without every_step).

    The model is in eval mode, so that no dropout is drawn.
    """
    model.eval()
    loss_of = loss_of or (lambda: model(**batch).loss)
    parameters = trainable(model, rename)
    opt = optimizer([p for _, p in parameters])
    out = {}
    for i in range(steps):
        opt.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        out[f"loss.{i}"] = loss.detach().clone()
        if i == 0:
            out |= {f"grad.{n}": p.grad.clone() for n, p in parameters}
        opt.step()
        if every_step or i == steps - 1:
            out |= {f"step{i + 1}.{n}": p.detach().clone() for n, p in parameters}
    with torch.no_grad():
        out[f"loss.{steps}"] = loss_of()
    return out


def finish(d):
    """Configurations must not carry the folder they were made in; safetensors makes files only their owner can read."""
    for f in pathlib.Path(d).rglob("*.safetensors"):
        f.chmod(0o644)
    for f in pathlib.Path(d).rglob("*.json"):
        text = f.read_text()
        c = json.loads(text)
        if "_name_or_path" in c:
            c.pop("_name_or_path")
            f.write_text(json.dumps(c, indent=2, sort_keys=True) + "\n")
        if str(TESTDATA.parent) in text:
            raise SystemExit(f"{f} names a folder of this machine")
