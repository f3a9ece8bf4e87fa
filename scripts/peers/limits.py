"""What bounds the speed of a row."""

import json
import os
import subprocess
import sys

from watch import TIMEOUT, note


class Limits:
    """The part of Bench that measures the machine's own limits."""

    def limits(self):
        """bench_gemm.py's figures, measured once per cache."""
        if "limits" not in self.kept:
            note("measuring the limits of this machine (bench_gemm.py)")
            stack = next(iter(self.venvs))
            p = subprocess.run(
                [str(self.python(stack)), str(self.peers / "bench_gemm.py"), "--threads", str(self.a.threads)],
                cwd=self.peers,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1"),
            )
            if p.returncode != 0:
                sys.exit("compare-peers: bench_gemm.py: " + p.stderr.strip()[-300:])
            self.kept["limits"] = [json.loads(x) for x in p.stdout.splitlines()]
            self.save()
        return self.kept["limits"]

    def limit_seconds(self, family, batch, seq, dtype, passes):
        """Time the products of a step alone would take at the best rate measured for each shape."""
        table = self.limits()
        best = {}
        for r in table:
            if "M" in r:
                best[r["name"]] = max(v for k, v in r.items() if k.startswith(dtype) and isinstance(v, float))
        products = {
            (r["B"], r["S"]): max(r[f"{dtype}_qk"], r.get(f"{dtype}_pv", 0)) for r in table if r["name"] == "attention"
        }
        rows = batch * seq
        if family == "distilbert":
            # Of the last block all positions give keys and values; the rest is computed of the one that is read.
            wide = "s512" if seq == 512 else "s128"
            rates = best["distil qkvo s128"], best["distil ffn1 " + wide], best["distil ffn2 " + wide]
            full, attended = 5, 5
            flops = [
                (2 * (rows * 2 + batch * 2) * 768 * 768, rates[0]),
                (2 * batch * 768 * 3072, rates[1]),
                (2 * batch * 3072 * 768, rates[2]),
            ]
            sizes = 4 * 768 * 768, 768 * 3072, 768 * 3072
        else:
            # Causal: half of the scores are never computed.
            rates = best["llama qkvo"], best["llama gate/up"], best["llama down"]
            full, attended = 12, 12 / 2
            flops = [(2 * rows * 768 * 32000, best["llama lm_head"])]
            sizes = 4 * 768 * 768, 2 * 768 * 2048, 768 * 2048
        flops += [(2 * rows * size * full, rate) for size, rate in zip(sizes, rates)]
        maps = passes * sum(n / (rate * 1e9) for n, rate in flops)
        # Attention's backward pass is twice its forward pass: none of its inputs is a weight.
        return maps + (1 if passes == 1 else 3) * 4 * batch * seq * seq * 768 * attended / (products[batch, seq] * 1e9)

    def bandwidth(self):
        return next(r["gbytes_per_s"] for r in self.limits() if "gbytes_per_s" in r)
