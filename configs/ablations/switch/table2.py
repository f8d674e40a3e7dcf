"""Selective precision: the router in float32, the rest in bfloat16."""

from configs.ablations import scales

PAPER = "Fedus et al. 2021, arXiv:2101.03961, Table 2"
PUBLISHED = {
    "columns": ("precision", "neg. log perplexity", "examples/s"),
    "rows": (
        ("float32", -1.718, 1160),
        ("bfloat16", "-3.780 (diverged)", 1390),
        ("selective", -1.716, 1390),
    ),
}
BASELINE = "float32"
SLICE, DEVICES = "32 TPU v3 cores", 32

get_base = scales.decoder_of_32


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    del config, scale
    bfloat16 = {"model.dtype": "bfloat16"}
    return {
        "float32": {"model.dtype": "float32"},
        "selective": bfloat16,
        "bfloat16": {**bfloat16, "moe.router_dtype": "bfloat16"},
    }


CLAIMS = {
    "selective_costs_nothing": {
        "statement": "bfloat16 with a float32 router is as good as float32.",
        "published": "-1.716 against -1.718",
        "test": "equivalence",
        "contrast": {"selective": 1, "float32": -1},
        "margin": 0.01,
        "settings": scales.ALL,
    },
    "bfloat16_router_diverges": {
        "statement": "With a bfloat16 router training diverges.",
        "published": "-3.780",
        "test": "none",
        "untestable": {"*": "not seen below the paper's size; the mechanism is exact"},
    },
    "bfloat16_moves_choices": {
        "statement": "bfloat16 rounds large router logits so that the choice changes.",
        "published": "the worked example of Zoph et al. 2022: 128.5 becomes 128",
        "test": "exact",
        "check": "bfloat16_moves_router_logits",
        "settings": dict.fromkeys(("smoke", "cpu", "gpu", "paper"), "exact"),
    },
}
