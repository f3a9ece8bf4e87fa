"""xgboost_library.py fetches XGBoost's library into GOPEFT_HOME and prints its path.

The wheel's folders are kept: the library finds its OpenMP runtime by a path from its own.
"""

import os
import re
from pathlib import Path

import wheels


def library(name):
    openmp = re.fullmatch(r"xgboost_cpu\.libs/[^/]+\.so[.\d]*", name)
    return name if openmp or name == "xgboost/lib/libxgboost.so" else None


def main():
    (pin,) = wheels.read_lock(wheels.HERE / "xgboost.lock")
    folder = wheels.install(Path(os.environ["GOPEFT_HOME"]), "xgboost", pin, library)
    print(folder / "xgboost" / "lib" / "libxgboost.so")


if __name__ == "__main__":
    wheels.run(main)
