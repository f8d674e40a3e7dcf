"""Dropped tokens in fine-tuning."""

from configs.ablations import scales
from configs.ablations.arms import other_objective

PAPER = "Zoph et al. 2022, arXiv:2202.08906, Table 5"
PUBLISHED = {
    "columns": (
        "train / eval capacity factor",
        "auxiliary loss",
        "dropped",
        "SuperGLUE",
    ),
    "rows": (
        (".75 / 2", "yes", "10.6 %", 86.5),
        ("1.25 / 2", "yes", ".3 %", 86.7),
        ("2 / 3", "yes", "0", 85.8),
        ("4 / 5", "yes", "0", 86.4),
        (".75 / 2", "no", "15.6 %", 85.7),
        ("1.25 / 2", "no", "2.9 %", 85.8),
        ("2 / 3", "no", ".4 %", 85.9),
        ("4 / 5", "no", "0", 86.4),
    ),
}
BASELINE = "factor_2"
SEEDS = {"cpu": 6}
SLICE, DEVICES = "a TPU slice for ST-MoE-L", 32

get_base = scales.encoder_decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    tuned = {**other_objective(config, scale), "init_from": "@pretrained"}

    def at(factor):
        return {**tuned, "moe.train_capacity_factor": factor}

    return {
        "pretrained": {},
        "factor_2": at(2.0),
        "factor_0.75": at(0.75),
        "factor_0.5": at(0.5),
        "factor_0.75_no_loss": {**at(0.75), "loss.load_balance": 0.0},
    }


CLAIMS = {
    "drops_do_no_harm": {
        "statement": "Fine-tuning does not suffer from a capacity factor of 0.75.",
        "published": "86.5 against 85.8 and 86.4",
        "test": "equivalence",
        "contrast": {"factor_0.75": 1, "factor_2": -1},
        "margin": 0.02,
        "settings": scales.SMALL,
        "note": (
            "Held-out loss instead of the task's score. 10 to 15 % are dropped in the "
            "paper; without padding a factor of 0.75 drops a fourth at least."
        ),
    },
    "half_the_slots_hurt": {
        "statement": "With slots for half of the tokens fine-tuning suffers.",
        "published": "not in the paper, whose smallest factor is .75",
        "test": "difference",
        "contrast": {"factor_0.5": 1, "factor_2": -1},
        "direction": "higher",
        "minimum": 0.01,
        "settings": scales.SMALL,
    },
    "balancing_helps": {
        "statement": "The balancing loss helps in fine-tuning where slots are few.",
        "published": "86.5 against 85.7 at .75",
        "test": "difference",
        "contrast": {"factor_0.75": 1, "factor_0.75_no_loss": -1},
        "direction": "lower",
        "minimum": 0.005,
        "settings": scales.SMALL,
    },
}
