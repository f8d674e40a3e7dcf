"""No token left behind: what overflows goes to the next best expert."""

from configs.ablations import scales

PAPER = "Fedus et al. 2021, arXiv:2101.03961, appendix B"
BASELINE = "drop"
TUNED = True
SLICE, DEVICES = "32 TPU v3 cores", 32

get_base = scales.decoder


def get_arms(config, scale):
    """Returns arm name -> overrides of `config`."""
    del config, scale
    tight = {"moe.train_capacity_factor": 1.0, "moe.eval_capacity_factor": 1.0}
    return {
        "drop": {**tight, "moe.overflow": "drop"},
        # A choice without a slot is causal no more: see docs/architecture.md.
        "reroute": {**tight, "moe.overflow": "reroute", "moe.reroute_tries": 4},
    }


CLAIMS = {
    "no_benefit": {
        "statement": "Rerouting what overflows brings no empirical benefit.",
        "published": "no table: 'no empirical benefit'",
        "test": "equivalence",
        "contrast": {"reroute": 1, "drop": -1},
        "margin": 0.01,
        "settings": scales.ALL,
    },
    "drops_vanish": {
        "statement": "Rerouting leaves fewer tokens without any expert.",
        "published": "what it was made for",
        "test": "difference",
        "measure": "router/dropped_tokens",
        "contrast": {"reroute": 1, "drop": -1},
        "direction": "lower",
        "minimum": 0.01,
        "settings": scales.ALL,
    },
}
