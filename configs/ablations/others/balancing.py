"""Balancing losses of the first sparsely-gated layer."""

from configs.ablations import scales
from configs.overrides import router

PAPER = "Shazeer et al. 2017, arXiv:1701.06538, Table 6"
PUBLISHED = {
    "columns": ("w_importance", "w_load", "perplexity", "max/mean load"),
    "rows": (
        (0, 0, 39.8, 17.80),
        (0.2, 0, 35.6, 1.47),
        (0, 0.2, 35.7, 1.15),
        (0.1, 0.1, 35.6, 1.14),
        (1, 1, 35.7, 1.07),
    ),
}
BASELINE = "none"
SLICE, DEVICES = "16 GPUs", 16

get_base = scales.decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    del config, scale
    noisy = {**router("noisy_topk", 2), "loss.load_balance": 0.0}
    return {
        "none": noisy,
        "both": {**noisy, "loss.importance": 0.1, "loss.load": 0.1},
    }


CLAIMS = {
    "load": {
        "statement": "The two losses balance the load.",
        "published": "max/mean load 1.14 instead of 17.80",
        "test": "difference",
        "measure": "train/router/max_vio_global",
        "contrast": {"both": 1, "none": -1},
        "direction": "lower",
        "minimum": 0.5,
        "settings": scales.SMALL,
    },
    "quality": {
        "statement": "The two losses are better than none.",
        "published": "perplexity 35.6 instead of 39.8",
        "test": "difference",
        "contrast": {"both": 1, "none": -1},
        "direction": "lower",
        "minimum": 0.01,
        "settings": scales.SMALL,
    },
}
