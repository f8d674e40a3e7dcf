"""Slots for choices: first come, first served, until an expert is full."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from moe_jax.routing.types import Assignments, Routing

ORDERS = ("choice_major", "token_major")


def allocate(routing: Routing, capacity: int, order: str) -> Assignments:
    """Gives each wanted choice the next free slot of its expert.

    Args:
      routing: what each token wants.
      capacity: C, slots per expert per group.
      order: who comes first. `choice_major`: all first choices in token order,
        then all second ones (GShard, Mesh-TensorFlow, flaxformer): with K > 1 a
        later token's first choice can take the slot of an earlier token's
        second. `token_major`: all choices of a token, then those of the next: a
        token's slots never depend on later tokens.

    Returns:
      One entry per choice; position C and weight 0 for those that got no slot.

    Raises:
      ValueError: `order` is unknown.
    """
    if order not in ORDERS:
        raise ValueError(f"order={order!r} is unknown; choose from {', '.join(ORDERS)}")
    groups, tokens, choices = routing.experts.shape
    num_experts = routing.probs.shape[-1]

    experts, wanted = routing.experts, routing.wanted
    if order == "choice_major":
        experts, wanted = experts.swapaxes(1, 2), wanted.swapaxes(1, 2)
    queue = (groups, tokens * choices)
    place = _place_in_line(experts.reshape(queue), wanted.reshape(queue), num_experts)
    if order == "choice_major":
        place = place.reshape(groups, choices, tokens).swapaxes(1, 2).reshape(queue)

    kept = routing.wanted.reshape(queue) & (place < capacity)
    token = jnp.repeat(jnp.arange(tokens, dtype=jnp.int32), choices)
    return Assignments(
        token=jnp.broadcast_to(token, queue),
        expert=routing.experts.reshape(queue),
        position=jnp.where(kept, place, capacity),
        weight=jnp.where(kept, routing.gates.reshape(queue), 0.0),
        num_tokens=tokens,
        num_experts=num_experts,
        capacity=capacity,
    )


def _place_in_line(
    experts: Int[Array, "group entry"],
    wanted: Bool[Array, "group entry"],
    num_experts: int,
) -> Int[Array, "group entry"]:
    """How many earlier wanted entries ask for the same expert."""
    is_expert = experts[..., None] == jnp.arange(num_experts)
    asks = (is_expert & wanted[..., None]).astype(jnp.int32)
    before = jnp.cumsum(asks, axis=1) - asks
    return jnp.take_along_axis(before, experts[..., None], axis=-1)[..., 0]
