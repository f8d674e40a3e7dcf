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
    if not assignments.by_token:
        return _expert_choice_sum(assignments, values)
    by_choice = (-1, assignments.num_tokens, assignments.num_choices)
    expert = assignments.expert.reshape(by_choice)[..., None, None]
    position = assignments.position.reshape(by_choice)[..., None, None]
    # A dropped entry's position C is no slot's.
    sits = (expert == jnp.arange(assignments.num_experts)[:, None]) & (
        position == jnp.arange(assignments.capacity)
    )
    # Compared, not multiplied: one pass over the result, whatever K is.
    return jnp.where(sits, values.reshape(by_choice)[..., None, None], 0).sum(axis=2)


def _expert_choice_sum(
    assignments: Assignments, values: Float[Array, "group entry"]
) -> Float[Array, "group token expert slot"]:
    """The same where entry e * C + c is slot c of expert e: no one-hots of these."""
    by_slot = (-1, assignments.num_experts, assignments.capacity)
    token = jax.nn.one_hot(
        assignments.token.reshape(by_slot), assignments.num_tokens, axis=1
    )
    value = jnp.where(assignments.kept, values, 0).reshape(by_slot)
    return token * value[:, None]
