"""Hierarchical routing: first a group of experts, then experts within it."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moe_jax.routing.types import Routing


def hierarchical(
    logits: Float[Array, "group token column"],
    *,
    num_selected: int,
    num_experts: int,
    num_groups: int = 2,
    groups_per_token: int = 1,
) -> Routing:
    """Two-level top-K: the best k1 groups, and the best K / k1 experts of each.

    The gate of expert j of group i is G_i * G_ij: of the primary softmax over the
    chosen groups and of the group's own softmax over its chosen experts, so that
    a token's gates sum to 1. The probability of an expert is the product of both
    softmaxes over all groups and experts. One group, or groups of one expert, are
    flat top-K with renormalized gates.

    Args:
      logits: [G, S, E1 + E]: the primary gate's E1 columns, then E / E1 for each
        group of experts.
      num_selected: K, over all groups.
      num_experts: E; group i has the experts i * E / E1 and following.
      num_groups: E1.
      groups_per_token: k1.

    Raises:
      ValueError: `num_groups` does not divide E, or `groups_per_token` does not
        divide K, or more is selected than there is.

    Source: Shazeer et al. 2017, arXiv:1701.06538, Appendix B, without noise;
    with two and two, `transformer_moe_layer_v2` of Mesh-TensorFlow, which
    gives some tokens one inner expert alone.
    """
    _check(num_selected, num_experts, num_groups, groups_per_token)
    inner = num_experts // num_groups
    primary, secondary = logits[..., :num_groups], logits[..., num_groups:]
    secondary = secondary.reshape(*logits.shape[:2], num_groups, inner)

    score, chosen = jax.lax.top_k(primary, groups_per_token)
    within = jnp.take_along_axis(secondary, chosen[..., None], axis=2)
    inner_score, place = jax.lax.top_k(within, num_selected // groups_per_token)
    gates = jax.nn.softmax(score)[..., None] * jax.nn.softmax(inner_score)
    experts = chosen[..., None] * inner + place

    choices = (*logits.shape[:2], num_selected)
    gates, experts = _best_first(gates.reshape(choices), experts.reshape(choices))
    probs = jax.nn.softmax(primary)[..., None] * jax.nn.softmax(secondary)
    return Routing(
        probs=probs.reshape(*logits.shape[:2], num_experts),
        experts=experts,
        gates=gates,
        wanted=jnp.ones(choices, bool),
    )


def logits_width(num_experts: int, options: Mapping[str, Any]) -> int:
    """E1 + E: a primary gate, and one for the experts of each group."""
    return options["num_groups"] + num_experts


def _best_first(
    gates: Float[Array, "group token choice"], experts: Int[Array, "group token choice"]
) -> tuple[Float[Array, "group token choice"], Int[Array, "group token choice"]]:
    order = jnp.lexsort((experts, -gates), axis=-1)
    return (
        jnp.take_along_axis(gates, order, axis=-1),
        jnp.take_along_axis(experts, order, axis=-1),
    )


def _check(
    num_selected: int, num_experts: int, num_groups: int, groups_per_token: int
) -> None:
    if num_groups < 1 or num_experts % num_groups:
        fits = [n for n in range(1, num_experts + 1) if num_experts % n == 0]
        raise ValueError(
            f"num_groups={num_groups} must divide num_experts={num_experts}: one of "
            f"{', '.join(map(str, fits))}"
        )
    inner = num_experts // num_groups
    fits = [
        n
        for n in range(1, num_groups + 1)
        if num_selected % n == 0 and num_selected // n <= inner
    ]
    if groups_per_token not in fits:
        works = f"one of {', '.join(map(str, fits))} would do" if fits else "none fits"
        raise ValueError(
            f"groups_per_token={groups_per_token} must divide num_selected_experts="
            f"{num_selected} and be at most num_groups={num_groups}, with no more than "
            f"{inner} expert(s) from each: {works}"
        )
