"""Dispatch by index tables: the same slots, no masks, no extra arithmetic.

Axes: G groups, S tokens per group, N entries of a group, E experts, C capacity, D
width.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from moe_jax.dispatch.tables import Tables, fill_slots, sum_slots
from moe_jax.routing.types import Assignments


def dispatch(
    assignments: Assignments, tokens: Float[Array, "group token embed"]
) -> Float[Array, "expert group slot embed"]:
    """Copies each token into its slots; empty slots are 0."""
    return fill_slots(assignments, tokens, _tables(assignments))


def combine(
    assignments: Assignments, outputs: Float[Array, "expert group slot embed"]
) -> Float[Array, "group token embed"]:
    """Sums each token's slots, times their weights; 0 for a dropped token."""
    return sum_slots(assignments, outputs, _tables(assignments))


def _tables(assignments: Assignments) -> Tables:
    groups, entries = assignments.expert.shape
    experts, capacity = assignments.num_experts, assignments.capacity
    num_slots = experts * groups * capacity
    group = jnp.arange(groups, dtype=jnp.int32)[:, None]
    slot = (assignments.expert * groups + group) * capacity + assignments.position
    slot = jnp.where(assignments.kept, slot, num_slots)
    entry = jnp.arange(groups * entries, dtype=jnp.int32)
    empty = jnp.full((num_slots,), groups * entries, jnp.int32)
    entry_of_slot = empty.at[slot.reshape(-1)].set(entry, mode="drop")
    return Tables(entry_of_slot.reshape(experts, groups, capacity), slot)
