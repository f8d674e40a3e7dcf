"""Which parameters move in fine-tuning."""

from configs.ablations import scales
from configs.ablations.arms import fine_tuning, pretraining

PAPER = "Zoph et al. 2022, arXiv:2202.08906, Figure 5"
BASELINE = "all"
SEEDS = {"cpu": 6}
SLICE, DEVICES = "a TPU slice for ST-MoE-L", 32

GROUPS = ("all", "non_expert", "attention", "ffn", "expert")


def get_base(scale):
    """Every 4th FFN of the decoder is sparse, as in the paper."""
    config = scales.encoder_decoder(scale)
    if scale != "paper":
        pattern = ("dense", "dense", "dense", "moe")
        config.model.num_layers = config.model.encoder_layers = len(pattern)
        config.model.block_pattern = pattern
    return config


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    tuned = {**fine_tuning(config, scale, "facts", 2000), "init_from": "@pretrained"}
    return {
        "pretrained": pretraining(scale),
        **{group: {**tuned, "optimizer.trainable": group} for group in GROUPS},
    }


def _as_good(group, what):
    return {
        "statement": f"To move {what} is as good as to move all parameters.",
        "published": "the same within the noise of 5 seeds",
        "test": "equivalence",
        "contrast": {group: 1, "all": -1},
        "margin": 0.02,
        "settings": scales.SMALL,
        "note": "Held-out loss instead of the task's score.",
    }


CLAIMS = {
    "experts_alone_are_worst": {
        "statement": "To move the experts alone is far worse than to move all.",
        "published": "drastically worse, with 80 % of the parameters",
        "test": "difference",
        "contrast": {"expert": 1, "all": -1},
        "direction": "higher",
        "minimum": 0.05,
        "settings": scales.SMALL,
    },
    "non_expert_is_as_good": _as_good("non_expert", "all but the experts"),
    "attention_is_as_good": _as_good("attention", "attention alone"),
    "ffn_is_not_worse": _as_good("ffn", "the dense FFNs alone"),
}
