"""Learning rate and batch in fine-tuning, of sparse and of dense models."""

from configs.ablations import scales
from configs.ablations.arms import dense_pattern, other_objective

PAPER = "Zoph et al. 2022, arXiv:2202.08906, Figure 6 and Table 20"
PUBLISHED = {
    "columns": ("learning rate", "batch", "dense", "sparse"),
    "rows": (
        ("1e-3", "1 M tokens", 84.8, 86.9),
        ("1e-3", "65 k tokens", 83.7, 85.8),
        ("1e-4", "1 M tokens", 84.0, 84.3),
        ("1e-4", "65 k tokens", 84.9, 85.6),
    ),
}
BASELINE = "sparse_high"
SEEDS = {"cpu": 6}
SLICE, DEVICES = "a TPU slice for ST-MoE-L", 32

get_base = scales.encoder_decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`; all see as many examples."""
    arms = {}
    for model, own in (("dense", dense_pattern(config)), ("sparse", {})):
        tuned = {
            **own,
            **other_objective(config, scale),
            "init_from": f"@{model}_pretrained",
            "moe.group_size": 0,  # a row: the same whatever the batch is
        }
        steps, rows = tuned["train.num_steps"], config.train.batch_size
        smaller = {
            "train.batch_size": max(1, rows // 4),
            "train.num_steps": 4 * steps,
            "optimizer.decay_steps": 4 * steps,
        }
        arms[f"{model}_pretrained"] = own
        arms[f"{model}_high"] = tuned
        arms[f"{model}_low"] = {
            **tuned,
            "optimizer.learning_rate": tuned["optimizer.learning_rate"] / 10,
        }
        arms[f"{model}_small_batch"] = {**tuned, **smaller}
    return arms


def _more_of(change):
    """What a change does to the sparse model, less what it does to the dense one."""
    return {
        f"sparse_{change}": 1,
        "sparse_high": -1,
        f"dense_{change}": -1,
        "dense_high": 1,
    }


CLAIMS = {
    "high_rate": {
        "statement": "A low learning rate costs a sparse model more than a dense one.",
        "published": "86.9 to 84.3 and 84.8 to 84.0 at the largest batch",
        "test": "difference",
        "contrast": _more_of("low"),
        "direction": "higher",
        "minimum": 0.01,
        "settings": scales.SMALL,
        "note": "Held-out loss instead of SuperGLUE.",
    },
    "small_batch": {
        "statement": "A small batch does a sparse model more good than a dense one.",
        "published": "claimed; in Table 20 the best sparse cell has the largest batch",
        "test": "difference",
        "contrast": _more_of("small_batch"),
        "direction": "lower",
        "minimum": 0.01,
        "settings": scales.SMALL,
        "note": "Held-out loss instead of SuperGLUE; as many examples, 4 times the steps.",
    },
}
