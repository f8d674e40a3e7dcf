"""More experts at equal FLOPs for a token.

Each token meets one expert, whatever their number is.
"""

from configs.ablations import scales
from configs.ablations.arms import dense_pattern

PAPER = "Fedus et al. 2021, arXiv:2101.03961, Figures 1, 4 and 12"
PUBLISHED = {
    "columns": (
        "experts",
        "parameters",
        "neg. log perplexity of the teachers, Table 7",
    ),
    "rows": (
        ("dense", "0.223 B", -1.636),
        (16, "1.1 B", -1.505),
        (32, "2.0 B", -1.474),
        (64, "3.8 B", -1.444),
        (128, "7.4 B", -1.432),
        (256, "14.7 B", -1.427),
    ),
}
BASELINE = "dense"
TUNED = True
SLICE, DEVICES = "32 TPU v3 cores", 32

get_base = scales.decoder

COUNTS = (2, 4, 8, 16)


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    counts = COUNTS if scale in ("smoke", "cpu") else (*COUNTS, 32)
    return {
        "dense": dense_pattern(config),
        **{f"experts_{count}": {"moe.num_experts": count} for count in counts},
    }


def _beats(count, minimum):
    return {
        "statement": f"{count} experts are better than the dense twin of equal FLOPs.",
        "published": "2, 4 and 8 experts already beat T5-Base (Figure 12)",
        "test": "difference",
        "contrast": {f"experts_{count}": 1, "dense": -1},
        "direction": "lower",
        "minimum": minimum,
        "settings": scales.BUILT_IN,
    }


CLAIMS = {
    "two_experts": _beats(2, 0.005),
    "four_experts": _beats(4, 0.01),
    "eight_experts": _beats(8, 0.01),
    "more_is_better": {
        "statement": "Over 2 to 16 experts the loss falls with their number.",
        "published": "it falls steadily from 2 to 256 experts (Figure 4)",
        "test": "difference",
        # The slope of a line through the four arms, per doubling.
        "contrast": {
            "experts_2": -0.3,
            "experts_4": -0.1,
            "experts_8": 0.1,
            "experts_16": 0.3,
        },
        "direction": "lower",
        "minimum": 0.003,
        "settings": scales.BUILT_IN,
        "note": "The effect is the slope in nats per doubling of the experts.",
    },
    "diminishing": {
        "statement": "The last doubling of the experts gains less than the first.",
        "published": "+.031, +.030, +.012, +.005 from 16 to 256 experts (Table 7)",
        "test": "difference",
        # The gain of 2 to 4 less that of 8 to 16.
        "contrast": {
            "experts_2": 1,
            "experts_4": -1,
            "experts_8": -1,
            "experts_16": 1,
        },
        "direction": "higher",
        "minimum": 0.003,
        "settings": scales.ALL,
    },
    "seven_times_faster": {
        "statement": "64 experts reach the dense model's loss in a seventh of its steps.",
        "published": "T5-Base's loss of step 450k at step 60k",
        "test": "none",
        "untestable": {"*": "a factor of the paper's size and length, not of these"},
    },
}
