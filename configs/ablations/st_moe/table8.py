"""Capacity factors in training and in evaluation, by top-n."""

from configs.ablations import scales
from configs.overrides import router

PAPER = "Zoph et al. 2022, arXiv:2202.08906, Table 8"
PUBLISHED = {
    "columns": ("train / eval capacity factor", "top-1", "top-2", "top-3"),
    "rows": (
        (".75 / .75", -1.428, -1.424, "-"),
        (".75 / 2", -1.404, -1.402, "-"),
        ("1 / 1", -1.397, -1.392, "-"),
        ("1 / 2", -1.384, -1.378, "-"),
        ("1.25 / 1.25", -1.378, -1.375, "-"),
        ("1.25 / 2", -1.373, -1.369, "-"),
        ("2 / 2", "-", -1.360, -1.360),
        ("2 / 3", "-", -1.359, -1.356),
    ),
}
BASELINE = "top1_1.25"
SLICE, DEVICES = "a TPU slice for ST-MoE-L", 32

get_base = scales.st_moe_decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`; `_at_2`: the same runs, factor 2."""
    del config

    def at(factor):
        return {"moe.eval_capacity_factor": factor}

    arms = {}
    for factor in (1.25, 0.75, 1.0):
        arms[f"top1_{factor}"] = {
            **router("switch", 1),
            **at(factor),
            "moe.train_capacity_factor": factor,
        }
    for factor in (0.75, 1.0, 1.25):
        trained = f"top1_{factor}"
        arms[f"{trained}_at_2"] = {
            **arms[trained],
            **at(2.0),
            "evaluates": trained,
        }
    arms["top2_1.25"] = {
        # At scale paper the second choice is ST-MoE-L's own, by a threshold.
        **(router("topk", 2) if scale != "paper" else {}),
        **at(1.25),
        "moe.capacity_times_k": False,
        "moe.train_capacity_factor": 1.25,
    }
    return arms


def _eval_helps(factor, published, minimum):
    return {
        "statement": f"Trained at {factor}, a model is better evaluated at 2.",
        "published": published,
        "test": "difference",
        "contrast": {f"top1_{factor}_at_2": 1, f"top1_{factor}": -1},
        "direction": "lower",
        "minimum": minimum,
        "settings": scales.ALL,
        "note": "The same checkpoints twice.",
    }


CLAIMS = {
    "train_capacity_helps": {
        "statement": "Training at a capacity factor of 1.25 is better than at 0.75.",
        "published": "-1.373 against -1.404, both evaluated at 2",
        "test": "difference",
        "contrast": {"top1_1.25_at_2": 1, "top1_0.75_at_2": -1},
        "direction": "lower",
        "minimum": 0.005,
        "settings": scales.ALL,
    },
    "eval_capacity_helps_0.75": _eval_helps(0.75, "-1.404 against -1.428", 0.005),
    "eval_capacity_helps_1.0": _eval_helps(1.0, "-1.384 against -1.397", 0.002),
    "eval_capacity_helps_1.25": _eval_helps(1.25, "-1.373 against -1.378", 0.001),
    "top2_beats_top1": {
        "statement": "Top-2 is better than top-1 at the same capacity factor.",
        "published": "-1.375 against -1.378 at 1.25",
        "test": "difference",
        "contrast": {"top2_1.25": 1, "top1_1.25": -1},
        "direction": "lower",
        "minimum": 0.003,
        "settings": scales.ALL,
        "note": "As many slots for both: the paper's capacity is not multiplied by K.",
    },
}
