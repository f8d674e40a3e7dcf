"""Batch prioritized routing, in the encoder."""

from configs.ablations import scales

PAPER = "Zoph et al. 2022, arXiv:2202.08906, Table 18"
PUBLISHED = {
    "columns": ("train / eval capacity factor", "top-1, priority", "top-1, Table 8"),
    "rows": (
        (".5 / .5", -1.433, "-"),
        (".75 / .75", -1.409, -1.428),
        ("1 / 1", -1.386, -1.397),
        ("1.25 / 1.25", -1.376, -1.378),
    ),
}
BASELINE = "position_0.5"
SLICE, DEVICES = "a TPU slice for ST-MoE-L", 32

get_base = scales.st_moe_encoder_decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    del scale
    arms = {}
    for factor in (0.5, 1.25):
        for name, order in (
            ("position", "token_major"),
            ("priority", "batch_priority"),
        ):
            arms[f"{name}_{factor}"] = {
                "moe.encoder": {
                    **config.moe.encoder.to_dict(),
                    "allocation": order,
                    "train_capacity_factor": factor,
                    "eval_capacity_factor": factor,
                }
            }
    return arms


CLAIMS = {
    "helps_when_slots_are_few": {
        "statement": "With slots for half of the tokens, priority beats position.",
        "published": "-1.409 against -1.428 at .75",
        "test": "difference",
        "contrast": {"priority_0.5": 1, "position_0.5": -1},
        "direction": "lower",
        "minimum": 0.005,
        "settings": scales.ALL,
        # Where so few slots cost nothing, there is nothing to be saved.
        "requires": (
            {"contrast": {"position_0.5": 1, "position_1.25": -1}, "above": 0.01},
        ),
        "note": "A factor of .5 in the encoder alone; the paper has no pair there.",
    },
    "nothing_at_1.25": {
        "statement": "At a capacity factor of 1.25 priority makes no difference.",
        "published": "-1.376 against -1.378",
        "test": "equivalence",
        "contrast": {"priority_1.25": 1, "position_1.25": -1},
        "margin": 0.01,
        "settings": scales.ALL,
    },
    "leaks_in_a_decoder": {
        "statement": "In a decoder, priority lets later tokens change earlier ones.",
        "published": "why the paper has it in the encoder alone",
        "test": "exact",
        "check": "priority_sees_the_future",
        "settings": scales.EXACT,
    },
}
