"""Grouped work made of plain matmuls of static shape, for backends without a kernel.

Each expert has a chunk of static size, a little above the mean: one batched matmul
serves all chunks as fast as a dense one. What an expert has beyond its chunk is
done by a loop over small blocks, as often as there are any: balanced experts cost
the chunks, a collapsed router about twice that, and nothing is ever dropped. No
array has both an axis of experts and one of a capacity that grows with it: E chunks
hold little more than the M rows.

Axes: M rows, E experts, D and F widths, C rows of a chunk, B rows of a block.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from moe_jax.dispatch.tables import rows_of

# Rows of a block: of many as long as an expert has as many left, of few for the rest.
# A block costs the reading of its expert's kernels, which is as much as 40 rows.
_BLOCKS = (256, 32)

Params = Any
Function = Callable[[Params, Array, Array | None], Array]


def by_expert(
    function: Function,
    params: Params,
    rows: Float[Array, "row embed"],
    sizes: Int[Array, " expert"],
    keys: UInt32[Array, "row word"] | None = None,
) -> Float[Array, "row mlp"]:
    """Applies a function to each expert's rows, with that expert's parameters.

    Args:
      function: `(params, rows [n, D], keys [n, W]) -> [n, F]`, for one expert and
        any n. It must treat rows one by one.
      params: pytree whose leaves have a leading axis of experts.
      rows: those of expert 0, then of expert 1, and so on.
      sizes: how many rows each expert has.
      keys: what the function draws from for each row, as data of random keys; None:
        it draws nothing.

    Returns:
      The function of each row; 0 past the last expert's, which get no gradient.
    """
    return _by_expert(function, params, rows, sizes, keys)


class _Chunks(NamedTuple):
    """Where chunks find their rows: indices into rows and slots; outside: none."""

    row_of_slot: Int[Array, "expert slot"]
    slot_of_row: Int[Array, " row"]


def _chunks(num_rows: int, sizes: Int[Array, " expert"]) -> _Chunks:
    size = _chunk_size(num_rows, sizes.size)
    slot = jnp.arange(size, dtype=jnp.int32)
    start = (jnp.cumsum(sizes) - sizes)[:, None]
    row_of_slot = jnp.where(slot < sizes[:, None], start + slot, num_rows)
    slots = jnp.arange(row_of_slot.size, dtype=jnp.int32)
    nowhere = jnp.full((num_rows,), row_of_slot.size, jnp.int32)
    slot_of_row = nowhere.at[row_of_slot.reshape(-1)].set(slots, mode="drop")
    return _Chunks(row_of_slot, slot_of_row)


def _chunk_size(num_rows: int, num_experts: int) -> int:
    """The mean and one standard deviation of random routing, up to a quarter more.

    With more, empty rows would cost more than the blocks that they save: measured on
    a CPU, where the optimum is flat. Matmuls there like multiples of 16.
    """
    mean = num_rows / num_experts
    wanted = mean + min(mean**0.5, mean / 4)
    step = 16 if mean >= 64 else 8 if mean >= 16 else 1
    return min(num_rows, math.ceil(wanted / step - 0.5) * step or 1)


def _apply_to_chunks(function, params, chunks, keys):
    batched = jax.vmap(function, in_axes=(0, 0, None if keys is None else 0))
    return batched(params, chunks, keys)


class _Block(NamedTuple):
    """A block of rows, of which some belong to the expert.

    Attributes:
      expert: index.
      first: the first row of the slice, which ends with the rows at the latest.
      mine: [B, 1], which rows of the slice are meant.
    """

    expert: Int[Array, ""]
    first: Int[Array, ""]
    mine: Bool[Array, "row 1"]


def _for_each_block(
    num_rows: int, sizes: Int[Array, " expert"], body: Callable, carry: Any
) -> Any:
    """carry = body(block, carry), over the rows that chunks do not hold."""
    stop = jnp.cumsum(sizes)
    start = stop - sizes + _chunk_size(num_rows, sizes.size)
    for width in _BLOCKS:
        left = jnp.maximum(stop - start, 0)
        smallest = width == min(_BLOCKS)
        width = min(width, num_rows)
        blocks = (left + width - 1) // width if smallest else left // width
        carry = _loop(body, carry, num_rows, width, blocks, start, stop)
        start += blocks * width
    return carry


def _loop(body, carry, num_rows, width, blocks, start, stop):
    """Over so many blocks of each expert, from its own start on."""
    last = jnp.cumsum(blocks)

    def one(i, carry):
        expert = (last <= i).sum(dtype=jnp.int32)
        meant = start[expert] + (i - (last - blocks)[expert]) * width
        first = jnp.minimum(meant, num_rows - width)
        row = first + jnp.arange(width, dtype=jnp.int32)
        mine = (meant <= row) & (row < jnp.minimum(meant + width, stop[expert]))
        return body(_Block(expert, first, mine[:, None]), carry)

    return jax.lax.fori_loop(0, last[-1], one, carry)


def _block_call(function, params, keys, block):
    """The function of the block's rows, and the expert's parameters."""
    own = jax.tree.map(
        lambda x: jax.lax.dynamic_index_in_dim(x, block.expert, keepdims=False), params
    )
    keys = None if keys is None else _slice(keys, block)
    return lambda own, x: function(own, x, keys), own


def _slice(values: Array, block: _Block) -> Array:
    return jax.lax.dynamic_slice_in_dim(values, block.first, block.mine.shape[0])


def _add_to_slice(values: Array, block: _Block, change: Array) -> Array:
    """Adds to the block's own rows and leaves the others."""
    change = jnp.where(block.mine, change, 0).astype(values.dtype)
    return jax.lax.dynamic_update_slice_in_dim(
        values, _slice(values, block) + change, block.first, axis=0
    )


