"""nvrtc.py fetches NVIDIA's run-time compiler alone into GOPEFT_HOME and prints the folder of its libraries.

It is the one of wheels-cuda.lock, which the kernels' tests compile with; libtorch's CUDA set has it too.
"""

import os
from pathlib import Path

import wheels


def library(name):
    return Path(name).name if name.startswith("nvidia/cu13/lib/") and ".alt." not in name else None


def main():
    pin = next(p for p in wheels.read_lock(wheels.HERE / "wheels-cuda.lock") if p.name == "nvidia-cuda-nvrtc")
    print(wheels.install(Path(os.environ["GOPEFT_HOME"]), "nvrtc", pin, library))


if __name__ == "__main__":
    wheels.run(main)
