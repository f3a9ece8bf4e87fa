"""nvrtc.py fetches NVIDIA's run-time compiler alone into GOPEFT_HOME and prints the folder of its libraries.

It is the one of wheels-cuda.lock, which the kernels' tests compile with; libtorch's CUDA set has it too.
"""

import os
import shutil
from pathlib import Path

import wheels


def library(name):
    return Path(name).name if name.startswith("nvidia/cu13/lib/") and ".alt." not in name else None


def main():
    pin = next(p for p in wheels.read_lock(wheels.HERE / "wheels-cuda.lock") if p.name == "nvidia-cuda-nvrtc")
    home = Path(os.environ["GOPEFT_HOME"])
    target, store = home / f"nvrtc-{pin.version}", home / "wheels-nvrtc"
    if not target.exists():
        with wheels.locked(home):
            if not target.exists():  # another set-up may have done it meanwhile
                with wheels.staging(home, target.name) as tmp:
                    wheels.unpack(wheels.fetch(pin, store), tmp / "new", library)
                    os.sync()
                    os.rename(tmp / "new", target)
            shutil.rmtree(store, ignore_errors=True)
    print(target)


if __name__ == "__main__":
    wheels.run(main)
