"""Writes small files with torch.save, in the zip format and the older one, and
beside them the same tensors as safetensors, for model/hf/files.

    pip install torch==2.11.0 safetensors==0.8.0 numpy
    python scripts/goldens/torch_files.py model/hf/files/testdata
"""

import collections
import pathlib
import sys

import torch
from safetensors.torch import save_file


def state():
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(4, 6, generator=generator)
    tensors = collections.OrderedDict()
    tensors["linear.weight"] = base
    tensors["tied.weight"] = base  # the same storage again
    tensors["rows"] = base[1:3]  # a contiguous part of it
    tensors["column"] = base[:, 2]
    tensors["transposed"] = base.t()
    tensors["permuted"] = torch.randn(2, 3, 4, generator=generator).permute(2, 0, 1)
    tensors["expanded"] = torch.tensor([[1.5], [2.5]]).expand(2, 3)
    tensors["positions"] = torch.arange(5).expand((1, -1))
    tensors["scalar"] = torch.tensor(0.25)
    tensors["empty"] = torch.zeros(0, 3)
    tensors["parameter"] = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
    tensors["double"] = torch.tensor([0.1, 0.2], dtype=torch.float64)
    tensors["half"] = torch.tensor([1.0, 65504.0, 6e-8], dtype=torch.float16)
    tensors["brain"] = torch.tensor([1.0, 3e38], dtype=torch.bfloat16)
    tensors["int"] = torch.tensor([-1, 2], dtype=torch.int32)
    tensors["short"] = torch.tensor([-1, 2], dtype=torch.int16)
    tensors["byte"] = torch.tensor([-1, 2], dtype=torch.int8)
    tensors["ubyte"] = torch.tensor([1, 255], dtype=torch.uint8)
    tensors["mask"] = torch.tensor([True, False])
    return tensors


def main(folder):
    folder = pathlib.Path(folder)
    tensors = state()
    torch.save(tensors, folder / "zip.bin")
    torch.save(tensors, folder / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save(tensors, folder / "protocol4.bin", pickle_protocol=4)
    save_file({name: t.detach().clone().contiguous() for name, t in tensors.items()}, folder / "torch.safetensors")

    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.arange(parameter.numel()).view_as(parameter))
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save(
        {
            "epoch": 3,
            "best": 0.5,
            "name": "run",
            "finished": True,
            "dtype": torch.float32,
            "device": torch.device("cpu"),
            "sizes": torch.Size([2, 3]),
            "config": {"bias": True, "layers": [1, 2]},
            "model": module.state_dict(),
            "optimizer": optimizer.state_dict(),
        },
        folder / "training.pt",
    )


if __name__ == "__main__":
    main(sys.argv[1])
