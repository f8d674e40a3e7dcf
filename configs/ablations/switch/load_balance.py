"""The weight of the load-balancing loss."""

from configs.ablations import scales

PAPER = "Fedus et al. 2021, arXiv:2101.03961, section 2.2"
BASELINE = "weight_0.01"
SLICE, DEVICES = "32 TPU v3 cores", 32

get_base = scales.decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    del config, scale
    weights = (0.01, 0.0, 1e-4, 1e-3, 0.1, 1.0)
    return {f"weight_{weight:g}": {"loss.load_balance": weight} for weight in weights}


_MAX_VIO = "train/router/max_vio_global"

CLAIMS = {
    "balances": {
        "statement": "A weight of 0.01 balances the load; without the loss it is not.",
        "published": "1e-2 balanced load quickly",
        "test": "difference",
        "measure": _MAX_VIO,
        "contrast": {"weight_0.01": 1, "weight_0": -1},
        "direction": "lower",
        "minimum": 0.5,
        "settings": scales.ALL,
        "note": "Largest load over the mean load, minus 1, late in training.",
    },
    "fewer_drops": {
        "statement": "The loss keeps dropped tokens few: without it far more are dropped.",
        "published": "typically below 1 % are dropped",
        "test": "difference",
        "measure": "train/router/dropped",
        "contrast": {"weight_0": 1, "weight_0.01": -1},
        "direction": "higher",
        "minimum": 0.05,
        "settings": scales.ALL,
    },
    "does_not_interfere": {
        "statement": "A weight of 0.01 costs no quality against 0.001.",
        "published": "1e-2 did not interfere with training loss",
        "test": "equivalence",
        "contrast": {"weight_0.01": 1, "weight_0.001": -1},
        "margin": 0.02,
        "settings": scales.ALL,
    },
    "too_much_hurts": {
        "statement": "A weight of 1 is worse than 0.01.",
        "published": "the sweep ends at 1e-1; 1e-2 was chosen",
        "test": "difference",
        "contrast": {"weight_1": 1, "weight_0.01": -1},
        "direction": "higher",
        "minimum": 0.005,
        "settings": scales.ALL,
    },
}
