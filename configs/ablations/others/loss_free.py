"""Balancing by a bias, without a loss."""

from configs.ablations import scales
from configs.overrides import router

PAPER = "Wang et al. 2024, arXiv:2408.15664, Table 2"
PUBLISHED = {
    "columns": ("model", "method", "perplexity", "MaxVio"),
    "rows": (
        ("1 B", "loss", 9.56, 0.72),
        ("1 B", "bias", 9.50, 0.04),
        ("3 B", "loss", 7.97, 0.52),
        ("3 B", "bias", 7.92, 0.04),
    ),
}
BASELINE = "loss"
SLICE, DEVICES = "64 GPUs", 64

get_base = scales.decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    del config, scale
    frozen = {**router("loss_free", 2), "moe.bias_update_rate": 0.0}
    return {
        "loss": {**frozen, "loss.load_balance": 0.01},
        "bias": {**frozen, "loss.load_balance": 0.0, "moe.bias_update_rate": 0.01},
    }


CLAIMS = {
    "balance": {
        "statement": "The bias balances better than the loss does.",
        "published": "MaxVio 0.04 instead of 0.72",
        "test": "difference",
        "measure": "train/router/max_vio_global",
        "contrast": {"bias": 1, "loss": -1},
        "direction": "lower",
        "minimum": 0.05,
        "settings": scales.SMALL,
        "note": (
            "The bias moves by 0.01 a step, not the paper's 0.001, at which it could "
            "move by 0.25 in all of these steps; the loss has the weight 0.01, not the "
            "paper's 0.001."
        ),
    },
    "quality": {
        "statement": "The bias costs no quality.",
        "published": "perplexity 9.50 instead of 9.56",
        "test": "equivalence",
        "contrast": {"bias": 1, "loss": -1},
        "margin": 0.01,
        "settings": scales.SMALL,
    },
}
