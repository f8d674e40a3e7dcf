"""The router z-loss: its weight, the logits and the quality."""

from configs.ablations import scales

PAPER = "Zoph et al. 2022, arXiv:2202.08906, section 3 and Figure 7"
BASELINE = "weight_0"
SLICE, DEVICES = "a TPU slice for ST-MoE-L", 32

get_base = scales.st_moe_decoder

# The paper chose the weight in stability studies of the size of T5-XL.
_SETTINGS = {**scales.SMALL, "paper": "scaled down"}


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    del config, scale
    weights = (0.0, 1e-4, 1e-3, 1e-2, 0.1)
    return {f"weight_{weight:g}": {"loss.router_z": weight} for weight in weights}


CLAIMS = {
    "shrinks_logits": {
        "statement": "A weight of 0.001 shrinks the router's logits.",
        "published": "at 1e-2 and above the loss itself goes to nearly 0 (Figure 7)",
        "test": "difference",
        "measure": "loss/router_z",
        "contrast": {"weight_0.001": 1, "weight_0": -1},
        "direction": "lower",
        "minimum": 1.0,
        "settings": _SETTINGS,
        "note": "The mean squared log-partition, whatever its weight is.",
    },
    "more_shrinks_more": {
        "statement": "The larger the weight, the smaller are the logits.",
        "published": "monotone in Figure 7",
        "test": "order",
        "measure": "loss/router_z",
        "order": ("weight_0", "weight_0.0001", "weight_0.001", "weight_0.01"),
        "direction": "lower",
        "minimum": 0.0,
        "settings": _SETTINGS,
    },
    "costs_no_quality": {
        "statement": "A weight of 0.001 costs no quality.",
        "published": "-1.741 against -1.755, better if anything (Table 4)",
        "test": "equivalence",
        "contrast": {"weight_0.001": 1, "weight_0": -1},
        "margin": 0.01,
        "settings": _SETTINGS,
    },
    "too_much_hurts": {
        "statement": "A weight of 0.1 is worse than 0.001.",
        "published": "0.001 was chosen for its quality",
        "test": "difference",
        "contrast": {"weight_0.1": 1, "weight_0.001": -1},
        "direction": "higher",
        "minimum": 0.005,
        "settings": _SETTINGS,
    },
}
