"""Sinkhorn routing: rows and columns of exp(logits) scaled until experts balance."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from moe_jax.routing.types import Routing


def sinkhorn(
    logits: Float[Array, "group token expert"],
    *,
    num_selected: int,
    train: bool,
    mask: Bool[Array, "group token"],
    iterations: int = 100,
    tolerance: float = 1e-4,
) -> Routing:
    """In training the K largest of Sinkhorn's plan, in evaluation of the logits.

    The plan is diag(d0) exp(logits) diag(d1), in which all tokens have the same
    sum and all experts have, too; no gradient flows through it. Balance is nearly
    reached, not exactly. Gates are sigmoid(logits) for K = 1 and softmax(logits),
    not renormalized, for more: the plan only selects.

    Args:
      logits: router logits.
      num_selected: K.
      train: chooses between the two selections.
      mask: False for padding, which has no share in the plan.
      iterations: most rounds of scaling.
      tolerance: the mean change of log d1 in a round at which scaling stops.

    Source: `sinkhorn` and `TopKRouter.sinkhorn_load_balancing` of Megatron-LM,
    after Clark et al. 2022, arXiv:2202.01169 (S-BASE). Megatron takes the
    change of d1 itself, and counts padding.
    """
    selection = logits
    if train:
        scale = log_expert_scale(logits, mask, iterations, tolerance)
        selection = jax.lax.stop_gradient(logits) + scale[:, None]
    experts = jax.lax.top_k(selection, num_selected)[1]
    probs = jax.nn.softmax(logits, axis=-1)
    weights = jax.nn.sigmoid(logits) if num_selected == 1 else probs
    gates = jnp.take_along_axis(weights, experts, axis=-1)
    return Routing(probs, experts, gates, wanted=jnp.ones(experts.shape, bool))


def log_expert_scale(
    logits: Float[Array, "group token expert"],
    mask: Bool[Array, "group token"],
    iterations: int,
    tolerance: float,
) -> Float[Array, "group expert"]:
    """Returns log d1 of Sinkhorn's plan, up to one constant a group.

    A token's own factor d0 does not change which experts are its best, so that it
    is not returned. The sums are taken of logarithms: no logit is too large. No
    gradient.

    Args:
      logits: logarithms of the matrix.
      mask: False for rows that are left out; a group without any row gives 0.
      iterations: most rounds.
      tolerance: the mean change of log d1 in a round at which a group stops.
    """
    solve = functools.partial(
        _scale_group, iterations=iterations, tolerance=float(tolerance)
    )
    return jax.vmap(solve)(jax.lax.stop_gradient(logits), mask)


def _scale_group(
    logits: Float[Array, "token expert"],
    mask: Bool[Array, " token"],
    *,
    iterations: int,
    tolerance: float,
) -> Float[Array, " expert"]:
    def unfinished(state):
        round_, _, change = state
        return (round_ < iterations) & (change > tolerance)

    def scale(state):
        round_, log_d1, _ = state
        log_d0 = -jax.nn.logsumexp(logits + log_d1, axis=1)
        log_d0 = jnp.where(mask, log_d0, -jnp.inf)
        new = -jax.nn.logsumexp(logits + log_d0[:, None], axis=0)
        # Only differences between experts matter; and nothing can overflow.
        new = jnp.where(mask.any(), new - new.mean(), 0.0)
        return round_ + 1, new, jnp.abs(new - log_d1).mean()

    # Like the logits: inside shard_map a loop starts from what varies as it does.
    start = jnp.zeros_like(logits[0])
    first = (jnp.int32(0), start, jnp.full_like(start[0], jnp.inf))
    return jax.lax.while_loop(unfinished, scale, first)[1]
