"""Dispatch by index tables: the same slots, no masks, no extra arithmetic.

Two int32 tables say the same thing in both directions: which entry sits in a
slot, and in which slot an entry sits. With both, a gather's gradient is again a
gather; autodiff alone would make it a scatter-add, which is slow on TPU and adds
in no fixed order on GPU.

Axes: G groups, S tokens per group, K choices, N = S * K entries, E experts, C
capacity, D width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from moe_jax.routing.types import Assignments


class Tables(NamedTuple):
    """Where each entry and each slot finds its counterpart, counted over groups.

    Attributes:
      entry_of_slot: index into the G * N entries; G * N for an empty slot.
      slot_of_entry: index into the E * G * C slots; E * G * C if dropped.
    """

    entry_of_slot: Int[Array, "expert group slot"]
    slot_of_entry: Int[Array, "group token choice"]


def dispatch(
    assignments: Assignments, tokens: Float[Array, "group token embed"]
) -> Float[Array, "expert group slot embed"]:
    """Copies each token into its slots; empty slots are 0."""
    return _tokens_to_slots(tokens, _tables(assignments))


def combine(
    assignments: Assignments, outputs: Float[Array, "expert group slot embed"]
) -> Float[Array, "group token embed"]:
    """Sums each token's slots, times their weights; 0 for a dropped token."""
    tables = _tables(assignments)
    rows = _slots_to_entries(outputs, tables)
    weights = assignments.weight.reshape(rows.shape[:-1]).astype(outputs.dtype)
    return jnp.einsum("gskd,gsk->gsd", rows, weights)


def _tables(assignments: Assignments) -> Tables:
    groups, entries = assignments.expert.shape
    experts, capacity = assignments.num_experts, assignments.capacity
    num_slots = experts * groups * capacity
    group = jnp.arange(groups, dtype=jnp.int32)[:, None]
    slot = (assignments.expert * groups + group) * capacity + assignments.position
    slot = jnp.where(assignments.kept, slot, num_slots)
    entry = jnp.arange(groups * entries, dtype=jnp.int32)
    empty = jnp.full((num_slots,), groups * entries, jnp.int32)
    return Tables(
        entry_of_slot=empty.at[slot.reshape(-1)]
        .set(entry, mode="drop")
        .reshape(experts, groups, capacity),
        slot_of_entry=slot.reshape(groups, -1, assignments.num_choices),
    )


def _rows(
    values: Float[Array, "*axes embed"], index: Int[Array, "*shape"]
) -> Float[Array, "*shape embed"]:
    """Rows of `values`, counted over all its leading axes; 0 outside."""
    flat = values.reshape(-1, values.shape[-1])
    return flat.at[index].get(mode="fill", fill_value=0)


@jax.custom_vjp
def _tokens_to_slots(
    tokens: Float[Array, "group token embed"], tables: Tables
) -> Float[Array, "expert group slot embed"]:
    return _rows(tokens, tables.entry_of_slot // tables.slot_of_entry.shape[-1])


def _tokens_to_slots_forward(tokens, tables):
    return _tokens_to_slots(tokens, tables), tables


def _tokens_to_slots_backward(tables, cotangent):
    return _rows(cotangent, tables.slot_of_entry).sum(axis=2), None


_tokens_to_slots.defvjp(_tokens_to_slots_forward, _tokens_to_slots_backward)


@jax.custom_vjp
def _slots_to_entries(
    outputs: Float[Array, "expert group slot embed"], tables: Tables
) -> Float[Array, "group token choice embed"]:
    return _rows(outputs, tables.slot_of_entry)


def _slots_to_entries_forward(outputs, tables):
    return _slots_to_entries(outputs, tables), tables


def _slots_to_entries_backward(tables, cotangent):
    return _rows(cotangent, tables.entry_of_slot), None


_slots_to_entries.defvjp(_slots_to_entries_forward, _slots_to_entries_backward)
