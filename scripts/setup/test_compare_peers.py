"""Tests of scripts/compare-peers, with programs that only pretend to measure in place of both sides."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
from importlib.machinery import SourceFileLoader

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "compare-peers"


def load():
    loader = SourceFileLoader("compare_peers", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("compare_peers", loader))
    sys.modules["compare_peers"] = module
    loader.exec_module(module)
    return module


GOPEFT = """#!/usr/bin/env python3
import json, os, sys
with open(os.environ["CALLS"], "a") as f: f.write("gopeft " + " ".join(sys.argv[1:]) + "\\n")
if "broken" in os.environ: sys.exit("gopeft: it is broken")
print(json.dumps({"step_s": {"min": 1, "median": 1.0, "max": 1}, "first_step_s": 0.5, "peak_rss_mb": 500, "tokens_per_s": 3000,
                  "decode_tokens_per_s": 60, "total": 100_000_000, "seconds": 0.01, "libtorch": "9", "cpu_kernels": "X", "phase_s": {"data": 0, "forward": 1}}, indent=1))
"""
# Stands for python in a virtual environment: it ignores what it is to run but for the limits.
PYTHON = """#!/usr/bin/env python3
import json, os, sys
with open(os.environ["CALLS"], "a") as f: f.write("peer " + " ".join(os.path.basename(x) for x in sys.argv) + "\\n")
if any("bench_gemm" in x for x in sys.argv):
    for n in ("distil qkvo s128", "distil ffn1 s128", "distil ffn2 s128", "distil ffn1 s512", "distil ffn2 s512", "llama qkvo", "llama gate/up", "llama down", "llama lm_head"):
        print(json.dumps({"name": n, "M": 1, "K": 1, "N": 1, "fp32_linear": 100.0, "fp32_onednn": 200.0, "bf16_linear": 400.0}))
    for b, s in ((12, 128), (12, 512), (4, 256)):
        print(json.dumps({"name": "attention", "B": b, "S": s, "fp32_qk": 200.0, "fp32_pv": 100.0, "bf16_qk": 400.0, "fp32_sdpa": 1.0}))
    print(json.dumps({"name": "memory", "gbytes_per_s": 40.0}))
else:
    print(json.dumps({"step_s_median": SECONDS, "time_to_first_step_s": 4.0, "peak_rss_mb": 1000.0, "tokens_per_s": 1000, "decode_tokens_per_s": 20,
                      "fit_s": 2.0, "foreign_cpu_share": 0}))
