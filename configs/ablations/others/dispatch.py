"""Dropless against capacity, hashed against learned, shared and fine-grained experts."""

from configs.ablations import scales
from configs.overrides import router

PAPER = (
    "Gale et al. 2022, arXiv:2211.15841; Roller et al. 2021, arXiv:2106.04426; "
    "Dai et al. 2024, arXiv:2401.06066"
)
PUBLISHED = {
    "columns": ("paper", "what", "numbers"),
    "rows": (
        ("MegaBlocks", "gain over dense at capacity 1 and dropless", ".15 and .26"),
        ("Hash layers", "perplexity, Switch and hash, 64 experts", "23.65 and 23.16"),
        ("DeepSeekMoE", "Pile loss, GShard and DeepSeekMoE", "1.867 and 1.808"),
    ),
}
BASELINE = "capacity_1"
TUNED = True
SLICE, DEVICES = "8 GPUs", 8

get_base = scales.decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    del scale
    one = {"moe.train_capacity_factor": 1.0, "moe.eval_capacity_factor": 1.0}
    free = {"moe.dispatcher": "dropless"}
    top2 = {**router("topk", 2), **free}
    fine = {
        **router("topk", 4),
        **free,
        "moe.num_experts": 2 * config.moe.num_experts,
        "moe.d_ff": config.moe.d_ff // 2,
    }
    shared = {**router("topk", 1, gates="raw"), **free, "moe.num_shared_experts": 1}
    return {
        "capacity_1": {**router("switch", 1), **one},
        "dropless": {**router("switch", 1), **free},
        "hash": {**router("hash", 1), **free, "loss.load_balance": 0.0},
        "top2": top2,
        "fine": fine,
        "shared": shared,
    }


def _better(arm, other, statement, published, minimum, settings=scales.SMALL):
    return {
        "statement": statement,
        "published": published,
        "test": "difference",
        "contrast": {arm: 1, other: -1},
        "direction": "lower",
        "minimum": minimum,
        "settings": settings,
    }


CLAIMS = {
    "dropless": _better(
        "dropless",
        "capacity_1",
        "Dropless is better than a capacity factor of 1.",
        "a loss .11 lower (Small, 64 experts)",
        0.005,
    ),
    "hash": _better(
        "hash",
        "dropless",
        "Hashing the token's id is better than Switch's learned routing.",
        "perplexity 23.16 against 23.65",
        0.005,
        scales.BUILT_IN,
    ),
    "granularity": _better(
        "fine",
        "top2",
        "Twice as many experts of half the width, twice as many chosen, are better.",
        "a part of 1.867 to 1.808",
        0.003,
    ),
    "shared": _better(
        "shared",
        "top2",
        "A shared expert and one chosen are better than two chosen.",
        "a part of 1.867 to 1.808",
        0.003,
    ),
}
