"""What the measurements say: medians, ratios, and BENCHMARKS.md."""

import json
import os
import platform
import statistics

# What was done for the rows that miss, whichever they are in a run.
TRIED = [
    "Tried for these rows, and kept: products of our own in place of MKL's and oneDNN's, which cast while they pack; attention in blocks that stay in the "
    "cache; blocks of memory kept between steps, on huge pages; norms, activations, dropout and rotations fused with their neighbours; activations "
    "written over inputs that nothing reads again, or computed again in the backward pass; hidden states freed as the next is there; inference in passes "
    "of 2,048 tokens; the low-rank update of a decoding step as one operation. The table above has what each group of them gives. Looked at and left: "
    "passes of 1,536 to 6,144 tokens (level), a bf16 copy of a language model's frozen head (at most 1.5 % of a step, 49 MB), weights packed beforehand "
    "(packing is 3 to 7 % of a step, and each weight would be held twice more, once for either pass).",
    "The first step: with everything in the page cache it is done 1.9 s after the start (LoRA) and 2.4 s (full), by a run alone on the machine; beside Python's "
    "runs, as measured here, the system has to find and clear pages first (1.4 s of system time against 0.3 s). Most of it is the step itself (1.2 and 1.9 s when "
    "warm), which touches the memory of activations, gradients and optimizer for the first time; the start takes 0.5 s, the made-up weights in it.",
    "Decoding in bf16 reads its weights at 78 % of the memory's bandwidth and more: 3× would need more than 84 % beside a peer at 43 tokens/s.",
    "LLaMA in bf16: a run's steps are alike, but runs differ, 1.30 to 1.50 s with LoRA, on an idle machine: with the same addresses (without address randomisation), threads bound to cores and packed panels on huge pages too, so it is the (virtual) machine's. The rows "
    "of LoRA and prefix, there and at 12 × 128 in bf16, were measured twice, with 4 steps a run (1.32×, 1.29×, 1.31×, 1.34×) and with 8, which are the ones above.",
    "Memory of LLaMA with all layers trained: weights, gradients and Adam's two moments, all in fp32, are 2,147 MB of it.",
]
AT_LIMIT = ", at the limit: the matrix products alone, each at the best rate that MKL or oneDNN reaches for its shape, would take {:.0%} of the step's time"
LEAST_BANDWIDTH, LEAST_OF_BASE = (
    0.7,
    0.9,
)  # of decoding: of the memory's bandwidth, and with an adapter of the bare model's speed
NOISE = 0.10  # share of the machine taken by others from which on a row is marked


# Figures of a side by kind: the value compared, and whether more of it is better.
OURS = {
    "step": lambda r: r["step_s"]["median"],
    "decode": lambda r: r["decode_tokens_per_s"],
    "tokens": lambda r: r["tokens_per_s"],
    "first_step": lambda r: r["first_step_s"],
    "help": lambda r: r["seconds"],
    "fit": lambda r: r["step_s"]["median"],
    "tokenize": lambda r: r["tokens_per_s"],
    "cached": lambda r: r["seconds"],
    "article": lambda r: r["seconds"],
    "lever": lambda r: r["step_s"]["median"],
    "together": lambda r: r["step_s"]["median"],
    "ddp": lambda r: r["step_s"]["median"],
    "alone": lambda r: r["step_s"]["median"],
    "gguf": lambda r: r["decode_tokens_per_s"],
}
THEIRS = dict(
    OURS, step=lambda r: r["step_s_median"], first_step=lambda r: r["time_to_first_step_s"], fit=lambda r: r["fit_s"]
)
MORE = {"decode": True, "gguf": True, "tokens": True, "tokenize": True}
UNIT = {
    "step": "s/step",
    "decode": "tokens/s",
    "tokens": "tokens/s",
    "first_step": "s",
    "help": "s",
    "fit": "s",
    "tokenize": "tokens/s",
    "cached": "s/epoch",
    "article": "s",
    "lever": "s/step",
    "together": "s/step",
    "ddp": "s/step",
    "alone": "s/step",
    "gguf": "tokens/s",
}


