"""Scores of experts: what a router makes of its logits, and draws from it."""

import functools
from collections.abc import Callable, Collection, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moe_jax.routing.random import Keys, draw

# Keeps 0 / 0 away. Its square is still a normal float32: gradients divide by that.
TINY = 1e-15


def _sqrt_softplus(logits: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    # The bound: at an exact 0 the root's slope would be infinite.
    return jnp.sqrt(jnp.maximum(jax.nn.softplus(logits), TINY**2))


SCORE_FNS: Mapping[str, Callable[[Array], Array]] = {
    "softmax": functools.partial(jax.nn.softmax, axis=-1),
    "sigmoid": jax.nn.sigmoid,
    "sqrtsoftplus": _sqrt_softplus,
}


def score(
    logits: Float[Array, "group token expert"], score_fn: str
) -> tuple[Float[Array, "group token expert"], Float[Array, "group token expert"]]:
    """Returns scores, and the probabilities they stand for.

    Args:
      logits: router logits.
      score_fn: `softmax`, `sigmoid` (each expert for itself) or `sqrtsoftplus`,
        sqrt(ln(1 + e^x)), which has no upper bound.

    Returns:
      The scores, which choose experts and weigh them; and these over their sum,
      which the losses and metrics look at. For softmax both are the same.

    Raises:
      ValueError: `score_fn` is unknown.
    """
    check_option("score_fn", score_fn, SCORE_FNS)
    scores = SCORE_FNS[score_fn](logits)
    return scores, scores if score_fn == "softmax" else normalize(scores)


def normalize(values: Float[Array, "*axes last"]) -> Float[Array, "*axes last"]:
    """Returns `values`, none negative, over the sum of their last axis."""
    return values / (values.sum(axis=-1, keepdims=True) + TINY)


def draw_experts(
    key: Keys, probs: Float[Array, "group token expert"], count: int
) -> Int[Array, "group token {count}"]:
    """Draws experts one after another, without replacement, in proportion to `probs`.

    The largest sums of log-probability and Gumbel noise are such a draw; they
    stand in the order in which they were drawn.

    Source: Kool et al. 2019, arXiv:1903.06059 (the Gumbel-top-k trick).
    """
    noise = draw(jax.random.gumbel, key, probs.shape)
    return jax.lax.top_k(jnp.log(probs) + noise, count)[1]


def check_option(name: str, value: object, known: Collection[str]) -> None:
    """Raises ValueError unless `value` is one of `known`."""
    if value not in known:
        raise ValueError(f"{name}={value!r} is unknown; choose from {', '.join(known)}")
