"""Optimizer steps of transformers' Trainer on DistilBERT-base's shape, in the processes that torchrun starts (DDP on Gloo).

    torchrun --nproc-per-node 2 peer_ddp.py --method lora|full --batch 12 --seq 128 --steps 8 --amp none|bf16

The batch is that of all processes together. The first one prints a JSON object.
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time

import torch
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


class Rows(torch.utils.data.Dataset):
    def __init__(self, n, seq, vocab):
        g = torch.Generator().manual_seed(0)
        self.ids = torch.randint(1000, vocab, (n, seq), generator=g)
        self.labels = torch.randint(0, 2, (n,), generator=g)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i):
        return {"input_ids": self.ids[i], "attention_mask": torch.ones_like(self.ids[i]), "labels": self.labels[i]}


class Clock(TrainerCallback):
    def __init__(self):
        self.steps = []

    def on_step_begin(self, *_, **__):
        self.begun = time.perf_counter()

    def on_step_end(self, *_, **__):
        self.steps.append(time.perf_counter() - self.begun)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--method", choices=["lora", "full"], default="lora")
    p.add_argument("--batch", type=int, default=12)
    p.add_argument("--seq", type=int, default=128)
    p.add_argument("--steps", type=int, default=8)
    p.add_argument("--warmup", type=int, default=1)
    p.add_argument("--amp", choices=["none", "bf16"], default="none")
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    config = DistilBertConfig(num_labels=2)
    model = DistilBertForSequenceClassification(config)
    if a.method == "lora":
        import peft

        model = peft.get_peft_model(
            model,
            peft.LoraConfig(
                task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.1, target_modules=["q_lin", "v_lin"]
            ),
        )
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if a.batch % size:
        p.error(f"--batch {a.batch} does not divide by {size} processes")
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            out,
            per_device_train_batch_size=a.batch // size,
            max_steps=a.steps,
            learning_rate=1e-4,
            use_cpu=True,
            bf16=a.amp == "bf16",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            ddp_backend="gloo" if size > 1 else None,
            ddp_find_unused_parameters=False,
        )
        trainer = Trainer(
            model, arguments, train_dataset=Rows(a.batch * a.steps, a.seq, config.vocab_size), callbacks=[clock]
        )
        trainer.train()
    if int(os.environ.get("RANK", "0")) == 0:
        counted = clock.steps[a.warmup :]
        print(
            json.dumps(
                {
                    "step_s": {"min": min(counted), "median": statistics.median(counted), "max": max(counted)},
                    "samples_per_s": a.batch * len(counted) / sum(counted),
                    "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                    "torch": torch.__version__,
                }
            )
        )


if __name__ == "__main__":
    main()