def figures(bench, row):
    """What a row says: medians, the stack to beat, ratios; None where it was not measured."""
    kept = bench.kept.get(row.name)
    if not kept:
        return None
    failed = [r["error"] for r in kept["ours"] if "error" in r]
    good = [r for r in kept["ours"] if "error" not in r]
    f = dict(
        ours=None,
        theirs=None,
        stack="",
        ratio=None,
        memory=None,
        share=None,
        error=failed[0] if failed else "",
        noise=0,
        commit=kept["commit"],
        missed=False,
        heavy=False,
        waits=False,
        lags=False,
    )
    if not good:
        return f
    pick, more = statistics.median, MORE.get(row.kind, False)
    f["ours"] = pick(OURS[row.kind](r) for r in good)
    f["rss"] = pick(r["peak_rss_mb"] for r in good) if "peak_rss_mb" in good[0] else None
    f["noise"] = pick(r.get("foreign_cpu_share", 0) for r in good)
    best = None
    for stack, runs in kept["peers"].items():
        runs = [r for r in runs if "error" not in r]
        if runs:
            v = pick(THEIRS[row.kind](r) for r in runs)
            if best is None or (v > best if more else v < best):
                best = v
                f.update(
                    theirs=v,
                    stack=stack,
                    runs=runs,
                    peer_noise=pick(r.get("foreign_cpu_share", 0) for r in runs),
                    peer_rss=pick(r["peak_rss_mb"] for r in runs) if "peak_rss_mb" in runs[0] else None,
                )
    if f["theirs"]:
        f["noise"] = max(f["noise"], f["peer_noise"])
        f["ratio"] = f["ours"] / f["theirs"] if more else f["theirs"] / f["ours"]
        if f.get("rss") and f.get("peer_rss"):
            f["memory"] = f["rss"] / f["peer_rss"]
        f["missed"] = bool(row.goal) and f["ratio"] < row.goal
        f["heavy"] = bool(row.memory) and f["memory"] is not None and f["memory"] > row.memory
    if row.limit:
        f["share"] = bench.limit_seconds(*row.limit) / f["ours"]
    if row.kind == "decode":
        total = good[0]["total"] - 768 * 32000  # a token reads one row of the embeddings
        f["share"] = f["ours"] * total * (2 if "bf16" in row.name else 4) / (bench.bandwidth() * 1e9)
        base = [r for r in bench.kept.get(row.name.rsplit(" ", 1)[0] + " base", {}).get("ours", []) if "error" not in r]
        f["of_base"] = f["ours"] / pick(OURS["decode"](r) for r in base) if base else None
        f["waits"], f["lags"] = f["share"] < LEAST_BANDWIDTH, f["of_base"] is not None and f["of_base"] < LEAST_OF_BASE
        f["missed"] = f["missed"] or f["waits"] or f["lags"]
    if good[0].get("processes"):
        f["waiting"] = pick(max(p["waiting"] for p in r["processes"]) for r in good)
    for key in ("accuracy", "go_allocs_per_step", "go_heap_mb", "ready_rss_mb"):
        if key in good[0]:
            f[key] = pick(r[key] for r in good)
    f["peer_accuracy"] = (
        pick(r["accuracy"] for r in f["runs"]) if f.get("runs") and "accuracy" in f["runs"][0] else None
    )
    return f


