"""Distilling a sparse teacher into its dense twin."""

from configs.ablations import scales
from configs.ablations.arms import dense_pattern

PAPER = "Fedus et al. 2021, arXiv:2101.03961, Tables 6 to 8"
PUBLISHED = {
    "columns": ("student", "neg. log perplexity", "share of the gap"),
    "rows": (
        ("T5-Base", -1.636, "-"),
        ("Switch-Base, the teacher", -1.444, "100 %"),
        ("distillation alone", -1.631, "3 %"),
        ("+ the teacher's non-expert weights", -1.598, "20 %"),
        ("+ 0.75 of hard and 0.25 of soft loss", -1.580, "29 %"),
        ("the weights without distillation", -1.639, "none"),
    ),
}
BASELINE = "dense"
SEEDS = {"cpu": 6}
SLICE, DEVICES = "32 TPU v3 cores", 32

get_base = scales.decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    dense = dense_pattern(config)
    experts = 64 if scale == "paper" else 16
    taught = {**dense, "distill.teacher": "@teacher"}
    started = {"init_from": "@teacher"}
    return {
        "dense": dense,
        "teacher": {"moe.num_experts": experts, "train.checkpoint_interval": 0},
        "soft": {**taught, "distill.soft_weight": 1.0},
        "soft_init": {**taught, **started, "distill.soft_weight": 1.0},
        "mix_init": {**taught, **started, "distill.soft_weight": 0.25},
        "init": {**dense, **started},
    }


_NEEDS_TEACHER = ({"contrast": {"dense": 1, "teacher": -1}, "above": 0.02},)
# What the paper found, and its shares of the gap stand on: without distillation the
# teacher's weights bring nothing.
_NEEDS_NO_HEAD_START = (
    *_NEEDS_TEACHER,
    {"contrast": {"init": 1, "dense": -1}, "above": -0.02},
)


def _share(arm, share, minimum, requires):
    return {
        "published": f"{share} of the gap to the teacher",
        "test": "ratio",
        "contrast": {"dense": 1, arm: -1},
        "over": {"dense": 1, "teacher": -1},
        "direction": "higher",
        "minimum": minimum,
        "settings": scales.ALL,
        "requires": requires,
    }


CLAIMS = {
    "soft_alone": {
        "statement": "Distillation alone keeps some of the teacher's gain.",
        **_share("soft", "3 %", 0.01, _NEEDS_TEACHER),
    },
    "with_init": {
        "statement": "With the teacher's non-expert weights it keeps more.",
        **_share("soft_init", "20 %", 0.1, _NEEDS_NO_HEAD_START),
    },
    "mixed": {
        "statement": "With a mix of hard and soft loss it keeps most.",
        **_share("mix_init", "29 %", 0.15, _NEEDS_NO_HEAD_START),
    },
    "order": {
        "statement": "Each ingredient adds: soft loss, then weights, then the mix.",
        "published": "3 %, 20 %, 29 %",
        "test": "order",
        "order": ("dense", "soft", "soft_init", "mix_init"),
        "direction": "lower",
        "minimum": 0.0,
        "settings": scales.ALL,
        "requires": _NEEDS_NO_HEAD_START,
    },
    "init_alone": {
        "statement": "The teacher's weights without distillation bring nothing.",
        "published": "-1.639 against -1.636",
        "test": "equivalence",
        "contrast": {"init": 1, "dense": -1},
        "margin": 0.01,
        "settings": scales.ALL,
        "requires": _NEEDS_TEACHER,
        "note": (
            "Where training is short, weights of a teacher that trained as long are a "
            "head start, and the shares of the arms that have them contain it."
        ),
    },
    "larger_teachers_keep_less": {
        "statement": "The share that is kept falls with the size of the teacher.",
        "published": "37, 32, 30, 27, 28 % from 1.1 to 14.7 B (Table 7)",
        "test": "none",
        "untestable": {"*": "some points of difference; seeds would cost days here"},
    },
    "fine_tuned_teacher": {
        "statement": "A fine-tuned teacher's gain is kept to 30 %.",
        "published": "74.6, 81.3 and 76.6 on SuperGLUE (Table 8)",
        "test": "none",
        "untestable": {"*": "SuperGLUE at the paper's size"},
    },
}
