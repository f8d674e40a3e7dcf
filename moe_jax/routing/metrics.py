"""What a router did with one batch, as scalars and one row of loads."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from moe_jax.routing.types import Assignments, Routing


def router_metrics(
    routing: Routing, assignments: Assignments, mask: Bool[Array, "group token"]
) -> dict[str, Array]:
    """Returns the metrics of one sparse layer, over real tokens.

    - `router/load` [E]: each expert's share of the wanted choices, before
      capacity; sums to 1.
    - `router/max_vio`: largest load over mean load, minus 1; 0 is balance, E - 1
      collapse (Wang et al. 2024, arXiv:2408.15664).
    - `router/dropped`: fraction of the wanted choices that got no slot.
    - `router/entropy`: mean entropy of a token's probabilities, in nats; ln E is
      a router without an opinion.
    """
    num_experts = assignments.num_experts
    wanted = routing.wanted & mask[..., None]
    num_wanted = jnp.maximum(wanted.sum(), 1)
    per_expert = jax.nn.one_hot(routing.experts, num_experts) * wanted[..., None]
    load = per_expert.sum(axis=(0, 1, 2)) / num_wanted
    dropped = wanted & ~assignments.kept.reshape(wanted.shape)
    entropy = -(routing.probs * jnp.log(routing.probs + 1e-20)).sum(axis=-1)
    return {
        "router/load": load,
        "router/max_vio": load.max() * num_experts - 1.0,
        "router/dropped": dropped.sum() / num_wanted,
        "router/entropy": (entropy * mask).sum() / jnp.maximum(mask.sum(), 1),
    }