def render(bench, rows):
    """BENCHMARKS.md."""
    lines = ["# Benchmarks", ""]
    done = [(r, f) for r in rows if (f := figures(bench, r))]
    commits = sorted({f["commit"] for _, f in done})
    lines += [
        f"{machine()}; {bench.a.threads} threads on both sides. Measured by `scripts/compare-peers` at {', '.join(commits)} on "
        f"{max((bench.kept[r.name]['when'] for r, _ in done), default='-')}, {versions(bench)}.",
        "",
        "Each row ran on both sides in turn, with the same shapes, precision and hyper-parameters, dropout 0.1 (DistilBERT), Adam. *Ratio* is how "
        "many times as fast gopeft is as the faster of the Python stacks, *memory* its peak resident memory over the peer's. *Limit* is, for "
        "training, the time that the matrix products which gopeft computes (of a classifier's last block only what it reads) would take at the best rate "
        "that MKL or oneDNN was measured at for each shape, over the step's time: gopeft's own products may be faster than both; for decoding, "
        "the bandwidth that reading the weights takes, over the memory's. Figures are medians of three runs a side where a run takes seconds, else of "
        "one: single ones differ by up to a fifth on this machine. Rows of features read the same checkpoint on both sides, the others begin with "
        "random weights. At 512 tokens the 2.11 stack runs LoRA alone: it is the slower one "
        "there, by its attention with dropout. A `~` marks a row in which other programs took more than "
        f"{NOISE:.0%} of the machine. ✗ marks what misses its goal.",
        "",
    ]
    group = None
    for row, f in done:
        if row.kind == "lever":
            continue
        if row.group != group:
            group = row.group
            lines += [
                "",
                f"## {group}",
                "",
                "| | gopeft | Python | stack | ratio | goal | memory | goal | limit |",
                "|---|---|---|---|---|---|---|---|---|",
            ]
        unit = UNIT[row.kind]
        label = row.name.removeprefix(common_prefix(rows, group)).strip() or row.name
        if row.peer_name:
            label += f" (peer: {row.peer_name})"
        if row.kind == "decode" and f.get("of_base") and not row.name.endswith(" base"):
            label += f" ({f['of_base']:.0%} of base{' ✗' if f['lags'] else ''})"
        if f.get("waiting") is not None:
            label += f" (waits {f['waiting']:.1%})"
        if row.kind == "help":
            label += " (goal: 50 ms)"
        if row.kind == "article" and f.get("peer_accuracy") is not None:
            label += f", test accuracy {f['accuracy']:.3f}, Python's {f['peer_accuracy']:.3f}"
        if f["ours"] is None:
            lines.append(f"| {label} | failed: {f['error']} | | | | | | | |")
            continue
        lines.append(
            "| {}{} | {} {} | {} | {} | {} | {} | {} | {} | {} |".format(
                "~" if f["noise"] > NOISE else "",
                label,
                number(f["ours"]),
                unit,
                number(f["theirs"]),
                f["stack"],
                cell(f["ratio"], "{:.2f}×", slow(row, f)),
                f"{row.goal:g}×" if row.goal else "",
                cell(f["memory"], "{:.2f}", f["heavy"]),
                f"{row.memory:g}" if row.memory else "",
                cell(f["share"], "{:.0%}", f["waits"]),
            )
        )
    lines += levers(bench, done) + go_side(done) + profiles(bench, done) + missed(bench, done)
    return "\n".join(lines + gpu(bench.a.gpu)) + "\n"


