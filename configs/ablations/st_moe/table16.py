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

get_base = scales.st_moe_decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    del scale
    width = config.moe.d_ff * config.moe.num_selected_experts
    last = {
        "sparse": "moe",
        "after": "moe+dense",
        "before": "dense+moe",
        "dense": f"dense:{width}",
        "dense_extra": f"dense:{width}+dense",
    }
    before = config.model.block_pattern[:-1]
    return {arm: {"model.block_pattern": (*before, kind)} for arm, kind in last.items()}


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
    "more_in_the_dense_model": {
        "statement": "The dense model gains more from it than a sparse one does.",
        "published": "the dense one gains .022, the sparse one .014",
        "test": "difference",
        # The dense model's gain less the sparse one's.
        "contrast": {"dense": 1, "dense_extra": -1, "sparse": -1, "after": 1},
        "direction": "higher",
        "minimum": 0.003,
        "settings": scales.ALL,
        "note": "The control that the paper's numbers call for, which it does not name.",
    },
}
