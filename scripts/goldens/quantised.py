"""Writes testdata/quantised: matrices, what bitsandbytes on the CPU rounds them to
and makes of that again, and GGUF blocks with the reference implementation's values.

    pip install bitsandbytes==0.49.2 gguf==0.19.0
    python scripts/goldens/quantised.py
"""

import pathlib

import bitsandbytes.functional as F
import numpy as np
import torch
from bitsandbytes.backends.utils import CODE
from gguf import GGML_QUANT_SIZES
from gguf.quants import dequantize
from gguf_blocks import HALVES
from safetensors.torch import save_file

FOLDER = pathlib.Path(__file__).parents[2] / "testdata" / "quantised"


def ties(kind):
    """Blocks that hold the middle between every two neighbouring codes, and its
    neighbours in fp32, at two scales; the last block is zero."""
    values = np.unique(CODE[kind].cpu().numpy())
    middles = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    block = np.zeros(64, np.float32)
    near = np.concatenate([middles, np.nextafter(middles, np.float32(2)), np.nextafter(middles, np.float32(-2))])
    block[: len(near)] = near
    block[-1] = 1
    return torch.from_numpy(np.stack([block, -block, block * np.float32(0.037), block * 0]))


def matrix(rows, columns):
    w = torch.randn(rows, columns) * 0.03
    w[1, 5] = 0.7
    w[2, :64] = 0
    return w


def store(out, name, w, kind, double):
    codes, state = F.quantize_4bit(w, blocksize=64, compress_statistics=double, quant_type=kind)
    out[f"{name}.w"] = w
    out[f"{name}.codes"] = codes.reshape(-1)
    out[f"{name}.scales"] = state.absmax
    if double:
        out[f"{name}.nested_scales"] = state.state2.absmax
        out[f"{name}.nested_map"] = state.state2.code.clone()
        out[f"{name}.offset"] = state.offset.reshape(1)
    state.dtype = torch.float32
    out[f"{name}.values"] = F.dequantize_4bit(codes, state)


def main():
    torch.manual_seed(11)
    torch.set_num_threads(1)
    out = {}
    for kind in ("nf4", "fp4"):
        store(out, f"{kind}.ties", ties(kind), kind, False)
        store(out, f"{kind}.fp16", matrix(6, 128).half(), kind, False)
        store(out, f"{kind}.zero", torch.zeros(2, 64), kind, True)
        store(out, f"{kind}.double", matrix(65 if kind == "nf4" else 9, 256).bfloat16(), kind, True)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        name = "int8." + {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype]
        w = matrix(6, 95).to(dtype)
        w[3] = 0
        codes, scales, _ = torch.ops.bitsandbytes.int8_vectorwise_quant.default(w)
        out[f"{name}.w"], out[f"{name}.codes"], out[f"{name}.scales"] = w, codes, scales
        out[f"{name}.values"] = F.int8_vectorwise_dequant(codes, scales)
    rng = np.random.default_rng(7)
    for kind, offsets in HALVES.items():
        elements, size = GGML_QUANT_SIZES[kind]
        data = rng.integers(0, 256, (3, 512 // elements, size), dtype=np.uint8)
        for offset in offsets:
            scales = (rng.standard_normal(data.shape[:2]) / 16).astype(np.float16)
            data[:, :, offset : offset + 2] = scales.view(np.uint8).reshape(3, -1, 2)
        data = data.reshape(3, -1)
        out[f"gguf.{kind.name}.codes"] = torch.from_numpy(data)
        out[f"gguf.{kind.name}.values"] = torch.from_numpy(dequantize(data, kind))
    FOLDER.mkdir(parents=True, exist_ok=True)
    save_file(out, FOLDER / "quantised.safetensors")


if __name__ == "__main__":
    main()