def _forward(function, params, rows, sizes, keys):
    table = _chunks(rows.shape[0], sizes)
    of_chunks = None if keys is None else keys.at[table.row_of_slot].get(mode="clip")
    # An empty slot holds any row: its result is not read, and its gradient is 0.
    chunks = rows.at[table.row_of_slot].get(mode="clip")
    results, pullback = jax.vjp(
        lambda params, x: _apply_to_chunks(function, params, x, of_chunks),
        params,
        chunks,
    )

    def one(block, out):
        call, own = _block_call(function, params, keys, block)
        return _add_to_slice(out, block, call(own, _slice(rows, block)))

    out = rows_of(results, table.slot_of_row)
    out = _for_each_block(rows.shape[0], sizes, one, out)
    return out, (params, rows, sizes, keys, table, pullback)


def _backward(function, residuals, cotangent):
    params, rows, sizes, keys, table, pullback = residuals
    d_params, d_chunks = pullback(rows_of(cotangent, table.row_of_slot))

    def one(block, carry):
        d_params, d_rows = carry
        call, own = _block_call(function, params, keys, block)
        _, of_block = jax.vjp(call, own, _slice(rows, block))
        d_own, change = of_block(jnp.where(block.mine, _slice(cotangent, block), 0))
        d_params = jax.tree.map(
            lambda total, part: total.at[block.expert].add(part), d_params, d_own
        )
        return d_params, _add_to_slice(d_rows, block, change)

    # Loops may write in place: what an iteration costs does not depend on E.
    d_rows = rows_of(d_chunks, table.slot_of_row)
    d_params, d_rows = _for_each_block(rows.shape[0], sizes, one, (d_params, d_rows))
    return d_params, d_rows, None, None


def _primal(function, params, rows, sizes, keys):
    return _forward(function, params, rows, sizes, keys)[0]


_by_expert = jax.custom_vjp(_primal, nondiff_argnums=(0,))
_by_expert.defvjp(_forward, _backward)
