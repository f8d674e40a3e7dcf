"""Which parameters move in fine-tuning."""

from configs.ablations import scales
from configs.ablations.arms import other_objective

PAPER = "Zoph et al. 2022, arXiv:2202.08906, Figure 5"
BASELINE = "all"
SEEDS = {"cpu": 6}
SLICE, DEVICES = "a TPU slice for ST-MoE-L", 32

GROUPS = ("all", "non_expert", "attention", "ffn", "expert")


get_base = scales.encoder_decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    tuned = {**other_objective(config, scale), "init_from": "@pretrained"}
    return {
        "pretrained": {},
        **{group: {**tuned, "optimizer.trainable": group} for group in GROUPS},
    }


# Who moves all parameters has learned what it is asked for, or nothing is compared: the
# words' own entropy is 6 nats at scale cpu.
_HAS_LEARNED = ({"contrast": {"all": -1}, "above": -3.0},)


def _as_good(group, what):
    return {
        "statement": f"To move {what} is as good as to move all parameters.",
        "published": "the same within the noise of 5 seeds",
        "test": "equivalence",
        "contrast": {group: 1, "all": -1},
        "margin": 0.02,
        "settings": scales.SMALL,
        "requires": _HAS_LEARNED,
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
        "requires": _HAS_LEARNED,
    },
    "non_expert_is_as_good": _as_good("non_expert", "all but the experts"),
    "attention_is_as_good": _as_good("attention", "attention alone"),
    "ffn_is_as_good": _as_good("ffn", "the dense FFNs alone"),
}
