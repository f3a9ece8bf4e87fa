"""What the sides of a row read: models of random weights, lengths of texts, a GGUF file."""

import dataclasses
import pathlib
import random
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# What writes a model of random weights into the folder of its first argument.
DISTILBERT = (
    "import sys; from transformers import DistilBertConfig, DistilBertForSequenceClassification as M;"
    "M(DistilBertConfig()).save_pretrained(sys.argv[1])"
)
LLAMA = (
    "import sys, torch; from transformers import LlamaConfig, LlamaForCausalLM as M; torch.set_default_dtype(torch.bfloat16);"
    "M(LlamaConfig(vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32,"
    " num_key_value_heads=4)).save_pretrained(sys.argv[1])"
)


class Inputs:
    def prepared(self, row):
        """The row with files in place of {lengths} and {distilbert}."""
        args = [*row.ours, *row.peer]
        put = {}
        if "{lengths}" in args:
            put["{lengths}"] = self.lengths(
                self.a.length_batches * (3 if "features" in row.name else 1)
            )  # which are three times as fast
        if "{distilbert}" in args:
            put["{distilbert}"] = self.random_model("distilbert-base-random", (), DISTILBERT)
        if "{llama-1.1b}" in args:
            put["{llama-1.1b}"] = self.random_model("llama-1.1b", row.stacks, LLAMA)
        if "{smollm2}" in args:
            put["{smollm2}"] = self.smollm2()
        return dataclasses.replace(row, ours=[put.get(x, x) for x in row.ours], peer=[put.get(x, x) for x in row.peer])

    def lengths(self, batches):
        """A file of lengths: as many batches as fit the time, spread over the whole range."""
        path = self.scratch / f"lengths-{batches}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        everything = sorted(int(x) for x in (self.peers / "lengths.txt").read_text().split())
        n = 12 * batches
        chosen = [everything[(2 * i + 1) * len(everything) // (2 * n)] for i in range(n)]
        random.Random(1).shuffle(chosen)
        path.write_text("\n".join(map(str, chosen)) + "\n")
        return str(path.resolve())

    def random_model(self, name, stacks, code):
        """A checkpoint with random weights, which Python code makes in one of the stacks (any, where none is named)."""
        folder = self.scratch / name
        if not (folder / "config.json").exists():
            stack = next(s for s in self.venvs if not stacks or s in stacks)
            part = folder.with_name(name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            subprocess.run([str(self.python(stack)), "-W", "ignore", "-c", code, str(part.resolve())], check=True)
            part.rename(folder)
        return str(folder.resolve())

    @staticmethod
    def smollm2():
        """The demo's GGUF file, fetched where it is not there yet."""
        p = subprocess.run(
            [ROOT / "scripts" / "setup" / "demo-data.sh", "smollm2"], check=True, capture_output=True, text=True
        )
        return p.stdout.strip()
