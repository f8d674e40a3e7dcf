"""Sums and places in line, by expert: what slots, losses and metrics count."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Num

# Entries that are compared pair by pair. Measured on a CPU with 8192 entries and
# 8 to 128 experts: 3 to 17 times faster than a running sum for each expert, 2 to 5
# times faster than a sort; shorter and longer blocks are slower.
_BLOCK = 32


def sum_by_expert(
    experts: Int[Array, "group entry"],
    values: Num[Array, "group entry"],
    num_experts: int,
) -> Num[Array, "group expert"]:
    """Returns each expert's sum of the values of its entries."""

    def of_group(experts, values):
        return jnp.zeros(num_experts, values.dtype).at[experts].add(values)

    return jax.vmap(of_group)(experts, values)


def place_in_line(
    experts: Int[Array, "group entry"],
    wanted: Bool[Array, "group entry"],
    num_experts: int,
) -> Int[Array, "group entry"]:
    """Returns how many earlier wanted entries ask for the same expert, int32.

    Entries within a block are compared pair by pair; a running sum over blocks
    counts those before. What stands at an entry that is not wanted means nothing.
    """
    groups, entries = experts.shape
    fill = ((0, 0), (0, -entries % _BLOCK))
    # An expert that no one has keeps unwanted entries out of every count.
    asked = jnp.pad(
        jnp.where(wanted, experts, num_experts), fill, constant_values=num_experts
    )
    asked = asked.astype(jnp.int32).reshape(groups, -1, _BLOCK)
    same = asked[..., :, None] == asked[..., None, :]
    earlier = jnp.tri(_BLOCK, k=-1, dtype=bool)
    within = (same & earlier).sum(axis=-1, dtype=jnp.int32)
    in_block = asked[..., None] == jnp.arange(num_experts)
    by_block = in_block.sum(axis=2, dtype=jnp.int32)
    before = jnp.cumsum(by_block, axis=1) - by_block
    before = jnp.take_along_axis(before, jnp.minimum(asked, num_experts - 1), axis=2)
    return (before + within).reshape(groups, -1)[:, :entries]
