"""Switch layers in attention."""

from configs.ablations import scales

PAPER = "Fedus et al. 2021, arXiv:2101.03961, Table 10"
PUBLISHED = {
    "columns": ("experts in", "precision", "neg. log perplexity at 100k", "examples/s"),
    "rows": (
        ("FFN", "float32", -1.548, 1480),
        ("attention", "float32", -1.524, 1330),
        ("attention", "bfloat16", "diverges", "-"),
        ("FFN and attention", "float32", -1.513, 1240),
        ("FFN and attention", "bfloat16", "diverges", "-"),
    ),
}
BASELINE = "ffn"
TUNED = True
SLICE, DEVICES = "32 TPU v3 cores", 32

get_base = scales.decoder_of_32


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    del config, scale
    return {
        "ffn": {"model.block_pattern": ("dense", "moe")},
        "attention": {"model.block_pattern": ("dense", "moe_attention+dense")},
        "both": {"model.block_pattern": ("dense", "moe_attention+moe")},
    }


CLAIMS = {
    "attention_beats_ffn": {
        "statement": "Experts in attention are better than in the FFN, step by step.",
        "published": "-1.524 against -1.548",
        "test": "difference",
        "contrast": {"attention": 1, "ffn": -1},
        "direction": "lower",
        "minimum": 0.01,
        "settings": scales.ALL,
    },
    "both_beats_ffn": {
        "statement": "Experts in both are better than in the FFN alone.",
        "published": "-1.513 against -1.548",
        "test": "difference",
        "contrast": {"both": 1, "ffn": -1},
        "direction": "lower",
        "minimum": 0.01,
        "settings": scales.ALL,
    },
    "diverges_in_bfloat16": {
        "statement": "Experts in attention diverge in bfloat16.",
        "published": "diverges",
        "test": "none",
        "untestable": {"*": "divergence was seen at the paper's size only"},
    },
}