def gpu(path):
    """What scripts/compare-gpu measured, if it did."""
    lines = ["", "## On a GPU", ""]
    if not os.path.exists(path):
        return lines + ["Not measured: `scripts/compare-gpu` does it where there is one."]
    with open(path, encoding="utf-8") as f:
        d = json.load(f)
    lines += [
        f"{d['gpu']}, measured by `scripts/compare-gpu` on {d['when']} with {d['gopeft']}; Python: torch {d['torch']}, transformers {d['transformers']}, peft "
        f"{d['peft']}. One run a side, Adam (Python's fused), dropout 0.1 in DistilBERT, LLaMA of 32,000 tokens; Python waits for the GPU once at the end of its "
        "steps, gopeft after each. Small batches take as long as their kernels take to launch, which swings with the processor: Python's own figures of three "
        "such runs differ by up to a third.",
        "",
        "| | gopeft | Python | ratio | GPU memory, MB | Python's |",
        "|---|---|---|---|---|---|",
    ]
    for r in d["rows"]:
        a, b = r["ours"], r["theirs"]
        if "error" in a or "error" in b:
            lines.append(f"| {r['name']} | {a.get('error', 'ok')} | {b.get('error', 'ok')} | | | |")
            continue
        lines.append(
            f"| {r['name']} | {number(a['tokens_per_s'])} tokens/s | {number(b['tokens_per_s'])} | {a['tokens_per_s'] / b['tokens_per_s']:.2f}× | "
            f"{a['gpu_mb']:,.0f} | {b['gpu_mb']:,.0f} |"
        )
    return lines + [
        "",
        "Tried there and kept: libtorch's attention kernels with dropout and padding too (DistilBERT 64 × 512: LoRA 48 to 25 ms a step, 11.6 to 4.2 GB), RMS norms in one "
        "kernel and rotations in four with a backward pass of four (with both, LLaMA 4 × 256, LoRA: 44 to 19 ms; decoding in fp32: 124 to 365 tokens/s), batches through "
        "pinned memory, Adam in one kernel. On this GPU libtorch takes cuDNN's attention by default, on both sides here; gopeft has turned it off since, as it is "
        "reported to make a plan, for tens of milliseconds, whenever a batch has another shape (not measured here). Left: the loss is read after every step, whose end is then waited for; CUDA graphs (`--compile-graph`) are not built. Never run on a GPU, written since: the kernels that NVRTC compiles (norms, rotations, SwiGLU, LoRA's sum, the loss, quantised weights; they ran on an emulated one), bases in 16, 8 and 4 bits there, and attention within packed texts by their lengths (`_flash_attention_forward`).",
    ]


def slow(row, f):
    return bool(row.goal) and f["ratio"] is not None and f["ratio"] < row.goal


def levers(bench, done):
    """gopeft with and without each means of speed."""
    found = [(r, f) for r, f in done if r.kind == "lever" and f["ratio"]]
    if not found:
        return []
    lines = [
        "",
        "## What each means of speed gives",
        "",
        "gopeft beside itself with `--without` one of them, one run each (tests hold both to the same results): how many times "
        "as fast it is with it, and its memory over that without. `kernels`: products and fused operations of our own in place of libtorch's; `blocks`: "
        "large blocks of memory kept between steps; `casts`: frozen weights cast once; `pooling`: the last block computes the one position that a classifier "
        "reads; `passes`: inference in passes of 2,048 tokens; `overlap`: the next batches made while one computes (where there is text to read); `chunks`: a "
        "language model's logits made for some tokens at a time, with their gradients; `optimizer`: Adam's step in one fused pass; `mapping`: weights used where "
        "their file is mapped into memory, not copied.",
        "",
        "| row | without | speed | memory |",
        "|---|---|---|---|",
    ]
    for row, f in found:
        name, lever = row.name.split(" without ")
        lines.append(f"| {name} | {lever} | {f['ratio']:.2f}× | {cell(f['memory'], '{:.2f}', False)} |")
    return lines


def go_side(done):
    """What Go takes of it."""
    steps = [f for r, f in done if r.kind in ("step", "decode", "tokens") and f.get("go_heap_mb")]
    if not steps:
        return []
    train = [f["go_allocs_per_step"] for r, f in done if r.kind == "step" and f.get("go_heap_mb")]
    decode = [f["go_allocs_per_step"] / 32 for r, f in done if r.kind == "decode" and f.get("go_heap_mb")]
    return [
        "",
        "## The Go side",
        "",
        f"No tensor operation allocates Go memory (held by a test, `TestOpsAllocateNothing`). A training step with its batch, metrics and "
        f"clock makes {min(train):.0f} to {max(train):.0f} Go allocations"
        + (f", a decoded token {min(decode):.0f} to {max(decode):.0f}" if decode else "")
        + f"; the Go heap has at most {max(f['go_heap_mb'] for f in steps):.0f} MB in any row above (goal: 64). Where the processor is during the steps, "
        "start-up apart, is in the profiles that follow.",
    ]


