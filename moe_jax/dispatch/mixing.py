"""Slots that hold weighted sums of tokens: dispatch and combine of dense mixing.

Axes: G groups, S tokens per group, E experts, C slots, D width.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from moe_jax.routing.types import Mixing


def dispatch(
    mixing: Mixing, tokens: Float[Array, "group token embed"]
) -> Float[Array, "expert group slot embed"]:
    """Fills each slot with its weighted sum of the group's tokens."""
    return jnp.einsum("gsec,gsd->egcd", mixing.dispatch.astype(tokens.dtype), tokens)


def combine(
    mixing: Mixing, outputs: Float[Array, "expert group slot embed"]
) -> Float[Array, "group token embed"]:
    """Gives each token its weighted sum of the slots."""
    return jnp.einsum("gsec,egcd->gsd", mixing.combine.astype(outputs.dtype), outputs)
