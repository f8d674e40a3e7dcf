"""Rows for other devices: in buffers by expert shard, and grouped again on arrival.

A device has rows for the experts of R shards, in a buffer of fixed size for each.
What arrives is R such buffers, each sorted by expert: one more gather, and rows are
grouped by expert over all senders.

Axes: G groups, N entries of a group, M = G * N, R shards, P rows of a buffer, E
experts, L = E / R experts of a shard, D width.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Int

from moe_jax.dispatch.tables import Tables
from moe_jax.routing.counting import place_in_line
from moe_jax.routing.types import Assignments


def limit_rows(assignments: Assignments, shards: int, rows: int) -> Assignments:
    """Drops what finds no room in the buffers: earlier entries come first.

    Args:
      assignments: of all groups of one device.
      shards: R.
      rows: P.
    """
    kept = assignments.kept
    shard = _shard(assignments, shards).reshape(1, -1)
    place = place_in_line(shard, kept.reshape(1, -1), shards).reshape(kept.shape)
    fits = kept & (place < rows)
    return dataclasses.replace(
        assignments,
        position=jnp.where(fits, assignments.position, assignments.capacity),
        weight=jnp.where(fits, assignments.weight, 0.0),
    )


def of_shard(
    assignments: Assignments, shards: int, shard: Int[Array, ""]
) -> Assignments:
    """What one shard's experts have to do with, those counted from its first."""
    mine = assignments.kept & (_shard(assignments, shards) == shard)
    held = assignments.num_experts // shards
    return dataclasses.replace(
        assignments,
        expert=jnp.where(mine, assignments.expert - shard * held, 0),
        position=jnp.where(mine, assignments.position, assignments.capacity),
        weight=jnp.where(mine, assignments.weight, 0.0),
        num_experts=held,
    )


def send_tables(assignments: Assignments, shards: int, rows: int) -> Tables:
    """Where entries sit in the buffers [R, P], each sorted by expert.

    Every kept entry must have room; see `limit_rows`.
    """
    entries = assignments.expert.size
    kept = assignments.kept.reshape(-1)
    expert = jnp.where(kept, assignments.expert.reshape(-1), assignments.num_experts)
    order = jnp.argsort(expert, stable=True).astype(jnp.int32)
    rank = (
        jnp.zeros_like(order)
        .at[order]
        .set(jnp.arange(entries, dtype=jnp.int32), unique_indices=True)
    )
    shard = jnp.where(kept, _shard(assignments, shards).reshape(-1), shards)
    sizes = jnp.zeros(shards + 1, jnp.int32).at[shard].add(1)
    first = jnp.cumsum(sizes) - sizes
    slot = jnp.where(kept, shard * rows + rank - first[shard], shards * rows)
    entry = jnp.arange(entries, dtype=jnp.int32)
    empty = jnp.full((shards * rows,), entries, jnp.int32)
    entry_of_slot = empty.at[slot].set(entry, mode="drop")
    return Tables(
        entry_of_slot.reshape(shards, rows), slot.reshape(assignments.expert.shape)
    )


def arrival_tables(sizes: Int[Array, "sender expert"], rows: int) -> Tables:
    """Where received rows [R, P] sit when they are grouped by expert.

    Args:
      sizes: rows of each of this shard's experts that each sender sent.
      rows: P.

    Returns:
      `entry_of_slot` [R * P]: the received row in each place, R * P for none;
      `slot_of_entry` [R, P]: the place of each received row, R * P for empty ones.
    """
    senders, total = sizes.shape[0], sizes.shape[0] * rows
    row = jnp.arange(rows, dtype=jnp.int32)
    ends = jnp.cumsum(sizes, axis=1)
    # [R, P]: the expert of each row, and L behind the last one.
    expert = (row[None, :, None] >= ends[:, None, :]).sum(axis=-1, dtype=jnp.int32)
    full = expert < sizes.shape[1]
    expert = jnp.minimum(expert, sizes.shape[1] - 1)
    of_expert = sizes.sum(axis=0)
    before_expert = jnp.cumsum(of_expert) - of_expert
    before_sender = jnp.cumsum(sizes, axis=0) - sizes
    start = before_expert + before_sender - (ends - sizes)
    place = jnp.take_along_axis(start, expert, axis=1) + row
    place = jnp.where(full, place, total).astype(jnp.int32)
    received = jnp.arange(total, dtype=jnp.int32)
    empty = jnp.full((total,), total, jnp.int32)
    row_of_place = empty.at[place.reshape(-1)].set(received, mode="drop")
    return Tables(row_of_place, place.reshape(senders, rows))


def _shard(assignments: Assignments, shards: int) -> Int[Array, "group entry"]:
    return assignments.expert // (assignments.num_experts // shards)
