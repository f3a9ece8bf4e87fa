"""Runs both sides of a row and keeps what they gave."""

import csv
import datetime
import hashlib
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from inputs import DISTILBERT, ROOT, Inputs
from limits import Limits
from report import figures
from watch import TIMEOUT, Watch, brief, note

PROFILED_SECONDS = 8  # of steps, about


class Bench(Limits, Inputs):
    def __init__(self, a):
        self.a = a
        self.peers = pathlib.Path(a.peers).resolve()
        self.venvs = dict(v.split("=", 1) for v in a.venv)
        self.gopeft = str(pathlib.Path(a.gopeft).resolve())
        self.cache = pathlib.Path(a.cache)
        self.scratch = self.cache.parent / (self.cache.stem + ".files")
        self.kept = json.loads(self.cache.read_text()) if self.cache.exists() else {}
        self.binary = hashlib.sha256(pathlib.Path(self.gopeft).read_bytes()).hexdigest()[:16]

    def save(self):
        self.cache.parent.mkdir(parents=True, exist_ok=True)
        part = self.cache.with_suffix(".part")
        part.write_text(json.dumps(self.kept, indent=1))
        part.replace(self.cache)

    # Running the sides.

    def run(self, argv, cwd=None):
        """Runs a program that prints a JSON object; returns it, or {"error": …}, with the share of the machine that others took."""
        watch = Watch()
        r = self.output(argv, cwd)
        r["foreign_cpu_share"] = watch.foreign()
        return r

    @staticmethod
    def output(argv, cwd):
        env = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", PYTHONWARNINGS="ignore")
        try:
            p = subprocess.run(
                [str(x) for x in argv], cwd=cwd, env=env, capture_output=True, text=True, timeout=TIMEOUT
            )
        except subprocess.TimeoutExpired:
            return {"error": f"still running after {TIMEOUT} s"}
        if p.returncode != 0:
            return {"error": (p.stderr.strip().splitlines() or [f"exit {p.returncode}"])[-1][:300]}
        text = p.stdout.strip()
        try:
            return json.loads(text if text.startswith("{\n") else text.splitlines()[-1])
        except (ValueError, IndexError):
            return {"error": "its output is not JSON: " + text[-200:]}

    def ours(self, args):
        return self.run([self.gopeft, "bench", "--json", "--threads", self.a.threads, *args])

    def peer(self, stack, args):
        extra = [] if "sklearn" in args[0] else ["--threads", self.a.threads]
        return self.run([self.python(stack), self.peers / args[0], *args[1:], *extra], cwd=self.peers)

    def python(self, stack):
        return pathlib.Path(self.venvs[stack]) / "bin" / "python"

    def sides(self, row, ours, peer=None):
        """Runs every side of a row in turn, --repeats times."""
        stacks = [s for s in self.venvs if not row.stacks or s in row.stacks]
        return self.turns(
            row, {"": ours, **{s: (lambda s=s: peer(s) if peer else self.peer(s, row.peer)) for s in stacks}}
        )

    def turns(self, row, sides):
        """Runs sides, functions by their names, in turn, whoever begins changing; "" is gopeft's."""
        out = {"ours": [], "peers": {s: [] for s in sides if s}}
        turn = list(sides)
        for i in range(self.repeats(row)):
            for side in turn[i % len(turn) :] + turn[: i % len(turn)]:
                r = sides[side]()
                (out["ours"] if side == "" else out["peers"][side]).append(r)
                note("  %-8s %s" % (side or "gopeft", r.get("error") or brief(r)))
        return out

    def repeats(self, row):
        return max(3, self.a.repeats) if row.short and not self.a.quick else self.a.repeats

    # The kinds of rows.

    def step(self, row):
        return self.sides(row, lambda: self.ours(row.ours))

    decode = tokens = first_step = step

    def alone(self, row):
        """gopeft by itself, on what its peers have no room for."""
        return self.turns(row, {"": lambda: self.ours(row.ours)})

    def gguf(self, row):
        """Decoding a GGUF file, on the row's own number of threads."""
        return self.sides(
            row,
            lambda: self.run([self.gopeft, "bench", "--json", *row.ours]),
            lambda stack: self.run([self.python(stack), self.peers / row.peer[0], *row.peer[1:]], cwd=self.peers),
        )

    def together(self, row):
        """gopeft in as many processes as it has threads otherwise, and in one."""
        return self.turns(row, {"": lambda: self.processes(row), "one process": lambda: self.ours(row.ours)})

    def processes(self, row):
        """gopeft in a process for each thread."""
        return self.run([self.gopeft, "bench", "--json", "--nproc", self.a.threads, "--threads", 1, *row.ours])

    def ddp(self, row):
        """As many processes of gopeft as of the peer's, which torchrun starts."""
        return self.sides(
            row,
            lambda: self.processes(row),
            lambda stack: self.run(
                [
                    self.python(stack).with_name("torchrun"),
                    "--nproc-per-node",
                    self.a.threads,
                    ROOT / "scripts" / "peers" / row.peer[0],
                    *row.peer[1:],
                ]
            ),
        )

    def lever(self, row):
        """gopeft with what --without leaves off, and without."""
        return self.turns(row, {"": lambda: self.ours(row.ours[:-2]), "without": lambda: self.ours(row.ours)})

    def article(self, row):
        """A whole run, from the process's start to its scores, on real texts and a real checkpoint."""
        data = pathlib.Path(self.a.data)
        model, parts = data / "models" / "distilbert-minilm-l3-v8k-fp16", self.scratch / "imdb"
        tool = ROOT / "scripts" / "goldens" / "compare_imdb.py"
        if not (parts / "test.csv").exists():
            part = parts.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            subprocess.run(
                [
                    sys.executable,
                    str(tool),
                    "split",
                    "--data",
                    str(data / "datasets" / "imdb_train_4000.csv"),
                    "--rows",
                    "1800",
                    "--parts",
                    "700,100,1000",
                    "--out",
                    str(part),
                ],
                check=True,
            )
            part.rename(parts)
        files = [x for p in ("train", "val", "test") for x in (f"--{p}", str(parts / f"{p}.csv"))]

        def timed(argv, read):
            began = time.time()
            r = self.run(argv)
            wall = time.time() - began
            return r if "error" in r else {"seconds": wall, **read(r)}

        def ours():
            with tempfile.TemporaryDirectory() as d:
                return timed(
                    [
                        self.gopeft,
                        "train",
                        "--json",
                        "--method",
                        "full",
                        "--model",
                        model,
                        *files,
                        "--epochs",
                        "3",
                        "--batch-size",
                        "12",
                        "--lr",
                        "5e-5",
                        "--max-length",
                        "512",
                        "--amp",
                        "none",
                        "--threads",
                        self.a.threads,
                        "--out",
                        d + "/run",
                    ],
                    lambda r: {"accuracy": r["accuracy"]["test"], "peak_rss_mb": r["peak_rss_mb"]},
                )

        def peer(stack):
            return timed(
                [
                    self.python(stack),
                    tool,
                    "one",
                    "full",
                    "--pad",
                    "max",
                    "--model",
                    model,
                    *files,
                    "--threads",
                    self.a.threads,
                ],
                lambda r: {"accuracy": r["test_acc"], "peak_rss_mb": r["peak_rss_mb"]},
            )

        return self.sides(row, ours, peer)

    def help(self, _):
        """Wall time of gopeft --help, and of importing what the peers need."""

        def timed(argv):
            took, watch = [], Watch()
            for _ in range(7):
                t = time.perf_counter()
                subprocess.run([str(x) for x in argv], check=True, capture_output=True, timeout=TIMEOUT)
                took.append(time.perf_counter() - t)
            return {"seconds": statistics.median(took), "foreign_cpu_share": watch.foreign()}

        return {
            "ours": [timed([self.gopeft, "--help"])],
            "peers": {
                s: [timed([self.python(s), "-W", "ignore", "-c", "import torch, transformers, peft"])]
                for s in self.venvs
            },
        }

    def fit(self, row):
        """A classic classifier on the same made-up features; the first stack writes them."""
        stack = row.stacks[0]
        x = self.scratch / "features.safetensors"
        if not x.exists():
            x.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as d:
                saved = self.peer(
                    stack, ["peer_sklearn.py", "--model", "logreg", "--max-iter", "1", "--save", f"{d}/f"]
                )
                if "error" in saved:
                    return {"ours": [saved], "peers": {}}
                code = (
                    "import numpy as np, sys; from safetensors.numpy import save_file; d, out = sys.argv[1:];"
                    "save_file({'features': np.load(d+'/f_x.npy').astype('float32'), 'labels': np.load(d+'/f_y.npy')}, out)"
                )
                part = x.with_suffix(".part")
                subprocess.run([str(self.python(stack)), "-c", code, d, str(part.resolve())], check=True)
                part.rename(x)
        args = [
            "--mode",
            "fit",
            "--classifier",
            row.ours[0],
            "--features",
            str(x.resolve()),
            "--holdout",
            "5000",
            "--steps",
            "1",
            "--warmup",
            "0",
        ]
        return self.sides(row, lambda: self.ours(args))

    def tokenize(self, row):
        """Tokenizing the texts of --data on one thread."""
        folder, texts = self.tokenizer_inputs(row.ours[0])
        # One pass: a second one over the same texts would find its words in the caches of both sides.
        args = ["--mode", "tokenize", "--model", folder, "--texts", texts, "--steps", "1", "--warmup", "0"]
        code = (
            "import os; os.environ.update(RAYON_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false')\n"
            "import json, sys, time; from tokenizers import Tokenizer\n"
            "t = Tokenizer.from_file(sys.argv[1] + '/tokenizer.json'); t.no_truncation(); t.no_padding()\n"
            "texts = open(sys.argv[2], newline='\\n').read().strip().split('\\n')\n"
            "b = time.perf_counter(); n = sum(len(t.encode(x).ids) for x in texts)\n"
            "print(json.dumps({'tokens_per_s': n / (time.perf_counter() - b), 'tokens': n}))\n"
        )
        return self.sides(row, lambda: self.ours(args), lambda s: self.run([self.python(s), "-c", code, folder, texts]))

    def tokenizer_inputs(self, name):
        data = pathlib.Path(self.a.data)
        texts = self.scratch / "texts.txt"
        if not texts.exists():
            texts.parent.mkdir(parents=True, exist_ok=True)
            with open(data / "datasets" / "imdb_train_4000.csv", newline="", encoding="utf-8") as f:
                rows = list(csv.reader(f))[1:]
            lines = (" ".join(max(r, key=len).split()) for r in rows)
            texts.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str((data / "tokenizers" / name).resolve()), str(texts.resolve())

    def cached(self, _):
        """gopeft's own epochs of last layers, without and with --cache-features, on a random DistilBERT-base."""
        folder = self.random_model("distilbert-base-random", (), DISTILBERT)
        rows = self.scratch / "rows.jsonl"
        r = random.Random(2)
        rows.write_text(
            "".join(
                json.dumps({"input_ids": [r.randrange(1000, 30000) for _ in range(128)], "label": i % 2}) + "\n"
                for i in range(12 * self.a.cached_batches)
            )
        )
        out = {"ours": [], "peers": {"gopeft without": []}}
        for i in range(self.a.repeats):
            for cache in (True, False) if i % 2 else (False, True):
                with tempfile.TemporaryDirectory() as d:
                    epochs = self.epochs(folder, rows, d + "/run", ["--cache-features"] if cache else [])
                (out["ours"] if cache else out["peers"]["gopeft without"]).append(epochs)
                note("  %-8s %s" % ("cached" if cache else "without", epochs))
        return out

    def epochs(self, model, rows, out, extra):
        argv = [
            self.gopeft,
            "train",
            "--model",
            model,
            "--train",
            rows,
            "--method",
            "last",
            "--epochs",
            "3",
            "--amp",
            "none",
            "--log-every",
            "1000000",
            "--no-train-eval",
            "--quiet",
            "--threads",
            self.a.threads,
            "--out",
            out,
            *extra,
        ]
        watch = Watch()
        p = subprocess.run([str(x) for x in argv], capture_output=True, text=True, timeout=TIMEOUT)
        if p.returncode != 0:
            return {"error": p.stderr.strip()[-300:]}
        lines = pathlib.Path(out, "metrics.csv").read_text().splitlines()
        names = lines[0].split(",")
        ends = []
        for i, line in enumerate(lines[1:], 1):
            cells = dict(zip(names, line.split(",")))
            ends.append(i * 12 * self.a.cached_batches / float(cells["samples_per_s"]))
        return {
            "seconds": (ends[-1] - ends[0]) / (len(ends) - 1),
            "foreign_cpu_share": watch.foreign(),
        }  # of an epoch behind the first

    # All rows.

    def measure(self, rows):
        if any(r.limit or r.kind == "decode" for r in rows):
            self.limits()
        for i, row in enumerate(rows, 1):
            kept = self.kept.get(row.name)
            if (
                kept
                and not self.a.fresh
                and (self.a.keep or self.current(kept))
                and kept["repeats"] >= self.repeats(row)
            ):
                continue
            note("[%d/%d] %s" % (i, len(rows), row.name))
            if row.kind in ("tokenize", "article") and not self.a.data:
                note("  skipped: --data names no folder with datasets and tokenizers")
                continue
            began = time.time()
            result = getattr(self, row.kind)(self.prepared(row))
            result.update(
                binary=self.binary,
                settings=self.settings(),
                commit=self.commit(),
                repeats=self.repeats(row),
                seconds=round(time.time() - began, 1),
                when=datetime.date.today().isoformat(),
            )
            self.kept[row.name] = result
            self.save()
        for row in rows:
            self.explain(row)

    def commit(self):
        """The commit that the binary was built from, as it says itself."""
        p = subprocess.run([self.gopeft, "--version"], capture_output=True, text=True)
        return p.stdout.split()[-1] if p.returncode == 0 and p.stdout.split() else "an unknown commit"

    def settings(self):
        """What else than the binary a measurement depends on."""
        return {k: getattr(self.a, k) for k in ("threads", "steps", "length_batches", "cached_batches")}

    def current(self, kept):
        """Whether a row that was kept is what measuring it now would give."""
        runs = [*kept["ours"], *(r for side in kept["peers"].values() for r in side)]
        return (
            kept["binary"] == self.binary
            and kept.get("settings") == self.settings()
            and not any("error" in r for r in runs)
        )

    def explain(self, row):
        """Profiles, once, a row that missed its goal or says so itself: phases, and where the processor was in the steps, start-up apart."""
        kept = self.kept.get(row.name)
        if (
            self.a.no_profile
            or not kept
            or row.kind not in ("step", "decode", "tokens", "first_step")
            or kept.get("profile")
        ):
            return
        f = figures(self, row)
        if not f or f["ours"] is None or not (row.profile or f["missed"] or f["heavy"]):
            return
        note("profiling " + row.name)
        first = next(r for r in kept["ours"] if "error" not in r)
        args = list(self.prepared(row).ours)
        if row.kind in ("step", "decode"):
            args[args.index("--steps") + 1] = str(max(4, round(PROFILED_SECONDS / first["step_s"]["median"])))
        delay = 0 if row.kind == "first_step" else round(1000 * (first["first_step_s"] + 0.5))
        args = [
            self.gopeft,
            "bench",
            "--json",
            "--threads",
            str(self.a.threads),
            *args,
            *([] if row.kind == "decode" else ["--profile"]),
        ]
        with tempfile.TemporaryDirectory() as d:
            perf = (
                ["perf", "record", "-q", "-F", "199", "-o", d + "/perf.data", *(["-D", str(delay)] if delay else [])]
                if shutil.which("perf")
                else []
            )
            r = self.run([*perf, *args])
            profile = {"phases": r.get("phase_s", {}), "top": []}
            if perf and "error" not in r:
                p = subprocess.run(
                    [
                        "perf",
                        "report",
                        "-i",
                        d + "/perf.data",
                        "--stdio",
                        "--no-children",
                        "-q",
                        "--sort",
                        "dso,symbol",
                        "--percent-limit",
                        "2",
                    ],
                    capture_output=True,
                    text=True,
                    errors="replace",
                )
                profile["top"] = [
                    " ".join(x.split())[:110].removesuffix(" - -")
                    for x in p.stdout.splitlines()
                    if x.strip() and not x.startswith("#")
                ][:8]
        kept["profile"] = profile
        self.save()
