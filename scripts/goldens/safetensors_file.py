"""Writes a small safetensors file with every scalar type, through the reference
implementation's serializer, for model/hf/files to read and to write again byte
for byte.

    pip install safetensors==0.8.0 numpy==2.4.6
    python scripts/goldens/safetensors_file.py model/hf/files/testdata
"""

import pathlib
import sys

import numpy as np
from safetensors import TensorSpec, serialize


def fixed(dtype, *shape):
    count = int(np.prod(shape))
    return np.arange(count).astype(dtype).reshape(shape)


def spec(array, dtype=None):
    return TensorSpec(
        dtype=dtype or array.dtype.name, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes
    )


def main(folder):
    bf16 = (fixed(np.float32, 2, 3).view(np.uint32) >> 16).astype(np.uint16)
    arrays = {
        "layer.0.weight": fixed(np.float32, 3, 4),
        "layer.0.bias": fixed(np.float32, 3),
        "half": fixed(np.float16, 5),
        "brain": bf16,
        "double": fixed(np.float64, 2, 1, 2),
        "ids": fixed(np.int64, 4),
        "int": fixed(np.int32, 3),
        "short": fixed(np.int16, 3),
        "byte": fixed(np.int8, 7),
        "ubyte": fixed(np.uint8, 2),
        "mask": np.array([True, False, True]),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
        'näme <&> "q"': fixed(np.float32, 1),
    }
    # The specs point into the arrays, which must therefore outlive them.
    tensors = {name: spec(array, "bfloat16" if name == "brain" else None) for name, array in arrays.items()}
    data = serialize(tensors, {"format": "pt"})
    pathlib.Path(folder, "every_type.safetensors").write_bytes(data)


if __name__ == "__main__":
    main(sys.argv[1])
