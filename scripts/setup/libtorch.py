"""libtorch.py DIR PART... installs libtorch into DIR: part "base" is what the build and a CPU need, "cuda" adds GPUs.

base appears in one rename and is either whole or not there. cuda adds files to a finished base; its mark is
written last, and the library that would use the others comes after them, so a run cut short changes nothing for a
program and the next run completes it. Verified wheels stay in GOPEFT_HOME/wheels until the end, so that
running again fetches only what is missing.
"""

import os
import platform
import re
import shutil
import sys
from pathlib import Path

import wheels
from wheels import Failure, say

# Room for the wheels, pip's copy of the largest, and the unpacked files at once.
BASE_SPACE, CUDA_SPACE = 1_300_000_000, 7_500_000_000
CUDA_LIBRARY = re.compile(r"torch/lib/libtorch_cuda\w*\.so$")
BASE_NVIDIA = {"nvidia/cu13/lib/libcudart.so.13", "nvidia/cu13/lib/libcupti.so.13"}


def base_file(name):
    """What building and running on a CPU needs: the libraries without CUDA's and Python's, headers, the version."""
    library = re.fullmatch(r"torch/lib/[^/]+\.so(\.\d+)*", name)
    if library and not CUDA_LIBRARY.match(name) and "libtorch_python" not in name:
        return name
    return name if name.startswith("torch/include/") or name == "torch/version.py" or name in BASE_NVIDIA else None


def cuda_file(name):
    """What a GPU needs beyond base_file, in the folders where libtorch's rpath looks."""
    if CUDA_LIBRARY.match(name):
        return name
    return name if re.fullmatch(r"nvidia/\w+/lib/[^/]+\.so(\.\d+)*", name) and name not in BASE_NVIDIA else None


def install_base(target, lock, store, cuda):
    with wheels.staging(target.parent, target.name) as tmp:
        new = tmp / "new"
        for pin in wheels.read_lock(lock):
            wheels.unpack(wheels.fetch(pin, store), new, base_file)
        shutil.copyfile(lock, new / ".installed")
        if cuda:  # wanted still, should this be cut short before it is there again
            (new / ".installed-cuda").touch()
        os.sync()  # a rename must not outlive, in a power cut, the files it promises
        if target.exists():  # of another state of the lock file, or made by hand; it goes with tmp
            os.rename(target, tmp / "old")
        os.rename(new, target)


def install_cuda(target, locks, store):
    with wheels.staging(target.parent, target.name) as tmp:
        for pin in [pin for lock in locks for pin in wheels.read_lock(lock)]:
            wheels.unpack(wheels.fetch(pin, store), tmp, cuda_file)
        shutil.copyfile(locks[-1], tmp / ".installed-cuda")
        os.sync()
        names = [str(path.relative_to(tmp)) for path in tmp.rglob("*") if path.is_file()]
        for name in sorted(names, key=lambda n: (n == ".installed-cuda", bool(CUDA_LIBRARY.match(n)), n)):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            os.rename(tmp / name, target / name)


def main():
    target, parts = Path(sys.argv[1]), sys.argv[2:]
    home, store = target.parent, target.parent / "wheels"
    base_lock, cuda_lock = wheels.HERE / "wheels.lock", wheels.HERE / "wheels-cuda.lock"
    if platform.machine() not in ("x86_64", "aarch64"):
        raise Failure(f"there is no libtorch wheel for {platform.machine()}: set LIBTORCH=/path to one of your own")
    with wheels.locked(home):
        cuda = "cuda" in parts or (target / ".installed-cuda").exists()
        wheels.need_space(home, store, CUDA_SPACE if cuda else BASE_SPACE, "libtorch" + (" with CUDA" if cuda else ""))
        # Another set-up may have done the work while this one waited for the lock.
        if not installed(target, ".installed", base_lock, "libtorch_cpu.so"):
            install_base(target, base_lock, store, cuda)
            say(f"libtorch is in {target}")
        if cuda and not installed(target, ".installed-cuda", cuda_lock, "libtorch_cuda.so"):
            install_cuda(target, [base_lock, cuda_lock], store)
            say(f"CUDA's libraries are in {target}")
        shutil.rmtree(store, ignore_errors=True)


def installed(target, mark, lock, library):
    """Was the part of mark installed from this state of the lock file, and is its library there still?"""
    mark = target / mark
    return mark.exists() and mark.read_bytes() == lock.read_bytes() and (target / "torch" / "lib" / library).exists()


if __name__ == "__main__":
    wheels.run(main)
