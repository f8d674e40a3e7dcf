"""GShard's dispatch: one-hot tensors [G, S, E, C] and two einsums.

The algorithm of the papers and the reference of this package. Its cost grows
with S * C: G * S * E * C * D multiply-adds a way, beside the experts' own.

Axes: G groups, S tokens per group, K choices, E experts, C capacity, D width.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from moe_jax.routing.types import Assignments

# By default a TPU rounds float32 factors to bfloat16, and a GPU to TF32: a copy
# would not be a copy.
_EXACT = "highest"


def dispatch(
    assignments: Assignments, tokens: Float[Array, "group token embed"]
) -> Float[Array, "expert group slot embed"]:
    """Copies each token into its slots; empty slots are 0."""
    ones = jnp.ones_like(assignments.weight)
    mask = _one_hot_sum(assignments, ones).astype(tokens.dtype)
    return jnp.einsum("gsec,gsd->egcd", mask, tokens, precision=_EXACT)


def combine(
    assignments: Assignments, outputs: Float[Array, "expert group slot embed"]
) -> Float[Array, "group token embed"]:
    """Sums each token's slots, times their weights; 0 for a dropped token."""
    weights = _one_hot_sum(assignments, assignments.weight).astype(outputs.dtype)
    return jnp.einsum("gsec,egcd->gsd", weights, outputs, precision=_EXACT)


def _one_hot_sum(
    assignments: Assignments, values: Float[Array, "group entry"]
) -> Float[Array, "group token expert slot"]:
    """The tensor that holds each entry's value at its token, expert and slot."""
    by_choice = (-1, assignments.num_tokens, assignments.num_choices)
    expert = jax.nn.one_hot(
        assignments.expert.reshape(by_choice), assignments.num_experts
    )
    # A dropped entry's position C lies outside, which makes its row 0.
    slot = jax.nn.one_hot(assignments.position.reshape(by_choice), assignments.capacity)
    value = values.reshape(by_choice)
    return jnp.einsum("gske,gskc,gsk->gsec", expert, slot, value, precision=_EXACT)
