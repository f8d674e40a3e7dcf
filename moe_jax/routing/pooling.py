"""Means over segments, for routers that look at a sentence and not at a token.

A segment is a run of consecutive tokens of a group with the same id. The cost is
linear in the number of tokens (times its logarithm for the running mean).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def segment_mean(
    features: Float[Array, "group token width"],
    segment_ids: Int[Array, "group token"],
) -> Float[Array, "group token width"]:
    """Gives each token the mean of the features of its segment.

    A token so depends on later tokens of its segment.

    Source: Kudugunta et al. 2021, arXiv:2110.03742 (sentence-level routing).
    """
    num_tokens = segment_ids.shape[1]
    run = jnp.cumsum(_starts(segment_ids), axis=1) - 1

    def mean(features, run):
        total = jax.ops.segment_sum(features, run, num_tokens)
        count = jax.ops.segment_sum(jnp.ones_like(features[:, :1]), run, num_tokens)
        return (total / jnp.maximum(count, 1))[run]

    return jax.vmap(mean)(features, run)


def causal_segment_mean(
    features: Float[Array, "group token width"],
    segment_ids: Int[Array, "group token"],
) -> Float[Array, "group token width"]:
    """Gives each token the mean over its segment up to and with itself."""
    starts = _starts(segment_ids)[..., None]

    def join(left, right):
        left_total, left_count, left_starts = left
        total, count, starts = right
        return (
            jnp.where(starts, total, left_total + total),
            jnp.where(starts, count, left_count + count),
            left_starts | starts,
        )

    leaves = features, jnp.ones_like(features[..., :1]), starts
    total, count, _ = jax.lax.associative_scan(join, leaves, axis=1)
    return total / count


def _starts(segment_ids: Int[Array, "group token"]) -> Bool[Array, "group token"]:
    first = jnp.ones_like(segment_ids[:, :1], bool)
    return jnp.concatenate([first, segment_ids[:, 1:] != segment_ids[:, :-1]], axis=1)
