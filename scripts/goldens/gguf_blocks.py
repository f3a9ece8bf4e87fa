"""Writes a small GGUF file with random blocks of every quantised type and
metadata of every value type, and beside it what the reference implementation
dequantises from the blocks, for model/hf/files.

    pip install gguf==0.19.0 numpy==2.4.6 safetensors==0.8.0
    python scripts/goldens/gguf_blocks.py model/hf/files/testdata
"""

import pathlib
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize
from safetensors.numpy import save_file

# Byte offsets of the halves of each block; any other byte may hold anything.
HALVES = {
    T.Q4_0: [0],
    T.Q4_1: [0, 2],
    T.Q5_0: [0],
    T.Q5_1: [0, 2],
    T.Q8_0: [0],
    T.Q4_K: [0, 2],
    T.Q5_K: [0, 2],
    T.Q6_K: [208],
}
ROWS, COLUMNS = 3, 512


def blocks(rng, kind):
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (ROWS, COLUMNS // elements, size), dtype=np.uint8)
    for offset in HALVES[kind]:
        scales = (rng.standard_normal((ROWS, COLUMNS // elements)) / 16).astype(np.float16)
        scales[0, 0] = 6e-8  # a subnormal half
        data[:, :, offset : offset + 2] = scales.view(np.uint8).reshape(ROWS, -1, 2)
    return data.reshape(ROWS, -1)


def main(folder):
    rng = np.random.default_rng(7)
    folder = pathlib.Path(folder)
    writer = gguf.GGUFWriter(folder / "blocks.gguf", "llama")
    writer.add_uint8("t.u8", 200)
    writer.add_int8("t.i8", -5)
    writer.add_uint16("t.u16", 60000)
    writer.add_int16("t.i16", -30000)
    writer.add_uint32("t.u32", 4000000000)
    writer.add_int32("t.i32", -2000000000)
    writer.add_float32("t.f32", 0.5)
    writer.add_float64("t.f64", 0.1)
    writer.add_bool("t.bool", True)
    writer.add_string("t.string", "héllo")
    writer.add_uint64("t.u64", 2**63)
    writer.add_int64("t.i64", -(2**62))
    writer.add_array("t.strings", ["a", "", "▁b"])
    writer.add_array("t.ints", [1, -2, 3])
    writer.add_array("t.floats", [0.5, -1.5])
    writer.add_array("t.bools", [True, False])
    expected = {}
    for kind in HALVES:
        data = blocks(rng, kind)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
        expected[kind.name] = dequantize(data, kind)
    wide = rng.standard_normal((ROWS, 5)).astype(np.float32)
    writer.add_tensor("F32", wide)
    expected["F32"] = wide
    writer.add_tensor("F16", wide.astype(np.float16))
    expected["F16"] = wide.astype(np.float16).astype(np.float32)
    brain = (wide.view(np.uint32) >> 16).astype(np.uint16)
    writer.add_tensor("BF16", brain.view(np.uint8), raw_dtype=T.BF16)
    expected["BF16"] = (brain.astype(np.uint32) << 16).view(np.float32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(expected, folder / "blocks.safetensors")


if __name__ == "__main__":
    main(sys.argv[1])
