"""How the router explores."""

from configs.ablations import scales
from configs.overrides import router

PAPER = "Fedus et al. 2021, arXiv:2101.03961, Table 11"
PUBLISHED = {
    "columns": ("policy", "neg. log perplexity"),
    "rows": (
        ("argmax", -1.471),
        ("sample softmax", -1.570),
        ("input dropout", -1.480),
        ("input jitter", -1.468),
    ),
}
BASELINE = "argmax"
TUNED = True
SLICE, DEVICES = "32 TPU v3 cores", 32

get_base = scales.decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    del config, scale
    calm = {"moe.jitter": 0.0, "moe.router_input_dropout": 0.0}
    switch = {**router("switch", 1), **calm}
    return {
        "argmax": switch,
        "sample": {**router("switch", 1, exploration="sample"), **calm},
        "input_dropout": {**switch, "moe.router_input_dropout": 0.1},
        "input_jitter": {**switch, "moe.jitter": 0.01},
    }


CLAIMS = {
    "sampling_hurts": {
        "statement": "Drawing the expert from the softmax is worse than taking the best.",
        "published": "-1.570 against -1.471",
        "test": "difference",
        "contrast": {"sample": 1, "argmax": -1},
        "direction": "higher",
        "minimum": 0.02,
        "settings": scales.ALL,
        "note": "Evaluated with the best expert, as in the paper.",
    },
    "input_dropout_hurts": {
        "statement": "Dropout on the router's inputs is worse than none.",
        "published": "-1.480 against -1.471",
        "test": "difference",
        "contrast": {"input_dropout": 1, "argmax": -1},
        "direction": "higher",
        "minimum": 0.005,
        "settings": scales.ALL,
    },
    "jitter_is_best": {
        "statement": "Jitter on the router's inputs is better than the plain argmax.",
        "published": "-1.468 against -1.471",
        "test": "none",
        "untestable": {
            "*": "0.003 nats: below the noise of any number of seeds that is affordable"
        },
    },
    "jitter_is_harmless": {
        "statement": "Jitter on the router's inputs costs nothing.",
        "published": "-1.468 against -1.471",
        "test": "equivalence",
        "contrast": {"input_jitter": 1, "argmax": -1},
        "margin": 0.01,
        "settings": scales.ALL,
    },
}
