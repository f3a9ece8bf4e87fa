#!/usr/bin/env python3
"""Which modules peft gives a LoRA, with which rank and alpha, for the forms that its settings take.

Writes testdata/peft_targets.json: per case the base model, an adapter_config.json and {module: [rank, alpha]}.
"""

import copy
import functools
import json

import distilbert
import llama
import tiny
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer

LORA = dict(r=4, lora_alpha=16)
BERT = functools.partial(dict, modules_to_save=["pre_classifier", "classifier"])
BASES = {"distilbert/tiny": (distilbert.base, "SEQ_CLS"), "llama/base": (llama.base, "CAUSAL_LM")}

CASES = {
    "distilbert/tiny": {
        "list": BERT(target_modules=["q_lin", "lin2"]),
        "ends of names": BERT(target_modules=["attention.q_lin", "1.ffn.lin1"]),
        "expression": BERT(target_modules=r".*\.[01]\.attention\.(q|k)_lin"),
        "expression of a part": BERT(target_modules=r".*layer\.1.*lin.*"),
        "all": BERT(target_modules="all-linear"),
        "all in capitals": BERT(target_modules="All-Linear"),
        "layers": BERT(target_modules=["q_lin", "v_lin"], layers_to_transform=[0, 2]),
        "one layer": BERT(target_modules=["q_lin", "v_lin"], layers_to_transform=1),
        "no layers": BERT(target_modules=["q_lin"], layers_to_transform=[]),
        "layers and a full name": BERT(
            target_modules=["q_lin", "distilbert.transformer.layer.2.ffn.lin1"], layers_to_transform=[0, 1]
        ),
        "pattern": BERT(target_modules=["q_lin"], layers_to_transform=[1], layers_pattern="layer"),
        "patterns": BERT(target_modules=["q_lin"], layers_to_transform=[1, 2], layers_pattern=["blocks", "lay.r"]),
        "empty pattern": BERT(target_modules=["q_lin"], layers_to_transform=[1, 2], layers_pattern=[]),
        "excluded": BERT(
            target_modules=["q_lin", "k_lin"],
            exclude_modules=["0.attention.k_lin", "distilbert.transformer.layer.1.attention.q_lin"],
        ),
        "excluded by expression": BERT(target_modules="all-linear", exclude_modules=r".*\.(attention|layer\.2)\..*"),
        "saved whole": dict(
            target_modules=["q_lin", "lin2"], modules_to_save=["pre_classifier", "classifier", "layer.1.ffn"]
        ),
        "ranks": BERT(
            target_modules=["q_lin", "v_lin"],
            rank_pattern={"q_lin": 2, "1.attention.q_lin": 3, "layer.0.attention.v_lin": 1},
        ),
        "ranks turned round": BERT(
            target_modules=["q_lin", "v_lin"],
            rank_pattern={"layer.0.attention.v_lin": 1, "1.attention.q_lin": 3, "q_lin": 2},
        ),
        "alphas": BERT(target_modules=["q_lin", "v_lin"], alpha_pattern={".*lin": 5, "q_lin": 7}),
        "alphas turned round": BERT(target_modules=["q_lin", "v_lin"], alpha_pattern={"q_lin": 7, ".*lin": 5}),
        "ranks and alphas by different names": BERT(
            target_modules=["q_lin", "v_lin"],
            rank_pattern={"q_lin": 2},
            alpha_pattern={"layer.1.attention.q_lin": 7, "v_lin": 3},
        ),
        "anchored": BERT(
            target_modules=["q_lin"],
            rank_pattern={"^distilbert.transformer.layer.0.attention.q_lin": 2, "in": 1, "n": 3},
        ),
        "alternatives": BERT(target_modules=["q_lin", "v_lin"], rank_pattern={"q_lin|layer.2.attention.v_lin": 2}),
    },
    "llama/base": {
        "list": dict(target_modules=["q_proj", "down_proj"]),
        "expression": dict(target_modules=r"model\.layers\.\d+\.(self_attn|mlp)\.(q|up)_proj"),
        "all": dict(target_modules="all-linear"),
        "layers": dict(target_modules=["v_proj"], layers_to_transform=[2]),
        "pattern": dict(target_modules=["v_proj"], layers_to_transform=[0, 2], layers_pattern="layers"),
        "excluded": dict(target_modules="all-linear", exclude_modules=["mlp.gate_proj", "k_proj"]),
        "ranks": dict(
            target_modules="all-linear",
            rank_pattern={"mlp.*": 1, "layers.1.*": 2, "q_proj": 3},
            alpha_pattern={"layers.1.*": 8, "o_proj": 9},
        ),
        "ranks turned round": dict(
            target_modules="all-linear",
            rank_pattern={"q_proj": 3, "layers.1.*": 2, "mlp.*": 1},
            alpha_pattern={"o_proj": 9, "layers.1.*": 8},
        ),
    },
}


def case(base, name, settings):
    make, task = BASES[base]
    model = get_peft_model(make(), LoraConfig(task_type=task, **LORA, **copy.deepcopy(settings)))
    modules = {
        n.removeprefix("base_model.model."): [m.r["default"], m.lora_alpha["default"]]
        for n, m in model.named_modules()
        if isinstance(m, LoraLayer)
    }
    return dict(
        name=name, base=base, config=dict(peft_type="LORA", task_type=task, **LORA, **settings), modules=modules
    )


if __name__ == "__main__":
    lines = [
        json.dumps(case(base, name, settings)) for base, cases in CASES.items() for name, settings in cases.items()
    ]
    (tiny.TESTDATA / "peft_targets.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
