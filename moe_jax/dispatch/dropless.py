"""Dispatch without slots: entries sorted by expert, so that nothing is dropped.

Megablocks' idea (Gale et al. 2022, arXiv:2211.15841) with grouped matmuls for its
block-sparse ones. Nothing here has an expert axis but E counts: at fixed tokens,
neither memory nor work grows with E. What the router gave up and padding take no
row.

Axes: G groups, S tokens per group, N entries of a group, M = G * N rows, E experts,
D width.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moe_jax.dispatch.grouped import Grouped
from moe_jax.dispatch.tables import Tables, fill_slots, sum_slots
from moe_jax.routing.types import Assignments


def dispatch(
    assignments: Assignments, tokens: Float[Array, "group token embed"]
) -> Grouped:
    """Copies each token into the rows of its experts; rows past the last are 0."""
    tables = _tables(assignments)
    rows = fill_slots(assignments, tokens, tables)
    return Grouped(rows, expert_sizes(assignments), tables.entry_of_slot)


def combine(
    assignments: Assignments, outputs: Grouped
) -> Float[Array, "group token embed"]:
    """Sums each token's rows, times their weights; 0 for a dropped token."""
    return sum_slots(assignments, outputs.rows, _tables(assignments))


def expert_sizes(assignments: Assignments) -> Int[Array, " expert"]:
    """How many entries of all groups each expert keeps."""
    sizes = jnp.zeros(assignments.num_experts, jnp.int32)
    return sizes.at[assignments.expert].add(assignments.kept.astype(jnp.int32))


def _tables(assignments: Assignments) -> Tables:
    """Entries by expert, earlier ones first; dropped ones after the last expert."""
    entries = assignments.expert.size
    expert = jnp.where(assignments.kept, assignments.expert, assignments.num_experts)
    order = jnp.argsort(expert.reshape(-1), stable=True).astype(jnp.int32)
    row = jnp.arange(entries, dtype=jnp.int32)
    place = jnp.zeros_like(row).at[order].set(row, unique_indices=True)
    kept = assignments.kept.reshape(-1)
    row_of_entry = jnp.where(kept, place, entries).reshape(assignments.expert.shape)
    return Tables(jnp.where(kept[order], order, entries), row_of_entry)
