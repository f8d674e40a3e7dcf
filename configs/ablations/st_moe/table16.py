"""A dense FFN beside each sparse one, and the same in the dense model."""

from configs.ablations import scales

PAPER = "Zoph et al. 2022, arXiv:2202.08906, Table 16"
PUBLISHED = {
    "columns": ("model", "neg. log perplexity"),
    "rows": (
        ("dense", -1.474),
        ("dense, extra FFN", -1.452),
        ("sparse", -1.383),
        ("sparse, extra FFN after", -1.369),
        ("sparse, extra FFN before", -1.369),
        ("sparse, extra FFN at random places", -1.376),
    ),
}
BASELINE = "sparse"
TUNED = True
SLICE, DEVICES = "a TPU slice for ST-MoE-L", 32

get_base = scales.decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    del scale
    width = config.moe.d_ff
    return {
        "sparse": {"model.block_pattern": ("dense", "moe")},
        "after": {"model.block_pattern": ("dense", "moe+dense")},
        "before": {"model.block_pattern": ("dense", "dense+moe")},
        "dense": {"model.block_pattern": ("dense", f"dense:{width}")},
        "dense_extra": {"model.block_pattern": ("dense", f"dense:{width}+dense")},
    }


CLAIMS = {
    "extra_ffn_helps": {
        "statement": "A dense FFN after each sparse one helps.",
        "published": "-1.369 against -1.383",
        "test": "difference",
        "contrast": {"after": 1, "sparse": -1},
        "direction": "lower",
        "minimum": 0.005,
        "settings": scales.ALL,
    },
    "before_equals_after": {
        "statement": "Before or after the sparse FFN makes no difference.",
        "published": "-1.369 both",
        "test": "equivalence",
        "contrast": {"before": 1, "after": -1},
        "margin": 0.01,
        "settings": scales.ALL,
    },
    "more_than_in_the_dense_model": {
        "statement": "A sparse model gains more from it than the dense one does.",
        "published": "no: the dense one gains .022, the sparse one .014",
        "test": "difference",
        "contrast": {"after": 1, "sparse": -1, "dense_extra": -1, "dense": 1},
        "direction": "lower",
        "minimum": 0.003,
        "settings": scales.ALL,
        "note": "The control that the paper's numbers themselves call for.",
    },
}
