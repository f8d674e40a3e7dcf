"""Dropout in fine-tuning, more of it in the experts."""

from configs.ablations import scales
from configs.ablations.arms import fine_tuning, pretraining

PAPER = "Fedus et al. 2021, arXiv:2101.03961, Table 4"
PUBLISHED = {
    "columns": ("model", "GLUE", "CNNDM", "SQuAD", "SuperGLUE"),
    "rows": (
        ("T5-Base, 0.1", 82.9, 19.6, 83.5, 72.4),
        ("Switch, 0.1", 84.7, 19.1, 83.7, 73.0),
        ("Switch, 0.2", 84.4, 19.2, 83.9, 73.2),
        ("Switch, 0.3", 83.9, 19.6, 83.4, 70.7),
        ("Switch, 0.1, experts 0.4", 85.2, 19.6, 83.7, 73.0),
    ),
}
BASELINE = "dropout_0.1"
SEEDS = {"cpu": 6}
SLICE, DEVICES = "32 TPU v3 cores", 32

get_base = scales.encoder_decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    tuned = {**fine_tuning(config, scale, "facts", 250), "init_from": "@pretrained"}
    return {
        "pretrained": pretraining(scale),
        **{f"dropout_{r}": {**tuned, "model.dropout": r} for r in (0.1, 0.2, 0.3)},
        "experts_0.4": {**tuned, "model.dropout": 0.1, "moe.expert_dropout": 0.4},
    }


CLAIMS = {
    "expert_dropout_helps": {
        "statement": "On a small task 0.1, with 0.4 in the experts, beats 0.1 everywhere.",
        "published": "GLUE 85.2 against 84.7, SuperGLUE 73.0 against 73.0",
        "test": "difference",
        "contrast": {"experts_0.4": 1, "dropout_0.1": -1},
        "direction": "lower",
        "minimum": 0.01,
        **scales.WITH_TASKS,
        "note": "Held-out loss instead of the task's score.",
    },
    "more_dropout_hurts": {
        "statement": "More dropout everywhere is worse: 0.3 against 0.1.",
        "published": "GLUE 83.9 against 84.7, SuperGLUE 70.7 against 73.0",
        "test": "difference",
        "contrast": {"dropout_0.3": 1, "dropout_0.1": -1},
        "direction": "higher",
        "minimum": 0.01,
        **scales.WITH_TASKS,
    },
}
