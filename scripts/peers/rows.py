"""The rows of BENCHMARKS.md: what runs on either side, and what is to be reached."""

import dataclasses


@dataclasses.dataclass
class Row:
    name: str
    group: str
    kind: str  # how it is measured: a method of measure.Bench
    ours: list = dataclasses.field(default_factory=list)  # arguments of gopeft bench
    peer: list = dataclasses.field(default_factory=list)  # script and arguments
    peer_name: str = ""
    goal: float = 0  # gopeft is to be this many times as fast
    memory: float = 0  # and to need at most this share of the peer's peak memory
    quick: bool = False
    limit: tuple = ()  # (family, batch, seq, dtype, passes) of the GEMM limit
    stacks: tuple = ()  # only these stacks run; empty: all
    short: bool = False  # seconds a side: measured at least three times
    profile: bool = False  # its steps are profiled whether it reaches its goal or not


def distilbert_rows(quick_steps):
    """Training steps of every method on DistilBERT-base's shape."""
    methods = {  # gopeft's settings, and the peer's: the same hyper-parameters
        "features": ([], "feature"),
        "last": ([], "last"),
        "full": ([], "full"),
        "houlsby": ([], "houlsby"),
        "pfeiffer": ([], "pfeiffer"),
        "prefix": (["--prefix-projection", "--prefix-hidden", "512", "--virtual-tokens", "20"], "prefix"),
        "prompt": (["--virtual-tokens", "20"], "prompt"),
        "lora": (["--rank", "8", "--alpha", "16", "--lora-dropout", "0.1"], "lora"),
        "ia3": ([], "ia3"),
    }
    # Passes over the GEMMs: forward; and the inputs' gradients; and the weights'.
    passes = {"features": 1, "last": 1, "full": 3}
    for seq, amps in ((128, {"none": 1.3, "bf16": 1.35}), (512, {"none": 1.7, "bf16": 1.8})):
        for amp, goal in amps.items():
            dtype = "fp32" if amp == "none" else "bf16"
            for method, (extra, peer) in methods.items():
                # Minutes a row at 512: the stack that is slower there, by its attention with dropout, runs in one of them.
                stacks = () if seq == 128 or method == "lora" else ("2.1",)
                quick = (
                    seq == 128
                    and method in ("last", "full", "lora", "houlsby", "prefix")
                    or (seq, amp, method) == (512, "bf16", "lora")
                )
                steps = quick_steps if seq == 128 else max(3, quick_steps // 2)
                common = ["--batch", "12", "--seq", str(seq), "--amp", amp, "--steps", str(steps)]
                # Features are what a checkpoint gives: both sides read the same one.
                ours, theirs = (
                    (["--model", "{distilbert}"], ["--model", "{distilbert}"])
                    if method == "features"
                    else (["--arch", "distilbert"], [])
                )
                yield Row(
                    f"distilbert 12×{seq} {dtype} {method}",
                    f"DistilBERT-base, 12 × {seq}, {dtype}",
                    "step",
                    [*ours, "--method", method, *extra, *common],
                    ["peer_distilbert.py", "--method", peer, *theirs, *common],
                    goal=goal,
                    memory=0.6 if seq == 128 else 0.4,
                    quick=quick,
                    limit=("distilbert", 12, seq, dtype, passes.get(method, 2)),
                    stacks=stacks,
                    short=(seq, amp) == (128, "bf16") or (seq, method) == (512, "features"),
                    profile=(seq, method) == (128, "lora"),
                )


def llama_rows(quick_steps):
    """Training steps and greedy decoding on a LLaMA of 110 million parameters."""
    methods = {
        "full": [],
        "lora": ["--rank", "8", "--alpha", "16"],
        "llama-adapter": ["--adapter-length", "10"],
        "prefix": ["--virtual-tokens", "10"],
        "prompt": ["--virtual-tokens", "10"],
        "ia3": [],
    }
    for amp in ("bf16", "none"):
        dtype = "fp32" if amp == "none" else "bf16"
        for method, extra in methods.items():
            common = ["--batch", "4", "--seq", "256", "--amp", amp, "--steps", str(quick_steps)]
            asked = amp == "bf16" and method in ("lora", "llama-adapter", "prefix")
            yield Row(
                f"llama 4×256 {dtype} {method}",
                f"LLaMA 12 × 768, 4 × 256, {dtype}",
                "step",
                ["--arch", "llama", "--method", method, *extra, *common],
                ["peer_llama.py", "--method", method, *common],
                goal=1.5 if asked else 0,
                memory=0.6,
                quick=(amp, method) == ("bf16", "lora"),
                limit=("llama", 4, 256, dtype, 3 if method == "full" else 2),
                short=asked,
            )
    for dtype, goal in (("fp32", 2), ("bf16", 3)):
        for method in ("base", "lora", "llama-adapter", "prefix"):
            common = [
                "--mode",
                "generate",
                "--method",
                method,
                "--batch",
                "1",
                "--seq",
                "128",
                "--new-tokens",
                "32",
                "--dtype",
                dtype,
                "--steps",
                str(max(3, quick_steps // 2)),
            ]
            yield Row(
                f"llama decode {dtype} {method}",
                "LLaMA 12 × 768, greedy decoding, batch 1",
                "decode",
                ["--arch", "llama", *methods.get(method, []), *common],
                ["peer_llama.py", *common],
                goal=goal,
                quick=method == "base",
                short=dtype == "bf16",
            )


LLAMA_7B = [
    "--arch",
    "llama",
    "--layers",
    "32",
    "--hidden",
    "4096",
    "--heads",
    "32",
    "--ffn",
    "11008",
    "--vocab",
    "32000",
]
SEVERAL = ("2.11", "2.15")  # bitsandbytes wants a torch of our days


def quantised_rows(quick_steps):
    """Training steps over a base in 16, 8 and 4 bits, and decoding from kept GGUF blocks."""
    steps = str(max(3, quick_steps // 2))
    lora = ["--method", "lora", "--targets", "all", "--rank", "8", "--alpha", "16"]
    common = ["--batch", "1", "--seq", "256"]
    group = "LLaMA of 1.1 billion parameters (22 × 2048), LoRA on all maps, 1 × 256, bf16"
    for base, goal, memory in (("bf16", 1, 0), ("nf4", 1.3, 0.3), ("int8", 0, 0)):
        ours = ["--quantize", base] if base != "bf16" else []
        yield Row(
            f"llama 1.1B {base} lora",
            group,
            "step",
            ["--model", "{llama-1.1b}", *lora, *ours, *common, "--amp", "bf16", "--steps", steps],
            ["peer_quant.py", "--folder", "{llama-1.1b}", "--base", base, *common, "--rank", "8", "--steps", steps],
            peer_name="bitsandbytes" if ours else "",
            goal=goal,
            memory=memory,
            stacks=SEVERAL,
        )
    group = "LLaMA-7B's shape (32 × 4096, made-up weights), 1 × 256, bf16"
    for method, extra in (("lora", ["--rank", "8", "--alpha", "16"]), ("llama-adapter", ["--adapter-length", "10"])):
        for base in ("bf16", "nf4"):
            held = ["--base-dtype", "bf16", *(["--quantize", "nf4"] if base == "nf4" else [])]
            yield Row(
                f"llama 7B {base} {method}",
                group,
                "alone",
                [*LLAMA_7B, "--method", method, *extra, *held, *common, "--amp", "bf16", "--steps", "3"],
            )
    group = "SmolLM2-135M in Q4_1, kept, greedy decoding, batch 1"
    for count in (2, 1):
        yield Row(
            f"gguf decode {count} threads" if count > 1 else "gguf decode 1 thread",
            group,
            "gguf",
            [
                "--model",
                "{smollm2}",
                "--mode",
                "generate",
                "--method",
                "base",
                "--batch",
                "1",
                "--seq",
                "8",
                "--new-tokens",
                "128",
                "--steps",
                "4",
                "--threads",
                str(count),
            ],
            ["peer_llamacpp.py", "{smollm2}", "--threads", str(count)],
            peer_name="llama.cpp",
            goal=1,
            memory=1.5,
            stacks=SEVERAL,
        )


def process_rows(quick_steps):
    """A process for each thread, which share each batch: against one with all threads, and against DDP."""
    for amp in ("none", "bf16"):
        dtype = "fp32" if amp == "none" else "bf16"
        for method, extra, goal in (
            ("lora", ["--rank", "8", "--alpha", "16", "--lora-dropout", "0.1"], 1),
            ("full", [], 1 / 1.15),
        ):
            common = ["--batch", "12", "--seq", "128", "--amp", amp, "--steps", str(quick_steps)]
            ours = ["--arch", "distilbert", "--method", method, *extra, *common]
            yield Row(
                f"processes {dtype} {method}",
                "DistilBERT-base, 12 × 128, a process for each core, in place of one with all cores",
                "together",
                ours,
                goal=round(goal, 2),
                short=True,
            )
            yield Row(
                f"ddp {dtype} {method}",
                "DistilBERT-base, 12 × 128, a process for each core: transformers' Trainer under torchrun (DDP on Gloo)",
                "ddp",
                ours,
                ["peer_ddp.py", "--method", method, *common],
                goal=1.5,
                short=True,
            )


def other_rows(threads):
    """Start-up, real lengths, the article's run, classic classifiers, tokenizing, cached features."""
    group = "Start-up"
    yield Row(
        "start first step",
        group,
        "first_step",
        ["--arch", "distilbert", "--method", "lora", "--steps", "1", "--warmup", "0"],
        ["peer_distilbert.py", "--method", "lora", "--steps", "1"],
        goal=4,
        quick=True,
        short=True,
    )
    yield Row(
        "start first step lightning",
        group,
        "first_step",
        ["--arch", "distilbert", "--method", "full", "--steps", "1", "--warmup", "0"],
        ["peer_distilbert.py", "--method", "full", "--steps", "1", "--harness", "lightning"],
        peer_name="Lightning",
        goal=4,
        stacks=("2.1",),
        short=True,
    )
    yield Row("start help", group, "help", quick=True)
    lengths = "{lengths}"
    group = "Real lengths (IMDB, cut at 512)"
    both = ["--lengths", lengths, "--seq", "512", "--batch", "12", "--steps", "0"]
    yield Row(
        "lengths features fp32",
        group,
        "tokens",
        ["--model", "{distilbert}", "--method", "features", *both],
        ["peer_distilbert.py", "--model", "{distilbert}", "--method", "feature", "--pad", "bucket", *both],
        peer_name="batched by length too",
        goal=1.5,
    )
    for amp in ("none", "bf16"):
        dtype = "fp32" if amp == "none" else "bf16"
        ours = ["--arch", "distilbert", "--method", "full", "--amp", amp, *both]
        peer = ["peer_distilbert.py", "--method", "full", "--amp", amp, *both]
        yield Row(
            f"lengths full {dtype} against padding to 512",
            group,
            "tokens",
            ours,
            [*peer, "--pad", "max"],
            peer_name="padded to 512",
            goal=3,
            stacks=("2.1",),
        )
        yield Row(
            f"lengths full {dtype}",
            group,
            "tokens",
            ours,
            [*peer, "--pad", "bucket"],
            peer_name="batched by length too",
            goal=1.4,
        )
    yield Row(
        "article full",
        "The article's run: 700 IMDB reviews, 3 epochs, batch 12, texts cut at 512, scored on 100 and 1,000 others",
        "article",
        peer_name="padded to 512, as its notebook does",
        goal=3,
        stacks=("2.1",),
    )
    group = "Without a transformer"
    for model, goal in (("logreg", 1), ("forest", 2)):
        yield Row(
            f"fit {model}",
            group,
            "fit",
            [model],
            ["peer_sklearn.py", "--model", model, "--jobs", str(threads)],
            goal=goal,
            stacks=("2.1",),
        )
    for name in ("bert-base-uncased-30522", "llama-2-32k"):
        yield Row(f"tokenize {name}", group, "tokenize", [name], goal=2, short=True)
    yield Row("cached features", "Last layers, three epochs", "cached", goal=20)


# What --without leaves off, and the runs that show what each gives.
LEVERS = {
    "distilbert 12×128 bf16 lora": ("kernels", "blocks", "casts", "pooling", "overlap"),
    "distilbert 12×128 fp32 full": ("kernels", "blocks", "pooling", "optimizer"),
    "distilbert 12×512 fp32 features": (
        "kernels",
        "blocks",
        "pooling",
        "passes",
        "mapping",
    ),  # of a folder: made-up weights lie in no file
    "llama 4×256 bf16 lora": ("kernels", "blocks", "casts", "chunks"),
}


def lever_rows(rows):
    """gopeft alone, with and without each means of speed."""
    for row in rows:
        for lever in LEVERS.get(row.name, ()):
            yield Row(
                f"{row.name} without {lever}",
                "What each means of speed gives",
                "lever",
                [*row.ours, "--without", lever],
            )


def everything(steps, threads):
    trained = [*distilbert_rows(steps), *llama_rows(steps)]
    return [*other_rows(threads), *trained, *quantised_rows(steps), *process_rows(steps), *lever_rows(trained)]
