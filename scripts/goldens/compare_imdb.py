#!/usr/bin/env python3
"""The Python column of the comparison in the README: one text classifier, five ways to train it, one JSON line each.

    compare_imdb.py split --data imdb_train_4000.csv --rows 1000 --parts 700,100,200 --out splits/
    compare_imdb.py run --model distilbert/ --train splits/train.csv --val splits/val.csv --test splits/test.csv > python.jsonl
    compare_imdb.py table --gopeft runs/imdb/compare.csv --python python.jsonl

Every method runs in a process of its own, so that its peak memory is its own. `seconds` is training alone, or extracting the training
features and fitting; loading, tokenizing and the final scoring are in `total_s`. The weights of the epoch with the best validation
accuracy are the ones scored.
"""

import argparse
import csv
import json
import os
import pathlib
import random
import resource
import subprocess
import sys
import time

START = time.perf_counter()
METHODS = ["logreg", "forest", "last", "full", "lora"]
RATES = {"last": 1e-3, "full": 5e-5, "lora": 5e-4}
TEXT, LABEL = ("review", "text", "sentence"), ("sentiment", "label")


def read(path):
    with open(path, newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    text = next(c for c in TEXT if c in rows[0])
    label = next(c for c in LABEL if c in rows[0])
    return [r[text] for r in rows], [r[label] for r in rows]


def split(a):
    texts, labels = read(a.data)
    rows = list(zip(texts, labels))
    random.Random(a.seed).shuffle(rows)
    sizes = [int(n) for n in a.parts.split(",")]
    if sum(sizes) > len(rows) or sum(sizes) != a.rows:
        sys.exit(f"--parts {a.parts} must add up to --rows {a.rows}, of {len(rows)} rows there are")
    a.out.mkdir(parents=True, exist_ok=True)
    for name, n in zip(("train", "val", "test"), sizes):
        part, rows = rows[:n], rows[n:]
        with open(a.out / f"{name}.csv", "w", newline="", encoding="utf-8") as f:
            w = csv.writer(f)
            w.writerow(["review", "sentiment"])
            w.writerows(part)


def run(a):
    for method in a.methods.split(","):
        if method not in METHODS:
            sys.exit(f"method {method}: one of {', '.join(METHODS)}")
        subprocess.run([sys.executable, __file__, "one", method, *sys.argv[2:]], check=True)


class Data:
    """Token ids and labels of one file; batches padded to pad_to tokens, or with 0 to their longest row."""

    def __init__(self, path, tokenizer, names, max_length, pad_to):
        texts, labels = read(path)
        self.ids = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
        self.labels = [names.index(x) for x in labels]
        self.pad, self.pad_to = tokenizer.pad_token_id, pad_to

    def __len__(self):
        return len(self.ids)

    def batches(self, order, size):
        import torch

        for i in range(0, len(order), size):
            rows = order[i : i + size]
            n = self.pad_to or max(len(self.ids[r]) for r in rows)
            ids = torch.tensor([self.ids[r] + [self.pad] * (n - len(self.ids[r])) for r in rows])
            mask = torch.tensor([[1] * len(self.ids[r]) + [0] * (n - len(self.ids[r])) for r in rows])
            yield rows, ids, mask, torch.tensor([self.labels[r] for r in rows])

    def by_length(self):
        return sorted(range(len(self)), key=lambda r: len(self.ids[r]))


def one(a):
    os.environ.update(
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_VERBOSITY="error",
        TOKENIZERS_PARALLELISM="false",
        OMP_NUM_THREADS=str(a.threads),
    )
    import contextlib
    import warnings

    warnings.filterwarnings("ignore")
    import torch
    import transformers
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(a.threads)
    transformers.set_seed(a.seed)
    names = sorted(set(read(a.train)[1]))
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    train, val, test = (
        Data(f, tokenizer, names, a.max_length, a.max_length if a.pad == "max" else 0) for f in (a.train, a.val, a.test)
    )
    model = AutoModelForSequenceClassification.from_pretrained(
        a.model, num_labels=len(names), torch_dtype=torch.float32
    )
    total = sum(p.numel() for p in model.parameters())
    amp = (lambda: torch.autocast("cpu", dtype=torch.bfloat16)) if a.amp == "bf16" else contextlib.nullcontext
    out = dict(
        method=a.method,
        rows=[len(train), len(val), len(test)],
        batch=a.batch,
        max_length=a.max_length,
        amp=a.amp,
        threads=a.threads,
        seed=a.seed,
        torch=torch.__version__,
        transformers=transformers.__version__,
    )

    if a.method in ("logreg", "forest"):
        import numpy as np
        import sklearn
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.linear_model import LogisticRegression

        @torch.inference_mode()
        def features(data):
            x = np.zeros((len(data), model.config.dim), dtype=np.float32)
            for rows, ids, mask, _ in data.batches(data.by_length(), a.batch):
                with amp():
                    x[rows] = (
                        model.distilbert(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0].float().numpy()
                    )
            return x

        model.eval()
        begin = time.perf_counter()
        x = features(train)
        extracted = time.perf_counter()
        head = (
            LogisticRegression(max_iter=1000)
            if a.method == "logreg"
            else RandomForestClassifier(n_estimators=100, random_state=a.seed)
        )
        head.fit(x, train.labels)
        end = time.perf_counter()

        def score(data, x=None):
            return float(head.score(features(data) if x is None else x, data.labels))

        out |= dict(
            train_acc=score(train, x),
            val_acc=score(val),
            test_acc=score(test),
            trainable=0,
            total=total - sum(p.numel() for n, p in model.named_parameters() if not n.startswith("distilbert.")),
            fit_s=round(end - extracted, 3),
            samples_per_s=round(len(train) / (extracted - begin), 2),
            sklearn=sklearn.__version__,
        )
    else:
        if a.method == "last":
            for n, p in model.named_parameters():
                p.requires_grad_(n.startswith(("pre_classifier.", "classifier.")))
        elif a.method == "lora":
            import peft

            model = peft.get_peft_model(
                model,
                peft.LoraConfig(
                    task_type="SEQ_CLS",
                    r=8,
                    lora_alpha=16,
                    target_modules=["q_lin", "v_lin"],
                    modules_to_save=["pre_classifier", "classifier"],
                ),
            )
            out["peft"] = peft.__version__
        trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        rate = dict(RATES, **{k: float(v) for k, v in (x.split("=") for x in a.lr.split(",") if x)})[a.method]
        optimizer = dict(adam=torch.optim.Adam, adamw=torch.optim.AdamW)[a.optimizer]([p for _, p in trained], lr=rate)

        @torch.inference_mode()
        def score(data):
            model.eval()
            right = 0
            for _, ids, mask, labels in data.batches(data.by_length(), a.batch):
                with amp():
                    right += int((model(input_ids=ids, attention_mask=mask).logits.argmax(-1) == labels).sum())
            return right / len(data)

        shuffler = random.Random(a.seed)
        seconds, best, keep = 0.0, -1.0, {}
        for epoch in range(a.epochs):
            begin = time.perf_counter()
            model.train()
            order = list(range(len(train)))
            shuffler.shuffle(order)
            for _, ids, mask, labels in train.batches(order, a.batch):
                optimizer.zero_grad(set_to_none=True)
                with amp():
                    loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
                loss.backward()
                optimizer.step()
            seconds += time.perf_counter() - begin
            acc = score(val)
            print(
                f"{a.method}: epoch {epoch + 1}, last loss {float(loss):.4f}, validation {acc:.4f}",
                file=sys.stderr,
                flush=True,
            )
            if acc > best:
                best, keep = acc, {n: p.detach().clone() for n, p in trained}
                out["best_epoch"] = epoch + 1
        with torch.no_grad():
            for n, p in trained:
                p.copy_(keep[n])
        out |= dict(
            train_acc=score(train),
            val_acc=best,
            test_acc=score(test),
            trainable=sum(p.numel() for _, p in trained),
            total=sum(p.numel() for p in model.parameters()),
            epochs=a.epochs,
            lr=rate,
            optimizer=a.optimizer,
            samples_per_s=round(len(train) * a.epochs / seconds, 2),
        )
        begin, end = 0.0, seconds
    out |= dict(
        seconds=round(end - begin, 3),
        total_s=round(time.perf_counter() - START, 3),
        peak_rss_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    )
    print(json.dumps(out), flush=True)


def table(a):
    """The README's table: gopeft's compare.csv beside what run printed."""
    names = {
        "logreg": "features + logistic regression",
        "forest": "features + random forest",
        "last": "last layers",
        "full": "all layers",
        "lora": "LoRA, rank 8",
    }
    with open(a.gopeft, newline="", encoding="utf-8") as f:
        ours = {r["method"]: r for r in csv.DictReader(f)}
    print("| method | gopeft: val acc | Python: val acc | gopeft: test acc | Python: test acc |")
    print("|---|---|---|---|---|")
    for line in a.python.read_text(encoding="utf-8").splitlines():
        r = json.loads(line)
        o = ours[r["method"]]
        print(
            f"| {names[r['method']]} | {float(o['val_acc']):.3f} | {r['val_acc']:.3f} | {float(o['test_acc']):.3f} | {r['test_acc']:.3f} |"
        )


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="command", required=True)
    s = sub.add_parser("split", help="seeded train, val and test files out of one")
    s.add_argument("--data", type=pathlib.Path, required=True)
    s.add_argument("--rows", type=int, default=1000)
    s.add_argument("--parts", default="700,100,200")
    s.add_argument("--seed", type=int, default=0)
    s.add_argument("--out", type=pathlib.Path, required=True)
    s.set_defaults(do=split)
    for name, do in (("run", run), ("one", one)):
        s = sub.add_parser(name, help="all methods" if do is run else "one method in this process")
        if do is one:
            s.add_argument("method", choices=METHODS)
        s.add_argument("--methods", default=",".join(METHODS))
        s.add_argument("--model", type=pathlib.Path, required=True)
        for part in ("train", "val", "test"):
            s.add_argument(f"--{part}", type=pathlib.Path, required=True)
        s.add_argument("--epochs", type=int, default=3)
        s.add_argument("--batch", type=int, default=12)
        s.add_argument("--max-length", type=int, default=512)
        s.add_argument(
            "--pad",
            choices=["longest", "max"],
            default="longest",
            help="max: every batch to --max-length, as notebooks do",
        )
        s.add_argument("--lr", default="", help="last=1e-3,full=5e-5,lora=5e-4 (these are the defaults)")
        s.add_argument("--optimizer", choices=["adam", "adamw"], default="adam")
        s.add_argument("--amp", choices=["none", "bf16"], default="none")
        s.add_argument("--threads", type=int, default=os.cpu_count())
        s.add_argument("--seed", type=int, default=0)
        s.set_defaults(do=do)
    s = sub.add_parser("table", help="what run printed beside gopeft's compare.csv")
    s.add_argument("--gopeft", type=pathlib.Path, required=True)
    s.add_argument("--python", type=pathlib.Path, required=True)
    s.set_defaults(do=table)
    a = p.parse_args()
    a.do(a)


if __name__ == "__main__":
    main()