"""


class ComparePeers(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        self.calls = self.dir / "calls"
        self.program("gopeft", GOPEFT)
        for stack, seconds in (("a", "2.0"), ("b", "1.2")):
            self.program(stack + "/bin/python", PYTHON.replace("SECONDS", seconds))
        (self.dir / "peers").mkdir()
        (self.dir / "peers" / "lengths.txt").write_text("\n".join(str(n) for n in range(10, 510)))

    def program(self, name, text):
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def compare(self, *args, **env):
        self.calls.write_text("")
        argv = [
            sys.executable,
            "-B",
            SCRIPT,
            "--peers",
            self.dir / "peers",
            "--venv",
            f"a={self.dir}/a",
            "--venv",
            f"b={self.dir}/b",
            "--gopeft",
            self.dir / "gopeft",
            "--cache",
            self.dir / "cache.json",
            "--out",
            self.dir / "B.md",
            "--threads",
            "2",
            "--no-profile",
            *args,
        ]
        p = subprocess.run(
            [str(x) for x in argv], capture_output=True, text=True, env=dict(os.environ, CALLS=str(self.calls), **env)
        )
        self.assertEqual(p.returncode, 0, p.stderr)
        return (self.dir / "B.md").read_text(), self.calls.read_text().splitlines()

    def test_sides_run_in_turn_and_the_faster_stack_counts(self):
        table, calls = self.compare("--rows", "12×128 fp32 full$", "--repeats", "2")
        sides = [c.split()[0] for c in calls if "--steps" in c]
        self.assertEqual(sides, ["gopeft", "peer", "peer", "peer", "peer", "gopeft"])
        line = next(x for x in table.splitlines() if x.startswith("| ") and "full" in x)
        for want in ("| 1.2 | b | 1.20× ✗ | 1.3× | 0.50 | 0.6 |",):
            self.assertIn(want, line)
        self.assertIn("- distilbert 12×128 fp32 full: 1.20× of 1.3×", table)

    def test_measured_rows_are_kept_until_the_binary_changes(self):
        rows = ("--rows", "llama decode bf16 base", "--repeats", "1")
        self.assertEqual(
            sum("decode" in c or "generate" in c for c in self.compare(*rows)[1]), 9
        )  # three times: it is short
        self.assertEqual(sum("generate" in c for c in self.compare(*rows)[1]), 0)
        self.program("gopeft", GOPEFT + "# another one\n")
        self.assertEqual(sum("generate" in c for c in self.compare(*rows, "--keep")[1]), 0)
        self.assertEqual(sum("generate" in c for c in self.compare(*rows, "--threads", "1")[1]), 9)
        table, calls = self.compare(*rows)
        self.assertEqual(sum("generate" in c for c in calls), 9)
        # 60 tokens/s of (100 M - 768 × 32,000) × 2 bytes, of 40 GB/s.
        self.assertIn("| 3.00× | 3× |", table)
        self.assertIn("| 23% ✗ |", table)
        self.assertIn("- llama decode bf16 base: 23% of the memory's bandwidth, of 70%", table)

    def test_a_row_that_fails_is_told(self):
        table, _ = self.compare("--rows", "12×128 fp32 lora$", "--repeats", "1", broken="1")
        self.assertIn("failed: gopeft: it is broken", table)

    def test_real_lengths_are_the_same_for_both_sides(self):
        folder = self.dir / "cache.files" / "distilbert-base-random"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        _, calls = self.compare("--rows", "lengths features", "--repeats", "1", "--length-batches", "1")
        self.assertEqual(len([c for c in calls if "--model " in c and "distilbert-base-random" in c]), 3)
        self.assertEqual(len([c for c in calls if "lengths-3.txt" in c]), 3)
        lengths = [int(x) for x in (self.dir / "cache.files" / "lengths-3.txt").read_text().split()]
        self.assertEqual(len(lengths), 36)
        self.assertAlmostEqual(sum(lengths) / 36, 259.5, delta=5)

    def test_limit_is_the_time_of_the_products_alone(self):
        module = load()
        bench = module.Bench.__new__(module.Bench)
        p = subprocess.run(
            [str(self.dir / "a/bin/python"), "bench_gemm.py"],
            capture_output=True,
            text=True,
            env=dict(os.environ, CALLS=str(self.calls)),
        )
        bench.kept = {"limits": [json.loads(x) for x in p.stdout.splitlines()]}
        block, rows = 4 * 768 * 768 + 2 * 768 * 3072, 12 * 128
        maps = 2 * (
            rows * 5 * block + rows * 2 * 768 * 768 + 12 * (2 * 768 * 768 + 2 * 768 * 3072)
        )  # the last block gives one position's result
        attention = 4 * 12 * 128 * 128 * 768 * 5
        self.assertAlmostEqual(bench.limit_seconds("distilbert", 12, 128, "fp32", 1), (maps + attention) / 200e9)
        self.assertAlmostEqual(
            bench.limit_seconds("distilbert", 12, 128, "fp32", 2), (2 * maps + 3 * attention) / 200e9
        )
        maps = 2 * 4 * 256 * (12 * (4 * 768 * 768 + 3 * 768 * 2048) + 768 * 32000)
        attention = 4 * 4 * 256 * 256 * 768 * 12 / 2
        self.assertAlmostEqual(bench.limit_seconds("llama", 4, 256, "fp32", 3), 3 * (maps + attention) / 200e9)


if __name__ == "__main__":
    unittest.main()
