"""Index tables: which entry sits in a slot, and in which slot an entry sits.

A slot is a row of the experts' inputs, whatever their layout: a place in a buffer,
or a place in a sorted list. With both tables, a gather's gradient is again a
gather; autodiff alone would make it a scatter-add, which is slow on TPU and adds in
no fixed order on GPU.

That holds for token choice, where each token has K entries, side by side. In expert
choice a token has any number of entries anywhere: its sum over them is a
scatter-add, in the combination and in the gradient of the dispatch, and there is no
table of static shape that would turn it into gathers. Plain autodiff says just
that.

Axes: G groups, S tokens per group, K choices, N entries of a group, D width.
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
      slot_of_entry: index into the slots; their number if dropped.
    """

    entry_of_slot: Int[Array, "*slots"]
    slot_of_entry: Int[Array, "group entry"]


def take_rows(
    values: Float[Array, "*slots embed"], tables: Tables
) -> Float[Array, "*entries embed"]:
    """The row in each entry's slot; 0 for what has none. Its gradient is a gather."""
    return _slots_to_entries(values, tables)


def fill_slots(
    assignments: Assignments, tokens: Float[Array, "group token embed"], tables: Tables
) -> Float[Array, "*slots embed"]:
    """Copies each token into its slots; empty slots are 0."""
    if assignments.by_token:
        return _tokens_to_slots(assignments.num_choices, tokens, tables)
    groups = assignments.token.shape[0]
    of_group = jnp.arange(groups, dtype=jnp.int32)[:, None] * assignments.num_tokens
    token = jnp.append(of_group + assignments.token, groups * assignments.num_tokens)
    return rows_of(tokens, token[tables.entry_of_slot])


def sum_slots(
    assignments: Assignments, outputs: Float[Array, "*slots embed"], tables: Tables
) -> Float[Array, "group token embed"]:
    """Sums each token's slots, times their weights; 0 for a dropped token."""
    rows = _slots_to_entries(outputs, tables)
    weights = assignments.weight.astype(outputs.dtype)
    if assignments.by_token:
        shape = (-1, assignments.num_tokens, assignments.num_choices)
        rows = rows.reshape(*shape, rows.shape[-1])
        return jnp.einsum("gskd,gsk->gsd", rows, weights.reshape(shape))
    # Of K experts a token's sum is short; of all that took it, in no known order, it
    # is added up in float32.
    rows = (rows * weights[..., None]).astype(jnp.float32)
    group = jnp.arange(rows.shape[0], dtype=jnp.int32)[:, None]
    shape = (rows.shape[0], assignments.num_tokens, rows.shape[-1])
    sums = jnp.zeros(shape, jnp.float32).at[group, assignments.token].add(rows)
    return sums.astype(outputs.dtype)


def rows_of(
    values: Float[Array, "*axes embed"], index: Int[Array, "*shape"]
) -> Float[Array, "*shape embed"]:
    """Rows of `values`, counted over all its leading axes; 0 outside."""
    flat = values.reshape(-1, values.shape[-1])
    return flat.at[index].get(mode="fill", fill_value=0)


def _token_choice(num_choices: int, tokens: Array, tables: Tables) -> Array:
    return rows_of(tokens, tables.entry_of_slot // num_choices)


def _token_choice_forward(num_choices, tokens, tables):
    return _token_choice(num_choices, tokens, tables), tables


def _token_choice_backward(num_choices, tables, cotangent):
    groups, entries = tables.slot_of_entry.shape
    by_choice = (groups, entries // num_choices, num_choices)
    width = cotangent.shape[-1]
    flat = cotangent.reshape(-1, width)
    return rows_of(flat, tables.slot_of_entry.reshape(by_choice)).sum(axis=2), None


_tokens_to_slots = jax.custom_vjp(_token_choice, nondiff_argnums=(0,))
_tokens_to_slots.defvjp(_token_choice_forward, _token_choice_backward)


@jax.custom_vjp
def _slots_to_entries(
    outputs: Float[Array, "*slots embed"], tables: Tables
) -> Float[Array, "*entries embed"]:
    return rows_of(outputs, tables.slot_of_entry)


def _slots_to_entries_forward(outputs, tables):
    return _slots_to_entries(outputs, tables), tables


def _slots_to_entries_backward(tables, cotangent):
    return rows_of(cotangent, tables.entry_of_slot), None


_slots_to_entries.defvjp(_slots_to_entries_forward, _slots_to_entries_backward)
