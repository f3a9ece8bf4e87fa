#!/usr/bin/env python3
"""What peft's optimizer of LoRA+ makes of adapters that peft_files.py has made: testdata/loraplus/<adapter>.safetensors.

Three steps of AdamW with lr 1e-2, four times that for B, weight decay 0.1 and peft's own rate for embeddings' LoRA.
"""

import peft_files
import tiny
import torch
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer

ADAPTERS = (("distilbert", "seqcls", "dora"), ("llama", "causal", "lora-embedding"))


def main():
    top = tiny.folder("loraplus")
    for family, task, method in ADAPTERS:
        name = f"{family}-{task}-{method}"
        make, _ = peft_files.FAMILIES[family, task]
        model = PeftModel.from_pretrained(make(), tiny.TESTDATA / "peft" / name, is_trainable=True)
        batch = (
            peft_files.distilbert.batches()["padded"]
            if family == "distilbert"
            else peft_files.llama.batches(task)["right"]
        )
        extra = {} if family == "distilbert" else dict(position_ids=peft_files.llama.positions(batch["attention_mask"]))

        def optimizer(_, model=model):
            return create_loraplus_optimizer(
                model, torch.optim.AdamW, lr=1e-2, loraplus_lr_ratio=4, loraplus_weight_decay=0.1
            )

        def loss(model=model, batch=batch, extra=extra):
            return model(**batch, **extra).loss

        out = tiny.train(
            model, batch, optimizer, every_step=False, loss_of=loss, rename=peft_files.file_name(projection=False)
        )
        tiny.store(top / f"{name}.safetensors", {k: v for k, v in out.items() if not k.startswith("grad.")})
    tiny.finish(top)


if __name__ == "__main__":
    main()