def profiles(bench, done):
    """The rows that are always profiled."""
    lines = []
    for row, f in done:
        if row.profile and bench.kept[row.name].get("profile") and not (f["missed"] or f["heavy"]):
            lines += ["", f"{row.name}:", *profile_of(bench, row)]
    return ["", "## Where a step's time goes", *lines] if lines else []


def profile_of(bench, row):
    profile = bench.kept[row.name].get("profile") or {}
    phases = profile.get("phases") or {}
    total = sum(phases.values())
    lines = ["  phases: " + ", ".join(f"{k} {v / total:.0%}" for k, v in phases.items())] if total else []
    own = os.path.basename(bench.gopeft) + " ["
    return [*lines, *("  `" + x.replace(own, "gopeft [") + "`  " for x in profile.get("top", []))]


def missed(bench, done):
    lines = ["", "## What missed", ""]
    for row, f in done:
        if not (f["missed"] or f["heavy"]):
            continue
        said = []
        if slow(row, f):
            said.append(
                f"{f['ratio']:.2f}× of {row.goal:g}×"
                + (AT_LIMIT.format(f["share"]) if (f["share"] or 0) >= 0.9 else "")
            )
        if f["waits"]:
            said.append(f"{f['share']:.0%} of the memory's bandwidth, of {LEAST_BANDWIDTH:.0%}")
        if f["lags"]:
            said.append(f"{f['of_base']:.0%} of the bare model's speed, of {LEAST_OF_BASE:.0%}")
        if f["heavy"]:
            said.append(
                f"memory {f['memory']:.2f} of {row.memory:g}: {f['rss']:.0f} MB, {f.get('ready_rss_mb', 0):.0f} of them libtorch, program and weights, there before "
                f"the first step; the peer's {f['peer_rss']:.0f}"
            )
        lines += [f"- {row.name}: " + "; ".join(said), *profile_of(bench, row)]
    return [*lines, *(x for text in TRIED for x in ("", text))] if len(lines) > 3 else [*lines, "Nothing."]


def with_sections_of(old, new):
    """new, and at its end the sections of old that it has not: those are written by hand."""

    def sections(text):
        return {part.split("\n", 1)[0]: part for part in text.split("\n## ")[1:]}

    have = sections(new)
    return "\n## ".join(
        [new.rstrip("\n") + "\n"] + [part for title, part in sections(old).items() if title not in have]
    )


def common_prefix(rows, group):
    """What the names of a group share, up to a blank."""
    names = [r.name for r in rows if r.group == group]
    prefix = os.path.commonprefix(names) if len(names) > 1 else ""
    return prefix[: prefix.rfind(" ") + 1]


def number(v):
    return "" if v is None else f"{v:,.0f}" if v >= 1000 else f"{v:.3g}"


def cell(v, form, bad):
    return "" if v is None else form.format(v) + (" ✗" if bad else "")


def machine():
    model = next(
        (x.split(":", 1)[1].strip() for x in open("/proc/cpuinfo", encoding="utf-8") if x.startswith("model name")),
        platform.machine(),
    )
    memory = (
        int(next(x.split()[1] for x in open("/proc/meminfo", encoding="ascii") if x.startswith("MemTotal"))) / 2**20
    )
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB of memory, Linux {platform.release().split('-')[0]}"


def versions(bench):
    out = []
    r = bench.run([bench.gopeft, "doctor", "--json"])
    if "error" not in r:
        out.append(f"libtorch {r['libtorch']} ({r['cpu_kernels']})")
    for stack in bench.venvs:
        code = (
            "import json; from importlib.metadata import version as v;"
            "print(json.dumps({n: v(n) for n in ('torch', 'transformers', 'peft')}))"
        )
        r = bench.run([bench.python(stack), "-c", code])
        out.append(f"stack {stack}: " + ", ".join(f"{k} {v}" for k, v in r.items() if k != "foreign_cpu_share"))
    return "; ".join(out)
