"""Claims whose published effect is below what affordable seeds can see, and sizes."""

from configs.ablations import scales

PAPER = "Zoph et al. 2022, arXiv:2202.08906, Tables 11, 17, 21, Appendix J"


def _none(statement, published, why):
    return {
        "statement": statement,
        "published": published,
        "test": "none",
        "untestable": {"*": why},
    }


CLAIMS = {
    "parameters": {
        "statement": "ST-MoE-L and ST-MoE-32B have the published parameters.",
        "published": "4.1 B and 269 B (Table 11)",
        "test": "exact",
        "check": "st_moe_parameters",
        "settings": scales.EXACT,
    },
    "multiplicative_bias": _none(
        "A multiplicative bias in the experts helps.",
        "-1.361 against -1.369 (Table 17)",
        "0.008 nats: 16 or more pairs, each as long as Table 8's",
    ),
    "additive_bias": _none(
        "An additive bias in the experts does not help.",
        "-1.371 against -1.369 (Table 17)",
        "0.002 nats: more than 100 pairs",
    ),
    "threshold": _none(
        "The threshold of the second expert hardly matters.",
        "-1.354 against -1.356 (Table 21)",
        "0.002 nats: more than 100 pairs",
    ),
    "dropped_flag": _none(
        "To tell the router that a token was dropped before does not help.",
        "no numbers (Appendix J)",
        "a null of unknown size",
    ),
    "expert_positions": _none(
        "A positional embedding in each expert does not help.",
        "no numbers (Appendix J)",
        "a null of unknown size",
    ),
    "lower_choices": _none(
        "To balance the lower choices, too, brings a minimal gain.",
        "no numbers (Appendix J)",
        "a null of unknown size",
    ),
    "pretraining_noise": _none(
        "More noise in pre-training (dropout, whole experts, entropy) does not help.",
        "no numbers (Appendix J)",
        "a null of unknown size",
    ),
    "mixed_in_data": _none(
        "To mix pre-training data into fine-tuning does not help.",
        "no numbers; 1 to 25 % were tried (Appendix J)",
        "a null of unknown size",
    ),
    "dropped_experts": _none(
        "To drop whole experts in fine-tuning does not help.",
        "no numbers (Appendix J)",
        "a null of unknown size",
    ),
}
