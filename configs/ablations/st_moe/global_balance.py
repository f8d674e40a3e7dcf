"""The balancing loss of a group, or of all groups together."""

from configs.ablations import scales

PAPER = "Zoph et al. 2022, arXiv:2202.08906"
BASELINE = "group"
SLICE, DEVICES = "a TPU slice for ST-MoE-L", 32

get_base = scales.st_moe_decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`: groups of a quarter of the usual size."""
    del scale
    small = {"moe.group_size": config.moe.group_size // 4}
    return {
        "group": small,
        "global": {**small, "loss.load_balance_scope": "global"},
    }


CLAIMS = {
    "worse": {
        "statement": "A balancing loss over all groups is worse than one for each group.",
        "published": "worse; no numbers",
        "test": "difference",
        "contrast": {"global": 1, "group": -1},
        "direction": "higher",
        "minimum": 0.002,
        "settings": scales.ALL,
    },
    "drops_more": {
        "statement": "Balanced over all groups only, a group drops more tokens.",
        "published": "not in the paper: capacity is a group's",
        "test": "difference",
        "measure": "train/router/dropped",
        "contrast": {"global": 1, "group": -1},
        "direction": "higher",
        "minimum": 0.01,
        "settings": scales.ALL,
    },
}
