"""Tests of the shell scripts: what each says when something is missing, and the settings that env.sh chooses."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

SETUP = Path(__file__).resolve().parent
SCRIPTS = SETUP.parent
NEW_ABI = b"_ZN3c105ErrorC1ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
OLD_ABI = b"_ZN3c105ErrorC1ENS_14SourceLocationESs"
VERSION_H = "#define TORCH_VERSION_MAJOR {}\n#define TORCH_VERSION_MINOR {}\n#define TORCH_VERSION_PATCH {}\n"


class Case(unittest.TestCase):
    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.tmp = Path(tmp.name)
        self.home = self.tmp / "home"
        self.env = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("GOPEFT_", "CGO_")) and k not in ("LIBTORCH", "CUDA", "CXX", "CC")
        }
        self.env["GOPEFT_HOME"] = str(self.home)

    def run_script(self, *command, **env):
        env = dict(self.env, **{k: str(v) for k, v in env.items()})
        return subprocess.run(
            [str(c) for c in command], env=env, text=True, capture_output=True, stdin=subprocess.DEVNULL
        )

    def fails(self, pattern, *command, **env):
        """The command fails with exactly one line that matches pattern."""
        done = self.run_script(*command, **env)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertRegex(done.stderr, pattern)
        self.assertEqual(done.stdout, "")

    def own_libtorch(self, version_file, content, abi=NEW_ABI):
        """A folder that looks like a libtorch."""
        folder = self.tmp / "own"
        shutil.rmtree(folder, ignore_errors=True)
        for path, data in {
            "lib/libtorch_cpu.so": b"",
            "lib/libc10.so": b"\x00ELF\x00" + abi + b"\x00",
            "include/torch/csrc/api/include/torch/torch.h": b"",
            version_file: content.encode(),
        }.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        return folder


class TestTools(Case):
    def path_with(self, *names, **scripts):
        """A PATH that holds only some of the system's commands, and the given scripts."""
        folder = self.tmp / "path"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name in ("bash", "dirname", "uname", "sed", "sort", "head", "env", *names):
            (folder / name).symlink_to(shutil.which(name))
        for name, text in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        return folder

    def go(self, version="go1.99.0", cxx="the-cxx"):
        return f'printf "{version}\\n{cxx}\\ncc\\n"'

    def test_all_there(self):
        path = self.path_with("true", go=self.go(cxx="cxx -m64"), cxx="echo 12", cc="")
        self.assertEqual(self.run_script(SETUP / "tools.sh", "build", PATH=path).stderr, "")

    def test_no_go(self):
        self.fails("go is missing: install Go [0-9.]+", SETUP / "tools.sh", "build", PATH=self.path_with())

    def test_old_go(self):
        self.fails("Go 1.19.8 is too old", SETUP / "tools.sh", "build", PATH=self.path_with(go=self.go("go1.19.8")))

    def test_go_that_cannot_fetch_its_toolchain(self):
        self.fails(
            "cannot serve for Go",
            SETUP / "tools.sh",
            "build",
            PATH=self.path_with(go="echo toolchain not available >&2; exit 1"),
        )

    def test_no_compilers(self):
        self.fails(
            "C compiler cc is missing: apt-get install gcc",
            SETUP / "tools.sh",
            "build",
            PATH=self.path_with(go=self.go()),
        )
        path = self.path_with(go=self.go(), cc="")
        self.fails(r"C\+\+ compiler the-cxx is missing: apt-get install g\+\+", SETUP / "tools.sh", "build", PATH=path)

    def test_old_compiler(self):
        path = self.path_with(go=self.go(cxx="cxx"), cc="", cxx="echo 8")
        self.fails(r"cxx 8 is too old for libtorch", SETUP / "tools.sh", "build", PATH=path)

    def test_a_compiler_behind_a_launcher(self):
        path = self.path_with(go=self.go(cxx="ccache cxx"), cc="", ccache='exec "$@"', cxx="echo 8")
        self.fails(r"ccache cxx 8 is too old for libtorch", SETUP / "tools.sh", "build", PATH=path)

    def test_no_python(self):
        self.fails("python3 is missing", SETUP / "tools.sh", "fetch", PATH=self.path_with())

    def test_old_python(self):
        path = self.path_with(python3='[ "$1" = --version ] && echo Python 3.6.15; exit 1')
        self.fails("Python 3.6.15 is too old", SETUP / "tools.sh", "fetch", PATH=path)

    def test_no_pip(self):
        path = self.path_with(python3="case $2 in *pip*) exit 1;; esac")
        self.fails("pip is missing for .*: apt-get install python3-pip", SETUP / "tools.sh", "fetch", PATH=path)


