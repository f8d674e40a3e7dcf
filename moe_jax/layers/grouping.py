"""Groups: the tokens that compete for the same slots."""

from moe_jax.errors import UserError


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
