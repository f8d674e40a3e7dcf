"""Sparse and dense models fine-tuned on a small and on a large task."""

from configs.ablations import scales
from configs.ablations.arms import dense_pattern, fine_tuning, pretraining

PAPER = "Zoph et al. 2022, arXiv:2202.08906, Figure 3"
PUBLISHED = {
    "columns": ("task", "training examples", "what is seen"),
    "rows": (
        ("CommitmentBank", 250, "sparse fits all and is worse on held-out examples"),
        ("ReCoRD", 138_000, "sparse is better on held-out examples"),
    ),
}
BASELINE = "dense_small"
SEEDS = {"cpu": 6}
SLICE, DEVICES = "a TPU slice for ST-MoE-L", 32

# Training examples of the two tasks.
SMALL, LARGE = 250, 20_000

get_base = scales.encoder_decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    arms = {}
    for model, own in (("dense", dense_pattern(config)), ("sparse", {})):
        arms[f"{model}_pretrained"] = {**own, **pretraining(scale)}
        for size, examples in (("small", SMALL), ("large", LARGE)):
            arms[f"{model}_{size}"] = {
                **own,
                **fine_tuning(config, scale, "facts", examples),
                "init_from": f"@{model}_pretrained",
            }
    return arms


def _sparse_less_dense(size):
    return {f"sparse_{size}": 1, f"dense_{size}": -1}


CLAIMS = {
    "fits_faster": {
        "statement": "A sparse model fits a small training set sooner.",
        "published": "perfect on CB's training set",
        "test": "difference",
        "measure": "train/loss/cross_entropy",
        "contrast": _sparse_less_dense("small"),
        "direction": "lower",
        "minimum": 0.01,
        **scales.WITH_TASKS,
    },
    "overfits_small_tasks": {
        "statement": "On a small task a sparse model is worse on held-out examples.",
        "published": "worse on CB",
        "test": "difference",
        "contrast": _sparse_less_dense("small"),
        "direction": "higher",
        "minimum": 0.01,
        **scales.WITH_TASKS,
        "note": "Held-out loss instead of accuracy.",
    },
    "wins_large_tasks": {
        "statement": "On a large task a sparse model is better on held-out examples.",
        "published": "better on ReCoRD",
        "test": "difference",
        "contrast": _sparse_less_dense("large"),
        "direction": "lower",
        "minimum": 0.01,
        **scales.WITH_TASKS,
        "note": "Held-out loss instead of accuracy.",
    },
}
