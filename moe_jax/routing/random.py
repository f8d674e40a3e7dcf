"""Random draws of groups, each from its own key.

What a group draws depends on its own key alone: groups can live on any device, and
every mesh gives the same numbers.
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Key

# One key, or one for each group [G].
Keys = Key[Array, "..."]


def group_keys(key: Keys, groups: int) -> Keys:
    """A key for each group, [G]; keys that are already given by group stay."""
    return jax.random.split(key, groups) if key.ndim == 0 else key


def fold_in(key: Keys, data: int) -> Keys:
    """`jax.random.fold_in` of one key, or of each group's."""
    return jax.vmap(jax.random.fold_in, (0, None))(key.reshape(-1), data).reshape(
        key.shape
    )


def draw(
    function: Callable[..., Array],
    key: Keys,
    shape: tuple[int, ...],
    *args: Any,
) -> Array:
    """`function(key, shape[1:], *args)` for each of the `shape[0]` groups.

    Args:
      function: of `jax.random`, such as `uniform` or `gumbel`.
      key: one, which is split, or one a group.
      shape: of the draws, [G, ...].
      *args: passed on.
    """
    keys = group_keys(key, shape[0])
    return jax.vmap(lambda one: function(one, shape[1:], *args))(keys)
