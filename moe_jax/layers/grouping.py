"""Groups: the tokens that compete for the same slots."""

import jax.numpy as jnp
from jaxtyping import Array, Int

from moe_jax.errors import UserError


def unique_documents(
    segment_ids: Int[Array, "batch length"] | None,
) -> Int[Array, "batch length"] | None:
    """Segment ids that differ between rows, too: a group may hold several; 0: padding."""
    if segment_ids is None:
        return None
    rows, length = segment_ids.shape
    offset = jnp.arange(rows, dtype=jnp.int32)[:, None] * (length + 1)
    return jnp.where(segment_ids > 0, segment_ids + offset, 0)


def group_size(batch: int, length: int, wanted: int) -> int:
    """Returns S, the number of tokens in a group.

    Args:
      batch: sequences.
      length: tokens per sequence.
      wanted: S, which must divide batch * length; 0: one sequence.

    Raises:
      UserError: the tokens cannot be cut into groups of that size.
    """
    size = wanted or length
    if (batch * length) % size:
        raise UserError(
            f"moe.group_size={wanted} does not divide {batch} x {length} tokens "
            f"(batch x length); {length} (or 0: one sequence a group) would"
        )
    return size
