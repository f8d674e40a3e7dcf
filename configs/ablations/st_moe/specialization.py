"""Experts of the encoder specialize, those of the decoder do not."""

from configs.ablations import scales

PAPER = "Zoph et al. 2022, arXiv:2202.08906, section 7 and Table 14"
PUBLISHED = {
    "columns": ("stack", "entropy of the sentinels' experts by layer, of ln 32 = 3.47"),
    "rows": (
        ("encoder", "2.2, 1.8, 1.6, 1.7, 1.7, 1.2"),
        ("decoder", "3.4 in all layers"),
    ),
}
BASELINE = "trained"
SLICE, DEVICES = "a TPU slice for ST-MoE-L", 32

get_base = scales.st_moe_encoder_decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`; `measured`: the same runs."""
    del config, scale
    return {"trained": {}, "measured": {"evaluates": "trained"}}


CLAIMS = {
    "sentinels": {
        "statement": "Sentinels have experts of their own in the encoder, not in the decoder.",
        "published": "entropies of 1.2 to 2.2 against 3.4 nats",
        "test": "difference",
        "measure": "specialization/decoder_less_encoder",
        "contrast": {"measured": 1},
        "direction": "higher",
        "minimum": 0.1,
        "settings": scales.ALL,
        "note": "The difference of the entropies, over the log of the experts' number.",
    },
    "ids": {
        "statement": "A token's id tells its expert in the encoder.",
        "published": "experts of punctuation, articles, verbs, proper names, numbers",
        "test": "difference",
        "measure": "encoder/specialization/information",
        "contrast": {"measured": 1},
        "direction": "higher",
        "minimum": 0.1,
        "settings": scales.ALL,
        "note": "Mutual information of id and expert over the log of their number.",
    },
}
