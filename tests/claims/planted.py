"""Synthetic results in which the truth is known."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from moe_jax.claims.claim import Claim, make_claim
from moe_jax.claims.evidence import Failed, Values
from moe_jax.claims.verdicts import Finding, judge
from moe_jax.sweeps.arms import LOSS

ARMS = ("a", "b", "c", "d")
# Fields of a claim of each statistical test, where lower b than a is claimed.
DIFFERENCE = {
    "test": "difference",
    "contrast": {"b": 1, "a": -1},
    "direction": "lower",
    "minimum": 0.05,
}
EQUIVALENCE = {
    "test": "equivalence",
    "contrast": {"b": 1, "a": -1},
    "margin": 0.02,
}
ORDER = {
    "test": "order",
    "order": ("a", "b", "c"),
    "direction": "lower",
    "minimum": 0.02,
}
# The share of the gap from a to c that b closes.
RATIO = {
    "test": "ratio",
    "contrast": {"a": 1, "b": -1},
    "over": {"a": 1, "c": -1},
    "direction": "higher",
    "minimum": 0.3,
}
VARIANCE = {
    "test": "variance",
    "contrast": {"b": 1, "a": -1},
    "direction": "lower",
    "minimum": 4.0,
}
RATE = {
    "test": "rate",
    "contrast": {"b": 1, "a": -1},
    "direction": "higher",
    "minimum": 0.3,
}


def claim_of(fields: Mapping[str, Any], name: str = "claim", **changes: Any) -> Claim:
    """A claim that can be tested at the scale `cpu`."""
    base = {
        "statement": "b is better than a.",
        "published": "-.1",
        "settings": {"cpu": "scaled down"},
    }
    return make_claim(name, {**base, **fields, **changes}, dict.fromkeys(ARMS))


def losses(
    n: int = 8,
    noise: float = 0.01,
    shared: float = 0.3,
    seed: int = 0,
    exact: bool = True,
    **means: float,
) -> Values:
    """Held-out losses of arms with planted means.

    Args:
      n: seeds.
      noise: sd of what is an arm's own.
      shared: sd of what all arms of a seed share, which pairing removes.
      seed: of the noise.
      exact: the noise averages to zero over the seeds, so that every mean is the
        planted one and no verdict is luck.
      **means: arm -> true mean.
    """
    draws = np.random.default_rng(seed)
    common = shared * draws.standard_normal(n)
    values = {}
    for arm, mean in means.items():
        own = noise * draws.standard_normal(n)
        own -= own.mean() if exact else 0
        values[arm] = dict(enumerate((mean + common + own).tolist()))
    return {LOSS: values}


def judge_one(claim: Claim, values: Values, failed: Failed | None = None) -> Finding:
    """The finding of a claim that is alone in its table."""
    (finding,) = judge([claim], "cpu", values, failed or {})
    return finding