class TestEnv(Case):
    def settings(self, **env):
        """CGO_CXXFLAGS and CGO_LDFLAGS as a shell gets them; the same must reach a command run by env.sh."""
        show = ["sh", "-c", 'printf "%s\\n%s\\n" "$CGO_CXXFLAGS" "$CGO_LDFLAGS"']
        wrapped = self.run_script(SCRIPTS / "env.sh", *show, **env)
        self.assertEqual(wrapped.stderr, "")
        evaluated = self.run_script("bash", "-c", f'eval "$({SCRIPTS}/env.sh)" && {show[2]}', **env)
        self.assertEqual(evaluated.stdout, wrapped.stdout)
        return wrapped.stdout.splitlines()

    def compat(self):
        self.assertEqual(self.run_script(SETUP / "compat.sh", self.home / "compat").stderr, "")

    def test_versions_are_read_from_each_kind_of_folder(self):
        self.compat()
        for file, content in {
            "version.py": "__version__ = '2.11.0+cu130'\n",
            "build-version": "2.11.0+cpu\n",
            "include/torch/headeronly/version.h": VERSION_H.format(2, 11, 0),
            "include/torch/csrc/api/include/torch/version.h": VERSION_H.format(2, 11, 0),
        }.items():
            with self.subTest(file):
                own = self.own_libtorch(file, content)
                cxx, ld = self.settings(LIBTORCH=own)
                self.assertRegex(
                    cxx,
                    f"^-include {self.home}/compat/gotch-compat-v[0-9]+.h -I{own}/include -I{own}/include/torch/csrc/api/include$",
                )
                self.assertEqual(
                    ld, f"-L{self.home}/compat/stubs -L{own}/lib -Wl,-rpath,{own}/lib -Wl,--allow-shlib-undefined"
                )

    def test_libtorch_2_1_has_its_own_abi_and_no_header(self):
        self.compat()
        own = self.own_libtorch("build-version", "2.1.2+cpu\n", OLD_ABI)
        self.assertEqual(
            self.settings(LIBTORCH=own)[0],
            f"-I{own}/include -I{own}/include/torch/csrc/api/include -D_GLIBCXX_USE_CXX11_ABI=0",
        )
        own = self.own_libtorch("build-version", "2.1.2+cpu\n", NEW_ABI)
        self.assertNotIn("ABI", self.settings(LIBTORCH=own)[0])

    def test_newer_versions_have_their_own_header_and_standard(self):
        self.compat()
        for version, header, standard in (
            ("2.11.1", "v1", "17"),
            ("2.12.0", "v1", "17"),
            ("2.13.0", "213-v1", "17"),
            ("2.14.1", "213-v1", "20"),
            ("2.15.0", "213-v1", "20"),
        ):
            with self.subTest(version):
                own = self.own_libtorch("build-version", f"{version}\n")
                self.assertTrue(
                    self.settings(LIBTORCH=own)[0].startswith(f"-include {self.home}/compat/gotch-compat-{header}.h ")
                )
                # Twice, as where a script that is run under env.sh runs it again.
                show = [SCRIPTS / "env.sh", "sh", "-c", "${CXX:-g++} -std=c++17 -x c++ -dM -E - </dev/null"]
                done = self.run_script(SCRIPTS / "env.sh", *show, LIBTORCH=own)
                self.assertRegex(done.stdout, {"17": "__cplusplus 201703L", "20": "__cplusplus 20[2-9]"}[standard])

    def test_other_versions_need_force(self):
        self.compat()
        for version in ("2.10.0", "2.16.0", "1.13.1", "2.0.1"):
            with self.subTest(version):
                own = self.own_libtorch("build-version", f"{version}\n")
                self.fails(
                    rf"is libtorch {version}; it may be .*GOPEFT_FORCE_LIBTORCH=1", SCRIPTS / "env.sh", LIBTORCH=own
                )
                self.assertIn("-include", self.settings(LIBTORCH=own, GOPEFT_FORCE_LIBTORCH=1)[0])

    def test_an_unknown_version(self):
        self.fails(
            "libtorch of unknown version", SCRIPTS / "env.sh", LIBTORCH=self.own_libtorch("version.py", "nothing")
        )

    def test_an_unknown_abi(self):
        self.fails(
            "cannot tell the C.. ABI", SCRIPTS / "env.sh", LIBTORCH=self.own_libtorch("build-version", "2.11.0", b"")
        )

    def test_folders_that_are_no_libtorch(self):
        self.fails("no such folder", SCRIPTS / "env.sh", LIBTORCH=self.tmp / "nowhere")
        self.fails("no lib/libtorch_cpu.so in it", SCRIPTS / "env.sh", LIBTORCH=self.tmp)

    def test_paths_that_compiler_flags_cannot_hold(self):
        for name in ("with blank", "with,comma", "with'quote"):
            with self.subTest(name):
                (self.tmp / name).mkdir()
                self.fails("must not hold", SCRIPTS / "env.sh", LIBTORCH=self.tmp / name)
                self.fails("must not hold", SCRIPTS / "env.sh", GOPEFT_HOME=self.tmp / name)

    def test_before_the_set_up(self):
        self.fails("run 'make setup'", SCRIPTS / "env.sh")
        self.fails("run 'make setup'", SCRIPTS / "env.sh", LIBTORCH=self.own_libtorch("build-version", "2.11.0"))

    def test_no_home_at_all(self):
        self.env = {"PATH": self.env["PATH"]}
        self.fails("neither HOME nor GOPEFT_HOME", SCRIPTS / "env.sh")


class TestSetup(Case):
    def test_own_libtorch_fetches_nothing(self):
        own = self.own_libtorch("build-version", "2.11.0")
        done = self.run_script(SCRIPTS / "setup.sh", LIBTORCH=own)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertEqual([p.name for p in self.home.iterdir()], ["compat"])

    def test_own_libtorch_of_another_version(self):
        self.fails("is libtorch 2.9.0", SCRIPTS / "setup.sh", LIBTORCH=self.own_libtorch("build-version", "2.9.0"))

    def test_compat_replaces_what_differs_and_only_that(self):
        folder = self.home / "compat"
        self.run_script(SETUP / "compat.sh", folder)
        header = next(folder.glob("*.h"))
        before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
        header.write_text("changed")
        self.run_script(SETUP / "compat.sh", folder)
        self.assertEqual(header.read_bytes(), (SETUP / header.name).read_bytes())
        self.assertEqual({p for p, t in before.items() if p.stat().st_mtime_ns != t}, {header})
        self.assertEqual({p.read_bytes() for p in folder.glob("stubs/*.a")}, {b"!<arch>\n"})


if __name__ == "__main__":
    unittest.main()
